"""Every metric of the server: name, type, labels, help, and where its value is read.

    parts of the server (plain numbers)  <- read at each scrape -  Metrics  ->  samples

Nothing is counted here: the parts count for themselves, in plain numbers. Label values are bounded
by construction: methods of the registry, members of enumerations, and `other` for the rest.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

from msgspec import Struct
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from protocol.codes import CloseCode, ErrorCode
from server import admission, logs
from server.admission import Admission
from server.auth import AuthFailure, Verifier
from server.counts import OUTCOMES, Resume, SessionEnd
from server.gateway import LIMITS, Gateway, Handshake
from server.histogram import Histogram
from server.journal.checkpoint import Checkpointer
from server.journal.committer import Committer
from server.journal.entries import DONE
from server.journal.projection import Projector
from server.journal.store import CARRIED_OUT, REFUSED
from server.listener import Listener
from server.load import Load
from server.loop_lag import LoopLag
from server.memory import MemoryWatch
from server.operations import Operator
from server.pools import Pools
from server.readiness import Readiness, Unready
from server.session import Memory
from server.sessions import Sessions
from server.settings import Settings
from server.worker import Runtime

PREFIX: Final = "queuesystem_"
OTHER: Final = "other"
"""The label value of whatever has no name here."""
CLOSE_CODES: Final = (*map(int, CloseCode), 1002, 1003, 1006, 1007)
"""Those of the protocol, what RFC 6455 has for broken messages, and 1006: gone without a word."""

Kind = Literal["counter", "gauge", "histogram"]
_Labels = tuple[str, ...]
_Value = float | Histogram | Mapping[_Labels, float] | Mapping[_Labels, Histogram]


class Recovery(Struct):
    """What was taken over from earlier processes; `seconds` is 0 while that goes on."""

    seconds: float = 0.0
    sessions: int = 0
    requests: int = 0


class Parts(NamedTuple):
    """Where the numbers are. `checkpointer` returns None until the first checkpoint may come."""

    settings: Settings
    version: str
    max_connections: int
    readiness: Callable[[], Readiness]
    memory: Memory
    memory_watch: MemoryWatch
    load: Load
    operator: Operator
    sessions: Sessions
    runtime: Runtime
    pools: Pools
    committer: Committer
    projector: Projector
    checkpointer: Callable[[], Checkpointer | None]
    recovery: Recovery
    verifier: Verifier
    gateway: Gateway
    admission: Admission
    listener: Listener
    loop_lag: LoopLag


class _Metric(NamedTuple):
    """`name` is without prefix and `_total`; `labels` of a metric without are ()."""

    name: str
    kind: Kind
    help: str
    labels: _Labels
    read: Callable[[Parts], _Value]

    @property
    def full_name(self) -> str:
        """The name as it is queried; of a histogram, without what samples add."""
        return PREFIX + self.name + ("_total" if self.kind == "counter" else "")


class MetricRow(Struct, frozen=True):
    """One metric as a table of the documentation shows it; `labels` is empty for none."""

    name: str
    type: Kind
    labels: str
    help: str


def metrics_table() -> list[MetricRow]:
    """Return every metric, in the order of their declaration."""
    return [MetricRow(m.full_name, m.kind, ", ".join(m.labels), m.help) for m in _METRICS]


def new_registry(parts: Parts) -> CollectorRegistry:
    """Return what a scrape shows: our metrics, and those of the process and its garbage."""
    registry = CollectorRegistry()
    registry.register(Metrics(parts))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class Metrics:
    """A collector of prometheus_client (see CollectorRegistry.register)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values: for their names."""
        return [_family(metric) for metric in _METRICS]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics with what is so now."""
        for metric in _METRICS:
            family = _family(metric)
            value = metric.read(self._parts)
            samples = value.items() if isinstance(value, Mapping) else [((), value)]
            for labels, one in samples:
                _add(family, labels, one)
            yield family


