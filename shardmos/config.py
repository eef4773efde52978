"""shardmos.toml: what a coordinator and its workers are told, every key with its default (deploy/shardmos.toml).

The command line overrides the file. What is unknown or of the wrong type is an error of one line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shardmos.errors import UsageError

_SIZE_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
               "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
               "kb": 10**3, "mb": 10**6, "gb": 10**9}  # fmt: skip
_TIME_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*\Z")
LOG_LEVELS = ("debug", "info", "warning", "error")


def size(value: Any, where: str) -> int:
    """Bytes: a whole number, or text as in "64MiB"."""
    number = _with_unit(value, _SIZE_UNITS, where, 'bytes, or text as in "64MiB"')
    return int(number)


def seconds(value: Any, where: str) -> float:
    """Seconds: a number, or text as in "90s", "5m", "1h"."""
    return _with_unit(value, _TIME_UNITS, where, 'seconds, or text as in "90s", "5m", "1h"')


def _some_time(value: Any, where: str) -> float:
    if (number := seconds(value, where)) <= 0:
        raise UsageError(f"{where}: {value!r}; give a time above 0")
    return number


def _with_unit(value: Any, units: Mapping[str, float], where: str, wanted: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    match = _NUMBER.match(value) if isinstance(value, str) else None
    unit = units.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise UsageError(f"{where}: {value!r}; give {wanted}")
    number = float(match[1]) * unit
    if number >= 2**63:
        raise UsageError(f"{where}: {value!r} is too large")
    return number


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UsageError(f"{where}: {value!r}; give a whole number from 0 on")
    return value


def _real(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        raise UsageError(f"{where}: {value!r}; give a number from 0 on")
    return float(value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where}: {value!r}; give text")
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where}: {value!r}; give true or false")
    return value


def _paths(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(f"{where}: {value!r}; give a list of paths")
    return value


def _one_of(*words: str) -> Callable[[Any, str], str]:
    def check(value: Any, where: str) -> str:
        if value not in words:
            raise UsageError(f"{where}: {value!r}; choose one of {', '.join(words)}")
        return str(value)

    return check


def _names(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) and 0 < len(each.encode()) < 16 for each in value):
        raise UsageError(f"{where}: {value!r}; give a list of interfaces")
    if len(set(value)) < len(value):
        raise UsageError(f"{where}: {value!r}; each interface once")
    return value


def _pair(value: Any, where: str) -> list[str]:
    value = list(value) if isinstance(value, tuple) else value
    if not isinstance(value, list) or len(value) not in (0, 2) or not all(isinstance(each, str) for each in value):
        raise UsageError(f"{where}: {value!r}; give two interfaces")
    if len(value) == 2 and value[0] == value[1]:
        raise UsageError(f"{where}: {value[0]} {value[1]}: a pair needs two interfaces, this is one")
    return value


REFUSALS = ("not-ip", "malformed")


def _refusals(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(each in REFUSALS for each in value):
        raise UsageError(f"{where}: {value!r}; give a list of {', '.join(REFUSALS)}")
    return value


@dataclass(frozen=True, slots=True)
class Option:
    """A key of the file. `default` None leaves it to the engine; `default_text` then says what that is."""

    check: Callable[[Any, str], Any]
    default: Any
    help: str
    default_text: str = ""


# Section, then key. The keys of [worker], [timeouts] and [policy] are fields of ShardConfig, timeouts with a prefix.
SCHEMA: Mapping[str, Mapping[str, Option]] = {
    "coordinator": {
        "name": Option(_text, "default", "how clients find it (--name)"),
        "workers": Option(_whole, 1, "worker processes, one per core (-w)"),
        "log_level": Option(_one_of(*LOG_LEVELS), "info", "least level that is logged to standard error (--log-level)"),
        "prepare_seconds": Option(_some_time, 20.0, "how long a push may take to prepare before it is refused"),
        "spare": Option(_flag, True, "live: keep a process ready that takes the place of a worker that dies"),
    },
    "security": {
        "user": Option(_text, "", "unprivileged user that workers become, where the coordinator is root (own: empty)"),
        "seccomp": Option(
            _one_of("auto", "required", "off"), "auto", "workers' filter of system calls; auto: where it can be"),
    },
    "replay": {
        "files": Option(_paths, [], "captures to replay, merged in time order (--replay)"),
        "loop": Option(_flag, False, "start again at the end (--loop)"),
        "rate": Option(_real, 0.0, "packets per second; 0 is as fast as possible (--rate)"),
        "as_recorded": Option(_flag, False, "at the pace of the capture's timestamps (--as-recorded)"),
        "exit": Option(_flag, False, "end the coordinator when the replay has ended (--exit)"),
    },
    "port": {
        "interfaces": Option(_names, [], "live interfaces to listen on (-i)"),
        "pair": Option(_pair, [], "two interfaces to sit between, inline (--pair)"),
        "driver": Option(
            _one_of("auto", "af_packet", "af_xdp"), "auto", "how packets are taken from the wire (--driver)"),
        "xdp_mode": Option(
            _one_of("auto", "native", "generic"), "auto", "AF_XDP: in the device's driver, or in Linux behind it"),
        "promiscuous": Option(_flag, False, "passive: see frames to other stations too (--promiscuous)"),
        "fail": Option(
            _one_of("closed", "open"), "closed", "a pair whose modules kill workers: open passes on all meanwhile"),
        "refuse": Option(_refusals, [], "what a pair does not pass on: not-ip, malformed"),
        "busy_poll": Option(_flag, False, "never sleep; costs a whole core per worker (--busy-poll)"),
        "fanout": Option(
            _one_of("owner", "hash", "queue", "cpu", "round-robin", "random"), "owner",
            "which worker's ring a packet comes to; what is another's is handed over"),
        "ring": Option(size, 16 << 20, "memory of each receive ring", "16MiB"),
        "handover": Option(size, 4 << 20, "memory of a ring for packets that reach the wrong worker", "4MiB"),
        "block_time": Option(seconds, 0.008, "longest that a passive port keeps packets back to fill a block", "8ms"),
    },
    "worker": {
        "memory": Option(size, 1 << 30, "bound of all memory of a worker: flows, buffers (--memory)", "1GiB"),
        "filter": Option(_text, "", "pcap filter; other packets are counted and go no further (--filter)"),
        "key": Option(
            _one_of("5tuple", "vlan"), None, "what makes a flow; vlan keeps VLANs and tunnels apart",
            "5tuple in a replay, vlan live"),
        "checksums": Option(_one_of("verify", "ignore"), "verify", "ignore: for captures of offloaded traffic"),
        "max_flows": Option(_whole, None, "flows at once", "follows from memory"),
        "buffer_bytes": Option(size, None, "out-of-order bytes kept by a worker", "follows from memory"),
        "flow_buffer": Option(size, None, "out-of-order bytes kept per direction of a flow", "the engine's"),
        "flow_segments": Option(_whole, None, "out-of-order segments kept per direction of a flow", "the engine's"),
        "depth": Option(size, None, "bytes of a stream that are delivered; 0 no limit", "0"),
        "defrag_bytes": Option(size, None, "memory for IP fragments", "follows from memory"),
        "history": Option(_flag, True, "keep Zeek's history letters"),
        "rtt": Option(_flag, True, "measure round-trip times"),
        "anomalies": Option(_flag, True, "count anomalies per flow"),
    },
    "policy": {
        "overlap_policy": Option(_text, None, "of different bytes for a place: first, last, or an OS's", "first"),
        "defrag_policy": Option(_text, None, "likewise for IP fragments", "linux"),
        "overlap_networks": Option(_text, None, "NETWORK=POLICY,...; or [[overlap]] tables", "none"),
        "defrag_networks": Option(_text, None, "NETWORK=POLICY,...; or [[defrag]] tables", "none"),
        "urgent": Option(_one_of("inline", "oob", "drop"), None, "urgent data", "inline"),
        "midstream": Option(_one_of("track", "ignore"), None, "connections whose start was not seen", "track"),
        "gap_bytes": Option(size, None, "bytes behind a hole before it is given up; 0 no limit", "the engine's"),
        "gap_segments": Option(_whole, None, "segments behind a hole until it is given up; 0 no limit", "the engine's"),
        "gap_seconds": Option(seconds, None, "packet time that a hole may stay open; 0 no limit", "the engine's"),
        "compare_bytes": Option(
            size, None, "delivered bytes of a stream that later copies are compared with", "16K where heard"
        ),
        "acked_gaps": Option(
            _one_of("auto", "at-once", "with-data"), None, "when acknowledged gaps are told", "at-once if live"
        ),
        "flow_buffer_full": Option(
            _one_of("skip", "refuse", "stop"), None, "at a flow's bound of out-of-order data", "skip"
        ),
        "worker_buffer_full": Option(_one_of("skip", "refuse", "stop"), None, "likewise at the worker's", "skip"),
        "flow_table_full": Option(_one_of("evict", "refuse"), None, "evict a flow, or refuse the new one", "evict"),
        "adaptive": Option(_whole, None, "per cent of max_flows from which on timeouts get shorter; 0 never", "60"),
        "max_jump": Option(seconds, None, "a larger step forward of packet time is an anomaly", "the engine's"),
    },
    "timeouts": {
        "syn": Option(seconds, None, "a flow with only SYNs", "60s"),
        "established": Option(seconds, None, "an idle connection; 0 never", "never in a replay, 1h live"),
        "closed": Option(seconds, None, "how long a closed connection lingers", "120s"),
        "reset": Option(seconds, None, "how long a reset connection lingers", "10s"),
        "udp": Option(seconds, None, "an idle UDP flow", "60s"),
        "icmp": Option(seconds, None, "an idle ICMP flow", "30s"),
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration, checked: `values[section][key]`, defaults filled in."""

    values: Mapping[str, Mapping[str, Any]]

    def __getitem__(self, section: str) -> Mapping[str, Any]:
        return self.values[section]

    @property
    def live(self) -> bool:
        """Packets come from the wire, not from captures."""
        return bool(self["port"]["interfaces"] or self["port"]["pair"])

    def shard_options(self) -> dict[str, Any]:
        """Keywords for ShardConfig, without what the engine decides."""
        options = {key: value for key, value in {**self["worker"], **self["policy"]}.items() if key != "filter"}
        options.update({f"timeout_{key}": value for key, value in self["timeouts"].items()})
        options["key"] = options["key"] or ("vlan" if self.live else "5tuple")
        options.update(live=self.live, refuse=self["port"]["refuse"])
        return {key: value for key, value in options.items() if value is not None}


