"""Counters of a C module's own: shown with its statistics, added up over workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from traffic import conversations, write_pcap

from shardmos.run import execute
from shardmos.workers.load import load

SOURCE = """#include <shardmos/shardmos.h>
#include <stdio.h>
static uint64_t *started, *same;
static void on_start(void *self, const smos_call_t *call) { (void)self; (void)call; ++*started; }
static int init(smos_engine_t *e, const smos_api_t *api, void **self, char *error, size_t size)
{
    char name[33] = "n";
    (void)self;
    started = api->counter(e, "started");
    same = api->counter(e, "started");
    if (!started || same != started || api->counter(e, "") || api->counter(e, "Two words") || api->counter(e, 0)) return snprintf(error, size, "wrong"), -1;
    for (int i = 1; i < 32; i++) if (snprintf(name, sizeof name, "c%d", i), !api->counter(e, name)) return snprintf(error, size, "too few"), -1;
    return api->counter(e, "one_more") ? snprintf(error, size, "too many"), -1 : 0;
}
static const smos_registration_t regs[] = {
    {.event = SMOS_CONN_START, .hook = SMOS_SENDER, .side = SMOS_CLIENT, .handler = on_start}, {.event = SMOS_EVENT_COUNT}};
SMOS_MODULE = {SMOS_MODULE_HEADER, .name = "counts", .registrations = regs, .init = init};
"""  # noqa: E501


@pytest.mark.parametrize("workers", [1, 2])
def test_a_modules_counters_are_summed(tmp_path: Path, workers: int) -> None:
    (tmp_path / "counts.c").write_text(SOURCE)
    capture = write_pcap(tmp_path / "x.pcap", conversations(30))
    result = execute(capture, [load(str(tmp_path / "counts.c"))], workers=workers)
    (summary,) = result.summaries
    assert summary["counters"]["started"] == 30 and len(summary["counters"]) == 32
