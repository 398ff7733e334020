"""Text in columns, for a terminal and as Markdown."""

from collections.abc import Sequence


def aligned(head: Sequence[str], lines: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return a table for a terminal; the first `left` columns are flush left, others right."""
    rows = [head, *lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    text = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    text.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(text)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return the same table as Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