def load(path: str | None = None, overrides: Mapping[tuple[str, str], Any] | None = None) -> Settings:
    """The settings of a file (None: defaults) under those of the command line. UsageError for what is wrong."""
    given: Mapping[str, Any] = {}
    if path is not None:
        try:
            with open(path, "rb") as file:
                given = tomllib.load(file)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: {error}") from None
    where = path or "settings"
    values = {section: {key: option.default for key, option in keys.items()} for section, keys in SCHEMA.items()}
    for section, keys in given.items():
        if section in _NETWORKS:
            values["policy"][_NETWORKS[section]] = _networks(keys, f"{where}: [[{section}]]")
            continue
        if section not in SCHEMA:
            raise UsageError(f"{where}: no section [{section}]; there are {', '.join(SCHEMA)}")
        if not isinstance(keys, dict):
            raise UsageError(f"{where}: {section} is a section: write [{section}]")
        for key, value in keys.items():
            values[section][key] = _option(section, key, where).check(value, f"{where}: {section}.{key}")
    for (section, key), value in (overrides or {}).items():
        values[section][key] = _option(section, key, "command line").check(value, key.replace("_", "-"))
    return Settings(values)


# Array of tables, as in [[overlap]], to the key of [policy] that it is another way to write.
_NETWORKS = {"overlap": "overlap_networks", "defrag": "defrag_networks"}


