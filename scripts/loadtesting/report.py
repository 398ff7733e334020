"""The results as text, and as JSON. All times in the JSON are in seconds.

version              1; grows when a field changes its meaning
started_at           Unix time
options              what was asked for: url, method, connections, window, rate (null: closed
                     loop), processes, ramp_up, warm_up, duration, drain, seed
exit_code            as in --help; stopped_by: a signal's name or null; fatal: text or null
measured             from (since the start of the run), seconds
requests             those due in the measured time: sent = done + failed + unfinished;
                     not_sent had no room in window and backlog
rate                 requests done per second of the measured time
latencies            first_result and done (count from when a request was due), sending (from
                     due to sent, open loop only): each count, mean, p50, p90, p99, p99_9, max;
                     quantiles are exact up to `error` (a share of the value)
errors               count by code, of the whole run
connections          reconnects; closed: count by close code (1006: lost); offline at the end
violations           total, count by kind (order, lost, repeated, unknown), first examples;
                     checked: frames looked at
generator            cpu_shares of each process (of a core); limited: whether that was the limit
seconds              for every second of the run: at (its end, since the start), seconds (its
                     length), sent, done, failed, p50, p99 (of what was done), connected
"""

from typing import Any, Final

from .histogram import ERROR, Histogram
from .run import Run

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
_OPTIONS: Final = (
    "url",
    "method",
    "connections",
    "window",
    "rate",
    "processes",
    "ramp_up",
    "warm_up",
    "duration",
    "drain",
    "seed",
)


def as_json(run: Run) -> dict[str, Any]:
    """Return the results as a JSON value."""
    totals = run.totals
    return {
        "version": 1,
        "started_at": run.started_at,
        "options": {name: getattr(run.options, name) for name in _OPTIONS},
        "exit_code": run.exit_code,
        "stopped_by": None if run.stopped_by is None else run.stopped_by.name,
        "fatal": totals.fatal,
        "measured": {"from": run.measured_from, "seconds": totals.seconds},
        "requests": {
            "sent": totals.sent,
            "done": totals.done,
            "failed": totals.failed,
            "unfinished": totals.unfinished,
            "not_sent": totals.not_sent,
        },
        "rate": run.rate,
        "latencies": {
            "error": ERROR,
            "first_result": _latencies(totals.firsts),
            "done": _latencies(totals.dones),
            "sending": None if run.options.rate is None else _latencies(totals.delays),
        },
        "errors": dict(totals.errors.most_common()),
        "connections": {
            "reconnects": totals.reconnects,
            "closed": {str(code): count for code, count in totals.closes.most_common()},
            "offline": totals.offline,
            "last_loss": totals.last_loss,
        },
        "violations": {
            "total": totals.violations.total(),
            "kinds": dict(totals.violations.most_common()),
            "examples": totals.examples,
            "checked": totals.checked,
        },
        "generator": {"cpu_shares": totals.cpu_shares, "limited": run.limited},
        "seconds": [second._asdict() for second in run.seconds],
    }


def _latencies(histogram: Histogram) -> dict[str, float]:
    return {
        "count": histogram.count,
        "mean": histogram.mean_seconds,
        **{name: histogram.quantile(share) for name, share in QUANTILES.items()},
        "max": histogram.max_seconds,
    }


def heading(run: Run) -> str:
    """Return in two lines what was done to whom."""
    options = run.options
    loop = (
        f"closed loop, {options.connections:,} connections x {options.window:,} unfinished requests"
        if options.rate is None
        else f"open loop, {options.rate:,g} requests/s over {options.connections:,} connections, "
        f"window {options.window:,}"
    )
    seconds = f"{run.totals.seconds:.1f} s measured after {options.warm_up:g} s of warm-up"
    return f"{options.method} at {options.url}\n{loop}, {seconds}"


def text(run: Run) -> str:
    """Return the report for a terminal."""
    totals = run.totals
    names = (*(name.replace("_", ".") for name in QUANTILES), "max")
    counts = (
        f"{totals.sent:,} sent, {totals.done:,} done, {totals.failed:,} failed, "
        f"{totals.unfinished:,} unfinished, {totals.not_sent:,} not sent"
    )
    lines = [
        heading(run),
        "",
        f"requests     {counts}",
        f"throughput   {run.rate:,.1f} requests/s",
        "",
        f"{'milliseconds':13}" + "".join(f"{name:>10}" for name in names),
        _row("first result", totals.firsts),
        _row("done", totals.dones),
    ]
    if run.options.rate is not None:
        lines.append(_row("sent after", totals.delays))
    lines += ["", f"connections  {_connections(run)}", f"checked      {_violations(run)}"]
    lines += [f"  {example}" for example in totals.examples]
    if totals.errors:
        codes = ", ".join(f"{code} {count:,}" for code, count in totals.errors.most_common())
        lines.append(f"errors       {codes}")
    lines.append(f"load         {_load(run)}")
    return "\n".join(lines + _notes(run))


def _row(name: str, histogram: Histogram) -> str:
    values = [*map(histogram.quantile, QUANTILES.values()), histogram.max_seconds]
    return f"{name:13}" + "".join(f"{1000 * value:10,.2f}" for value in values)


def _connections(run: Run) -> str:
    totals = run.totals
    parts = [f"{totals.reconnects:,} reconnects"]
    if totals.closes:
        closes = (f"{count:,} with {code}" for code, count in sorted(totals.closes.items()))
        parts.append(f"closed: {', '.join(closes)}")
    if totals.offline:
        parts.append(f"{totals.offline:,} offline at the end ({totals.last_loss})")
    return "; ".join(parts)


def _violations(run: Run) -> str:
    totals = run.totals
    checked = f"{totals.checked:,} frames: "
    if not totals.violations:
        return checked + "nothing lost, nothing repeated, all in order"
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in totals.violations.most_common())
    return checked + f"{totals.violations.total():,} VIOLATIONS ({kinds}), the first:"


def _load(run: Run) -> str:
    shares = ", ".join(f"{share:.0%}" for share in run.totals.cpu_shares)
    count = len(run.totals.cpu_shares)
    return f"{count} process{'es' if count > 1 else ''}, CPU {shares} of a core"


def _notes(run: Run) -> list[str]:
    """Return what the reader should know before believing the numbers."""
    totals = run.totals
    notes: list[str] = []
    if run.limited:
        notes.append(
            "the load generator used more than 90 % of its core and may have been the limit: "
            f"try --processes {run.options.processes + 1}"
        )
    if totals.not_sent:
        notes.append(
            "requests that had no room in the window and the backlog were not sent: "
            "their latency is in no number above"
        )
    if totals.unfinished and run.stopped_by is None and totals.fatal is None:
        notes.append(
            f"unfinished requests had no end {run.options.drain:g} s after the last was sent"
        )
    if run.stopped_by is not None:
        notes.append(f"stopped early ({run.stopped_by.name})")
    return ["", *(f"note: {note}" for note in notes)] if notes else []
