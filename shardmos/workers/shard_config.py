"""How a shard is laid out and what it does, as a Python object and as smos_config_t."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from shardmos.errors import UsageError
from shardmos.workers.binding import enum_names, ffi, lib
from shardmos.workers.checked import CData, ShardError, choice, nanoseconds, whole

OVERLAP_POLICIES = enum_names("smos__overlap_t", "SMOS__OVERLAP_")
DEFRAG_POLICIES = enum_names("smos__defrag_policy_t", "SMOS__DEFRAG_")
_URGENT = {"inline": 0, "oob": 1, "drop": 2}
_MIDSTREAM = {"track": 0, "ignore": 1}
_CHECKSUMS = {"verify": 0, "ignore": 1}
_KEYS = {"5tuple": 0, "vlan": 1}
_PUBLISH = {
    "flows": lib.SMOS_PUBLISH_FLOWS,
    "anomalies": lib.SMOS_PUBLISH_ANOMALIES,
    "modules": lib.SMOS_PUBLISH_MODULES,
    "log": lib.SMOS_PUBLISH_LOG,
}
_ACKED_GAPS = {
    "auto": lib.SMOS_GAPS_AUTO,
    "at-once": lib.SMOS_GAPS_AT_ONCE,
    "with-data": lib.SMOS_GAPS_WITH_DATA,
}
_FULL = {"skip": lib.SMOS_FULL_SKIP, "refuse": lib.SMOS_FULL_REFUSE, "stop": lib.SMOS_FULL_STOP}
_TABLE_FULL = {"evict": 0, "refuse": 1}
_REFUSALS = {"not-ip": lib.SMOS_REFUSE_NOT_IP, "malformed": lib.SMOS_REFUSE_MALFORMED}
_TIMES = (
    "timeout_syn", "timeout_established", "timeout_closed", "timeout_reset", "timeout_udp", "timeout_icmp", "max_jump",
)  # fmt: skip
_SIZES = (
    "max_flows", "buffer_bytes", "flow_buffer", "flow_segments", "depth", "defrag_bytes", "gap_bytes", "gap_segments",
    "compare_bytes", "adaptive",
)  # fmt: skip
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAX_PREFIXES = len(ffi.new("smos_config_t *").overlap_prefixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardConfig:
    """How a shard is laid out and what it does. None leaves the engine's default; times are seconds, 0 never.

    `memory` bounds the worker in bytes; sizes that are given beside it override what follows from it.
    `overlap_networks` and `defrag_networks` are text as in "10.0.0.0/8=windows,2001:db8::/32=linux": policies of the
    receiving hosts' networks, the longest prefix first.
    `publish` fills the event queue ("anomalies", "modules", "log"); "flows" collects the records of ended flows, as
    `records` does. `refuse` names what an inline port does not pass on ("not-ip", "malformed").
    """

    worker: int = 0
    workers: int = 1
    owner_seed: int = 0
    memory: int | None = None
    max_flows: int | None = None
    buffer_bytes: int | None = None
    flow_buffer: int | None = None
    flow_segments: int | None = None
    depth: int | None = None
    defrag_bytes: int | None = None
    gap_bytes: int | None = None
    gap_segments: int | None = None
    compare_bytes: int | None = None
    defrag_policy: str | None = None
    overlap_policy: str | None = None
    defrag_networks: str | None = None
    overlap_networks: str | None = None
    acked_gaps: str | None = None
    flow_buffer_full: str | None = None
    worker_buffer_full: str | None = None
    flow_table_full: str | None = None
    adaptive: int | None = None
    urgent: str | None = None
    midstream: str | None = None
    checksums: str = "verify"
    key: str = "5tuple"
    live: bool = False
    refuse: Sequence[str] = ()
    records: bool = False
    history: bool = True
    rtt: bool = True
    anomalies: bool = True
    publish: frozenset[str] = frozenset()
    timeout_syn: float | None = None
    timeout_established: float | None = None
    timeout_closed: float | None = None
    timeout_reset: float | None = None
    timeout_udp: float | None = None
    timeout_icmp: float | None = None
    gap_seconds: float | None = None
    max_jump: float | None = None
    hash_key: bytes | None = None
    stats_fd: int = -1
    state_fd: int = -1
    breadcrumb_fd: int = -1


def native_config(config: ShardConfig) -> CData:
    native = ffi.new("smos_config_t *")
    lib.smos_config_default(native)
    if config.memory is not None:
        whole(config.memory, "memory")
        if lib.smos_config_memory(native, config.memory) < 0:
            raise ShardError(f"memory: {config.memory} bytes are too few for a worker; give more")
    for name in ("worker", "workers", "owner_seed"):
        _set(native, name, getattr(config, name))
    for name in _SIZES:
        if (value := getattr(config, name)) is not None:
            _set(native, name, value)
    for name in _TIMES:
        if (seconds := getattr(config, name)) is not None:
            setattr(native, f"{name}_ns", nanoseconds(seconds, name))
    if config.gap_seconds is not None:
        native.gap_ns = nanoseconds(config.gap_seconds, "gap_seconds")
    for field, name, choices in (
        ("defrag_policy", "defrag_policy", DEFRAG_POLICIES),
        ("overlap_policy", "overlap_policy", OVERLAP_POLICIES),
        ("acked_gaps", "acked_gaps", _ACKED_GAPS),
        ("flow_buffer_full", "flow_full", _FULL),
        ("worker_buffer_full", "worker_full", _FULL),
        ("flow_table_full", "table_full", _TABLE_FULL),
        ("urgent", "urgent_policy", _URGENT),
        ("midstream", "midstream", _MIDSTREAM),
        ("checksums", "checksums", _CHECKSUMS),
        ("key", "key", _KEYS),
    ):
        if (chosen := getattr(config, field)) is not None:
            setattr(native, name, choice(chosen, choices, field))
    for what in config.refuse:
        native.refuse |= choice(what, _REFUSALS, "refuse")
    for field, name, choices in (
        ("defrag_networks", "defrag_prefix", DEFRAG_POLICIES),
        ("overlap_networks", "overlap_prefix", OVERLAP_POLICIES),
    ):
        if text := getattr(config, field):
            list_of = getattr(native, f"{name}es")
            networks = _networks(text, choices, field)
            setattr(native, f"{name}_count", len(networks))
            for entry, (network, policy) in zip(list_of, networks, strict=False):
                _set_network(entry, network, policy)
    native.live, native.records = int(config.live), int(config.records)
    native.detail = (
        (lib.SMOS_DETAIL_HISTORY if config.history else 0)
        | (lib.SMOS_DETAIL_RTT if config.rtt else 0)
        | (lib.SMOS_DETAIL_ANOMALIES if config.anomalies else 0)
    )
    native.publish = publish_bits(config.publish)
    if config.hash_key is not None:
        if len(config.hash_key) != ffi.sizeof("uint64_t[4]"):
            raise ShardError(f"hash_key: {len(config.hash_key)} bytes; give 32")
        ffi.memmove(native.hash_key, config.hash_key, len(config.hash_key))
    native.stats_fd, native.state_fd, native.breadcrumb_fd = config.stats_fd, config.state_fd, config.breadcrumb_fd
    return native


def check_config(config: ShardConfig) -> None:
    """UsageError for a value that cannot be meant."""
    try:
        native_config(config)
    except ShardError as error:
        raise UsageError(str(error)) from None


def _networks(text: str, choices: Mapping[str, int], name: str) -> list[tuple[_Network, int]]:
    found: list[tuple[_Network, int]] = []
    for item in text.split(","):
        network, equals, policy = item.strip().partition("=")
        try:
            if not equals:
                raise ValueError
            found.append((ipaddress.ip_network(network.strip(), strict=False), choice(policy.strip(), choices, name)))
        except ValueError:
            raise ShardError(f'{name}: {item.strip()!r}; give NETWORK=POLICY, as in "10.0.0.0/8=windows"') from None
    if len(found) > _MAX_PREFIXES:
        raise ShardError(f"{name}: {len(found)} networks; at most {_MAX_PREFIXES} can have a policy of their own")
    return found


def _set_network(entry: CData, network: _Network, policy: int) -> None:
    packed = network.network_address.packed
    mapped = packed if network.version == 6 else bytes(10) + b"\xff\xff" + packed
    ffi.memmove(entry.address, mapped, len(mapped))
    entry.bits = network.prefixlen + (0 if network.version == 6 else 96)
    entry.version, entry.policy = network.version, policy


def _set(native: CData, name: str, value: int) -> None:
    whole(value, name)
    try:
        setattr(native, name, value)
    except OverflowError:
        raise ShardError(f"{name}: {value} is too large") from None


def publish_bits(names: Iterable[str]) -> int:
    bits = 0
    for name in names:
        bits |= choice(name, _PUBLISH, "publish")
    return bits