def _networks(tables: Any, where: str) -> str:
    """`networks` and `policy` of each table as one text: "10.0.0.0/8=windows,..."."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f'{where}: write each as a table with networks = ["10.0.0.0/8"] and policy = "windows"')
    items = []
    for table in tables:
        networks, policy = table.get("networks"), table.get("policy")
        if set(table) != {"networks", "policy"} or not isinstance(policy, str) or not isinstance(networks, list):
            raise UsageError(f'{where}: give networks = ["10.0.0.0/8"] and policy = "windows"')
        items += [f"{network}={policy}" for network in networks]
    return ",".join(items)


def _option(section: str, key: str, where: str) -> Option:
    if key not in SCHEMA[section]:
        raise UsageError(f"{where}: no key {section}.{key}; there are {', '.join(SCHEMA[section])}")
    return SCHEMA[section][key]


def parse_setting(text: str) -> tuple[tuple[str, str], Any]:
    """((section, key), value) of "SECTION.KEY=VALUE"; the value is read as TOML, else as text."""
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot or section not in SCHEMA:
        raise UsageError(f"--set {text!r}: give SECTION.KEY=VALUE; the sections are {', '.join(SCHEMA)}")
    _option(section, key, "--set")
    try:
        parsed = tomllib.loads(f"v = {value.strip()}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return (section, key), parsed