_FAMILIES: Final[Mapping[Kind, type[Any]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _family(metric: _Metric) -> Metric:
    return _FAMILIES[metric.kind](PREFIX + metric.name, metric.help, labels=metric.labels)


def _add(family: Any, labels: _Labels, value: float | Histogram) -> None:
    if isinstance(value, Histogram):
        family.add_metric(labels, _buckets(value), value.total)
    else:
        family.add_metric(labels, value)


def _buckets(histogram: Histogram) -> list[tuple[str, int]]:
    """Return the buckets as samples have them: each with those below it."""
    buckets: list[tuple[str, int]] = []
    below = 0
    names = [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]
    for name, count in zip(names, histogram.counts, strict=True):
        below += count
        buckets.append((name, below))
    return buckets


# How values become samples


def _named(
    names: Iterable[Any], counts: Mapping[Any, float], *, other: bool = False
) -> dict[_Labels, float]:
    """Return a sample for each of `names`, also where nothing was counted.

    With `other`, what was counted under no name is one sample more.
    """
    known = {(str(name),): float(counts.get(name, 0)) for name in names}
    if other:
        known[OTHER,] = float(sum(counts.values()) - sum(known.values()))
    return known


def _by_method(parts: Parts, counts: Mapping[str, float]) -> dict[_Labels, float]:
    return _named(parts.runtime.handlers.names(), counts, other=True)


def _ended(parts: Parts) -> dict[_Labels, float]:
    counts = parts.sessions.counts
    names = [*parts.runtime.handlers.names(), OTHER]
    samples = {(method, str(outcome)): 0.0 for method in names for outcome in OUTCOMES}
    known = frozenset(names)
    for method, count in counts.done.items():
        samples[method if method in known else OTHER, DONE] += count
    for (method, outcome), count in counts.ended_otherwise.items():
        samples[method if method in known else OTHER, outcome] += count
    return samples


def _sessions(parts: Parts) -> dict[_Labels, float]:
    online = len(parts.gateway)
    return {("online",): online, ("offline",): len(parts.sessions) - online}


def _rejected(parts: Parts) -> dict[_Labels, float]:
    return {
        **_named(LIMITS, parts.gateway.rejected),
        **_named(admission.LIMITS, parts.admission.rejected),
        ("sockets",): parts.listener.cut_off,
    }


def _unready(parts: Parts) -> dict[_Labels, float]:
    reasons = parts.readiness().reasons
    return {(str(reason),): float(reason in reasons) for reason in Unready}


def _oldest_seconds(parts: Parts) -> float:
    oldest_at = parts.sessions.oldest_unfinished_at
    if oldest_at == math.inf or not parts.load.unfinished.held:
        return 0.0
    return max(0.0, time.time() - oldest_at)


def _journal_kind(parts: Parts) -> str:
    return "mongodb" if parts.settings.journal.startswith("mongodb") else "sqlite"


def _checkpoints(parts: Parts) -> int:
    checkpointer = parts.checkpointer()
    return 0 if checkpointer is None else checkpointer.checkpoints


def _counter(name: str, help: str, read: Callable[[Parts], _Value], *labels: str) -> _Metric:  # noqa: A002 - Prometheus' name
    return _Metric(name, "counter", help, labels, read)


def _gauge(name: str, help: str, read: Callable[[Parts], _Value], *labels: str) -> _Metric:  # noqa: A002
    return _Metric(name, "gauge", help, labels, read)


def _histogram(name: str, help: str, read: Callable[[Parts], _Value], *labels: str) -> _Metric:  # noqa: A002
    return _Metric(name, "histogram", help, labels, read)


_METRICS: Final[Sequence[_Metric]] = (
    # The process
    _gauge(
        "build_info",
        "Always 1: the version of this server, and where its journal is.",
        lambda p: {(p.version, _journal_kind(p)): 1},
        "version",
        "journal",
    ),
    _gauge("ready", "1 when /readyz says yes.", lambda p: not p.readiness().reasons),
    _gauge("unready", "1 for each reason for which /readyz says no.", _unready, "reason"),
    _histogram(
        "event_loop_lag_seconds",
        "How late timers of the event loop come; five times a second, missed ones included.",
        lambda p: p.loop_lag.seconds,
    ),
    _gauge(
        "pool_jobs",
        "Calls of handlers in threads and processes, running or waiting for one.",
        lambda p: {("thread",): p.pools.thread_jobs, ("process",): p.pools.process_jobs},
        "kind",
    ),
    _counter(
        "log_lines_suppressed",
        "Lines of the log left out because many of the same kind came at once.",
        lambda p: logs.counts().suppressed,
    ),
    _counter(
        "log_lines_dropped",
        "Lines of the log lost because nobody read it.",
        lambda p: logs.counts().dropped,
    ),
    _counter(
        "operator_commands",
        "Commands of operators settled, by what became of them.",
        lambda p: _named((CARRIED_OUT, REFUSED), p.operator.settled),
        "status",
    ),
    # Limits in force
    _gauge(
        "connections_max",
        "Limit: connections at one time.",
        lambda p: p.max_connections,
    ),
    _gauge("sessions_max", "Limit: sessions, connected or not.", lambda p: p.settings.max_sessions),
    _gauge(
        "window_max",
        "Limit: unfinished requests of a session.",
        lambda p: p.settings.window,
    ),
    _gauge(
        "unfinished_max",
        "Limit: unfinished requests of all sessions.",
        lambda p: p.load.unfinished.limit,
    ),
    _gauge(
        "memory_high_water_bytes",
        "Limit: memory of the process, above which no request is accepted; 0 for none.",
        lambda p: p.memory_watch.mark_bytes,
    ),
    _gauge(
        "memory_limit_bytes",
        "Limit: requests and unacknowledged results of all sessions in memory.",
        lambda p: p.memory.limit_bytes,
    ),
    _gauge(
        "outbox_limit_bytes",
        "Limit: output of a connection that waits before its handler has to.",
        lambda p: p.settings.outbox_bytes,
    ),
    # Connections
    _gauge("sockets", "TCP connections of the public port.", lambda p: len(p.listener.connections)),
    _gauge("connections", "WebSockets that have a session.", lambda p: len(p.gateway)),
    _gauge(
        "connections_paused",
        "Connections whose peer lets data wait now.",
        lambda p: p.listener.traffic.paused,
    ),
    _counter(
        "handshakes",
        "WebSockets by what became of them: lost is gone before its welcome.",
        lambda p: _named(get_args(Handshake), p.gateway.handshakes),
        "outcome",
    ),
    _counter(
        "auth_failures",
        "Tokens, logins and origins refused.",
        lambda p: _named(get_args(AuthFailure), p.verifier.failures),
        "reason",
    ),
    _counter(
        "connections_rejected",
        "Connections kept out by a limit; sockets were cut off before anything was read.",
        _rejected,
        "reason",
    ),
    _counter(
        "connections_closed",
        "WebSockets that ended, by the code of the first close frame; 1006 without one.",
        lambda p: _named(CLOSE_CODES, p.listener.traffic.closed, other=True),
        "code",
    ),
    _counter(
        "slow_consumers",
        "Connections closed with 4413.",
        lambda p: p.gateway.slow_consumers,
    ),
    _counter(
        "messages_received", "WebSocket messages received.", lambda p: p.listener.traffic.received
    ),
    _counter("messages_sent", "WebSocket messages sent.", lambda p: p.listener.traffic.sent),
    _counter(
        "received_bytes",
        "Bytes received on the public port.",
        lambda p: p.listener.traffic.received_bytes,
    ),
    _counter(
        "sent_bytes", "Bytes sent on the public port.", lambda p: p.listener.traffic.sent_bytes
    ),
    _gauge(
        "outbox_bytes",
        "Frames that wait to be sent, on all connections.",
        lambda p: p.gateway.outbox_bytes(),
    ),
    # Sessions
    _gauge("sessions", "Sessions, connected or not.", _sessions, "state"),
    _counter("sessions_opened", "Sessions begun.", lambda p: p.sessions.counts.opened),
    _counter(
        "sessions_ended",
        "Sessions ended, by their client, by time or by an operator.",
        lambda p: _named(get_args(SessionEnd), p.sessions.counts.ended),
        "reason",
    ),
    _counter(
        "resumes",
        "Hellos that named a session; unknown is also expired and foreign.",
        lambda p: _named(get_args(Resume), p.sessions.counts.resumes),
        "outcome",
    ),
    _counter(
        "takeovers",
        "Connections whose session was resumed by a newer one.",
        lambda p: p.gateway.takeovers,
    ),
    # Requests
    _counter(
        "requests_accepted",
        "Requests taken; a moment later they are durable, and accepted is said.",
        lambda p: _by_method(p, p.sessions.counts.accepted),
        "method",
    ),
    _counter(
        "requests_ended",
        "Requests that ended; request_error is every code of the handlers' own.",
        _ended,
        "method",
        "outcome",
    ),
    _counter(
        "requests_refused",
        "Frames that were not taken, by error code.",
        lambda p: _named(ErrorCode, p.sessions.counts.refused),
        "code",
    ),
    _counter(
        "requests_repeated",
        "Requests sent again under a known id.",
        lambda p: p.sessions.counts.repeated,
    ),
    _counter(
        "requests_replayed",
        "Runs of requests that a crash had interrupted.",
        lambda p: p.sessions.counts.replayed,
    ),
    _gauge(
        "requests_waiting",
        "Requests that were taken and have not begun.",
        lambda p: p.load.unfinished.held - p.runtime.running,
    ),
    _gauge("requests_running", "Requests that run.", lambda p: p.runtime.running),
    _gauge(
        "oldest_request_age_seconds",
        "Time since the oldest unfinished request came, as it was up to a second ago; 0 without.",
        _oldest_seconds,
    ),
    _histogram(
        "request_wait_seconds",
        "Time from arrival to start of first attempts; a batch that ran at once counts as its "
        "first.",
        lambda p: p.sessions.counts.wait_seconds,
    ),
    _histogram(
        "handler_seconds",
        "Time handlers ran, each attempt; those that never waited count as the mean of their "
        "batch.",
        lambda p: {(name,): one for name, one in p.runtime.handler_seconds.items()},
        "method",
    ),
    _counter("results", "Results of handlers.", lambda p: p.sessions.counts.results),
    _counter("result_bytes", "Bytes of the results.", lambda p: p.sessions.counts.result_bytes),
    _gauge(
        "unacked_bytes",
        "What results that wait for an acknowledgement were counted for, up to a second ago.",
        lambda p: p.sessions.unacked_bytes,
    ),
    _gauge(
        "memory_held_bytes",
        "What unfinished requests and unacknowledged results are counted for.",
        lambda p: p.memory.held_bytes,
    ),
    # Journal
    _gauge("journal_available", "1 when it can be written.", lambda p: p.committer.available),
    _counter("journal_commits", "Commits that are durable.", lambda p: p.committer.commits),
    _counter(
        "journal_written_bytes", "Bytes of these commits.", lambda p: p.committer.bytes_written
    ),
    _counter(
        "journal_failures",
        "Appends that failed, or had no answer for seconds; they are tried again.",
        lambda p: p.committer.failures,
    ),
    _histogram(
        "journal_commit_seconds",
        "Time from append to durable, with all that failed in between.",
        lambda p: p.committer.commit_seconds,
    ),
    _histogram(
        "journal_commit_entries", "Entries of a commit.", lambda p: p.committer.commit_entries
    ),
    _gauge(
        "journal_append_age_seconds",
        "How long the append under way has had no answer; 0 without one.",
        lambda p: p.committer.append_age_seconds,
    ),
    _counter("journal_checkpoints", "Checkpoints made.", _checkpoints),
    _gauge(
        "projection_lag_commits",
        "Commits that the request log does not have yet.",
        lambda p: max(0, p.committer.seq - p.projector.reached),
    ),
    # Recovery
    _gauge(
        "recovery_seconds",
        "How long taking over from earlier processes took; 0 while it goes on.",
        lambda p: p.recovery.seconds,
    ),
    _gauge(
        "recovered_sessions", "Sessions taken over at the start.", lambda p: p.recovery.sessions
    ),
    _gauge(
        "recovered_requests",
        "Unfinished requests taken over at the start.",
        lambda p: p.recovery.requests,
    ),
)
