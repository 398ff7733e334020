"""What one commit of the journal takes, against one fdatasync of the same bytes.

    for each size of batch: log.append x many, disk

Through the journal's interface and nothing else (server/journal/log.py), on the server's core; a
MongoDB runs on the other. A batch is one commit: the requests that arrived while the last one
was on its way, about 150 bytes each.
"""

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean, median
from typing import Any, Final

import uvloop

from server.journal.opening import open_store

from .context import Context
from .disk import Syncs
from .scenario import NotMeasured, Outcome
from .scoreboard import Figure
from .servers import on_core
from .stats import Spread
from .tables import aligned

REQUEST_BYTES: Final = 150
WARM_UP_COMMITS: Final = 5
OWNER: Final = "0000000000000001-benchmark"
SHOWN: Final = frozenset({1, 100})
"""Batches on the scoreboard; the others are in the table."""
SQLITE: Final = "SQLite"
MONGODB: Final = "MongoDB"
_HEAD: Final = (
    "store", "requests in a commit", "us (min-max)", "mean us", "us each",
    "us overwrite", "us append", "commit / overwrite",
)  # fmt: skip


class Commit:
    """See scenario.Scenario. A number of one repetition is the median of many commits."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
        self._mean_seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
        self._disk: dict[int, list[Syncs]] = defaultdict(list)
        self._no_mongodb = ""

    def repeat(self) -> None:
        context = self._context
        for batch in context.sizes.batches:
            self._disk[batch].append(context.disk(batch * REQUEST_BYTES))
        with context.fresh_sqlite() as url:
            self._measure(SQLITE, url)
        try:
            with context.mongodb() as database:
                self._measure(MONGODB, database.url)
        except NotMeasured as missing:
            self._no_mongodb = str(missing)

    def _measure(self, store: str, url: str) -> None:
        sizes = self._context.sizes
        with on_core(self._context.server_core):
            times = uvloop.run(_append(url, sizes.batches, sizes.commits))
        for batch, seconds in times.items():
            self._seconds[store, batch].append(median(seconds))
            self._mean_seconds[store, batch].append(mean(seconds))

    def outcome(self) -> Outcome:
        figures = [self._figure(*key) for key in self._seconds if key[1] in SHOWN]
        if self._no_mongodb:
            figures.append(Figure("commit on MongoDB", note=self._no_mongodb))
        lines = [self._line(*key) for key in self._seconds]
        data = {"commits": [self._as_json(*key) for key in self._seconds]}
        return Outcome(figures, aligned(_HEAD, lines), data)

    def _ratio(self, store: str, batch: int) -> Spread:
        disk = [one.overwrite_seconds for one in self._disk[batch]]
        return Spread.of_ratios(self._seconds[store, batch], disk)

    def _figure(self, store: str, batch: int) -> Figure:
        seconds = median(self._seconds[store, batch])
        disk = median(one.overwrite_seconds for one in self._disk[batch])
        requests = "1 request" if batch == 1 else f"{batch:,} requests"
        return Figure(
            f"commit of {requests} on {store}",
            f"{seconds * 1e6:,.0f} us, {seconds / batch * 1e6:,.1f} us each",
            f"fdatasync of the bytes {disk * 1e6:,.0f} us",
            self._ratio(store, batch),
        )

    def _line(self, store: str, batch: int) -> tuple[str, ...]:
        seconds = self._seconds[store, batch]
        disk = self._disk[batch]
        return (
            store,
            f"{batch:,}",
            f"{Spread.of(one * 1e6 for one in seconds):.0f}",
            f"{median(self._mean_seconds[store, batch]) * 1e6:.0f}",
            f"{median(seconds) / batch * 1e6:.1f}",
            f"{median(one.overwrite_seconds for one in disk) * 1e6:.0f}",
            f"{median(one.append_seconds for one in disk) * 1e6:.0f}",
            str(self._ratio(store, batch)),
        )

    def _as_json(self, store: str, batch: int) -> dict[str, Any]:
        return {
            "store": store,
            "requests": batch,
            "seconds": median(self._seconds[store, batch]),
            "mean_seconds": median(self._mean_seconds[store, batch]),
            "overwrite_seconds": median(one.overwrite_seconds for one in self._disk[batch]),
            "append_seconds": median(one.append_seconds for one in self._disk[batch]),
        }


async def _append(url: str, batches: Sequence[int], commits: int) -> dict[int, list[float]]:
    """Return the seconds of each commit, by the size of its batch."""
    times: dict[int, list[float]] = {batch: [] for batch in batches}
    store = await open_store(url)
    try:
        seq = 0
        for batch, seconds in times.items():
            data = os.urandom(batch * REQUEST_BYTES)
            for number in range(WARM_UP_COMMITS + commits):
                seq += 1
                began = time.perf_counter()
                await store.log.append(OWNER, seq, data)
                if number >= WARM_UP_COMMITS:
                    seconds.append(time.perf_counter() - began)
    finally:
        await store.close()
    return times
