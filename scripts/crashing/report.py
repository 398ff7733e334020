"""What a run has done and found, for people and for programs."""

from dataclasses import asdict
from typing import Any

from .run import Run


def line(run: Run) -> str:
    """Return where the run is."""
    tally, outcome = run.tally, run.outcome
    return (
        f"{run.seconds:6.1f} s  kills {outcome.kills:,}/{run.options.kills:,}  "
        f"requests {tally.requests:,}  ends {tally.ends:,}  resumed {tally.resumed:,}  "
        f"replays {tally.replays:,}  events checked {outcome.events:,}  "
        f"violations {outcome.violation is not None:d}"
    )


def text(run: Run) -> str:
    """Return the summary."""
    options, tally, outcome = run.options, run.tally, run.outcome
    seconds = run.seconds or 1.0
    faults = ", ".join(f"{kind} {count:,}" for kind, count in sorted(outcome.faults.items()))
    points = ", ".join(f"{name} {count:,}" for name, count in sorted(outcome.points.items()))
    rows = [
        ("journal", options.journal),
        ("seed", str(options.seed)),
        ("duration", f"{run.seconds:.1f} s, {outcome.episodes:,} episodes"),
        ("kills", f"{outcome.kills:,} ({outcome.kills / seconds:.2f}/s)"),
        ("faults", faults),
        ("triggers", points or "none"),
        ("requests", f"{tally.requests:,} ({tally.requests / seconds:,.0f}/s)"),
        ("ended", f"{tally.ends:,}, of them {tally.replays:,} replayed"),
        ("cancelled", f"{tally.cancels:,}"),
        ("sent again", f"{tally.repeats:,}, as they were or with other params"),
        ("sessions", f"{tally.sessions:,}, resumed {tally.resumed:,} times"),
        (
            "connections",
            f"{tally.connections:,}, cut {tally.cuts:,}, taken over {tally.takeovers:,}",
        ),
        ("bye", f"{tally.byes:,}"),
        ("commands of an operator", f"{tally.commands:,}"),
        ("events", f"{outcome.events:,} checked"),
        ("violations", "1" if outcome.violation is not None else "0"),
    ]
    lines = [f"{name:12} {value}" for name, value in rows]
    if outcome.violation is not None:
        rule, explanation = outcome.violation
        lines += [
            "",
            f"VIOLATION of {rule} (seed {options.seed}, history in {run.kept})",
            explanation,
        ]
    return "\n".join(lines)


def as_json(run: Run) -> dict[str, Any]:
    """Return the same as a JSON value; times in seconds."""
    outcome = run.outcome
    rule, explanation = outcome.violation or (None, None)
    return {
        "journal": run.options.journal,
        "seed": run.options.seed,
        "seconds": run.seconds,
        "kills": outcome.kills,
        "episodes": outcome.episodes,
        "faults": dict(outcome.faults),
        "triggers": dict(outcome.points),
        "checks": dict(outcome.checks),
        "events": outcome.events,
        "clients": asdict(run.tally),
        "violation": rule,
        "explanation": explanation,
        "history": None if run.kept is None else str(run.kept),
    }
