"""The tables of README that are made from the code: with `--write` it puts them in.

    <!-- settings -->
    (made here)
    <!-- /settings -->

Without `--write`: exit code 1, and the names of the tables that are not what the code says.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from scripts.bench.tables import markdown
from server import log_events
from server.metrics import metrics_table
from server.settings import settings_table

README: Final = Path(__file__).resolve().parents[1] / "README.md"


def settings() -> str:
    """Return the table of all settings."""
    rows = [
        (f"`{row.env}`", f"`{row.default}`" if row.default else "none", row.help)
        for row in settings_table()
    ]
    return markdown(("setting", "default", "meaning"), rows)


def metrics() -> str:
    """Return the table of all metrics."""
    rows = [(f"`{row.name}`", row.type, row.labels, row.help) for row in metrics_table()]
    return markdown(("metric", "type", "labels", "meaning"), rows)


TABLES: Final[dict[str, Callable[[], str]]] = {
    "settings": settings,
    "metrics": metrics,
    "events": log_events.render,
}


def filled(text: str) -> str:
    """Return `text` with every table as the code has it. Raises ValueError when one is missing."""
    for name, make in TABLES.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        body = make()
        text, found = place.subn(lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text)
        if found != 1:
            raise ValueError(f"not one but {found} of <!-- {name} --> ... <!-- /{name} -->")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the tables, or write them."""
    parser = argparse.ArgumentParser(description="Check or write the tables made from the code.")
    parser.add_argument("--write", action="store_true", help="write them into README.md")
    options = parser.parse_args(arguments)
    text = README.read_text(encoding="utf-8")
    wanted = filled(text)
    if options.write:
        README.write_text(wanted, encoding="utf-8")
    elif text != wanted:
        print("README.md is not what the code says: run scripts/tables.py --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
