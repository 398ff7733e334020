"""What a run found, as a text."""

from .run import Run


def text(run: Run) -> str:
    """Return the table, and the verdict."""
    options = run.options
    how = "replaced" if options.replace else "restarted"
    codes = ", ".join(
        f"{count:,} with {'none' if code is None else code}"
        for code, count in sorted(run.codes.items(), key=str)
    )
    lines = [
        f"{options.clients} clients on {options.journal}, {how} {len(run.restarts)} times",
        f"seed {options.seed}",
        f"{run.seen.asked:,} requests, {run.checks:,} checks; close codes: {codes}",
        "",
        "          restart   longest request   allowed   ratio",
    ]
    for number, one in enumerate(run.restarts, start=1):
        ratio = one.longest_seconds / one.allowed_seconds
        mark = "  TOO LONG" if one in run.slow else ""
        lines.append(
            f"{number:>4} {one.seconds:>10.2f} s {one.longest_seconds:>15.2f} s "
            f"{one.allowed_seconds:>7.2f} s {ratio:>7.2f}{mark}"
        )
    lines.append("")
    if run.broken:
        lines += ["BROKEN", *run.broken]
    else:
        lines.append("nothing was lost, nothing was repeated")
    return "\n".join(lines)
