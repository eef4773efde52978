"""flows(): the flows of a capture, as a generator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from shardmos.errors import UsageError
from shardmos.flow import Flow, make_flows, split_records
from shardmos.workers.capture import check_workers, drive, make_config, source_paths, take_extras
from shardmos.workers.shard import Shard

if TYPE_CHECKING:
    from shardmos._record import Batch

Flows: TypeAlias = "list[Flow] | Batch[Flow]"
Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def flows(
    source: Source,
    *,
    filter: str | None = None,
    key: str = "5tuple",
    checksums: str = "verify",
    hash: str | None = None,
    workers: int = 1,
    **config: Any,
) -> Iterator[Flow]:
    """The flows of a capture, each given out when it ends.

    `source` is a path, a list of paths (read as one sequence in time order), or "-" for standard input. `filter` is in
    pcap syntax over the innermost IP packet. `hash="sha256"` fills `sha256` and `ranges`. `workers` above 1 reads with
    that many processes; the flows are the same, their order may differ. Further keywords are the fields of
    `ShardConfig`, as in `memory="256M"` or `timeout_udp=30`.

    Leaving the loop early frees everything. Raises ShardmosError (one line) for what cannot be read; of a capture
    that is cut in the middle of a packet the flows before the cut come first.
    """
    return _flows(FlowReader(source, filter=filter, key=key, checksums=checksums, hash=hash, workers=workers, **config))


def _flows(reader: FlowReader) -> Iterator[Flow]:
    try:
        for batch in reader.batches():
            yield from batch
    finally:
        reader.close()


class FlowReader:
    """What flows() and the command line share: batches of flows, and afterwards the counters.

    `annotators` make, in each worker, middleboxes whose `take(handle)` gives plain data for an ended flow; `on_extras`
    gets what each gave, in their order, before the flow is given out.
    """

    def __init__(
        self,
        source: Source,
        *,
        filter: str | None = None,
        hash: str | None = None,
        workers: int = 1,
        annotators: Sequence[Callable[[], Any]] = (),
        on_extras: Callable[[list[Any]], None] | None = None,
        **config: Any,
    ) -> None:
        if hash not in (None, "sha256"):
            raise UsageError(f"hash: {hash!r}; the one there is is sha256")
        self._workers = check_workers(workers)
        make_config(config)  # for its errors
        self._paths = source_paths(source)
        self._options = config
        self._filter = filter
        self._hash = hash
        self._annotators = list(annotators)
        self._on_extras = on_extras
        self._closers: list[Any] = []
        self.counters: dict[str, int] = {}
        """What was counted, once the batches are through."""

    def batches(self) -> Iterator[Flows]:
        """Flows as they end, some at a time; none where time went by without any."""
        if self._workers > 1:
            from shardmos.workers.pool import Pool

            pool = Pool(
                self._paths, self._workers, self._options, filter=self._filter, annotators=self._make_annotators
            )
            self._closers.append(pool)
            for records, extras in pool.batches():
                yield self._batch(records, extras)
            self.counters = pool.counters
        else:
            yield from self._alone()

    def _alone(self) -> Iterator[Flows]:
        shard = Shard(make_config(self._options, records=True))
        self._closers.append(shard)
        annotators = self._make_annotators()
        if annotators:
            from shardmos.workers.host import attach

            for annotator in annotators:
                attach(shard, annotator)
        self._closers.extend(annotator for annotator in annotators if hasattr(annotator, "close"))
        if self._filter is not None:
            shard.set_filter(self._filter)
        shard.open_captures(self._paths)
        try:
            for records in drive(shard):
                yield self._batch(records, take_extras(annotators, records))
        finally:
            self.counters = shard.stats().counters

    def _make_annotators(self) -> list[Any]:
        made = [make() for make in self._annotators]
        if self._hash:
            from shardmos.stream_hash import Hasher

            made.insert(0, Hasher())
        return made

    def _batch(self, records: bytes, extras: list[list[Any]] | None) -> Flows:
        flows: Flows
        if extras and self._hash:
            flows = [Flow(row, extra.pop(0)) for row, extra in zip(split_records(records), extras, strict=True)]
        else:
            flows = make_flows(records)
        if self._on_extras is not None and extras:
            for extra in extras:
                self._on_extras(extra)
        return flows

    def close(self) -> None:
        """Frees everything. Twice is once."""
        while self._closers:
            self._closers.pop().close()


__all__ = ["Flow", "FlowReader", "flows"]
