"""What failed can be run again: what that takes is kept, of so many and for so long."""

import pytest
from msgspec.structs import replace

from server.journal import mongodb_tables, sqlite_tables
from server.journal.store import Failed, Store
from tests.contract.backends import Backend

NOW = 4e9
"""A time so far ahead that no database expires anything by itself."""
FAILED = Failed(
    session="s",
    n=1,
    subject="alice",
    scope="read write",
    method="order",
    params='{"text": "it\'s \\"quoted\\", 世界 🌍"}',
    timeout=2.5,
    error='{"code":"sold_out"}',
    finished_at=NOW,
)


async def keep(store: Store, *failed: Failed, upto: int = 1) -> None:
    await store.history.project("a", upto, [], [], failed)


async def test_what_failed_is_kept(backend: Backend, store: Store) -> None:
    other = replace(FAILED, n=12, timeout=None, error="")
    await keep(store, FAILED, other)
    operator = await backend.open(log=False)
    assert await operator.history.failed("s", 1) == FAILED
    assert await operator.history.failed("s", 12) == other
    assert await operator.history.failed("s", 2) is None
    assert await operator.history.failed("t", 1) is None


async def test_projecting_it_again_changes_nothing(store: Store) -> None:
    for upto in (1, 2):
        await keep(store, FAILED, upto=upto)
    assert await store.history.failed("s", 1) == FAILED


async def test_it_expires_with_the_request_log(store: Store) -> None:
    await keep(store, FAILED, replace(FAILED, n=2, finished_at=NOW + 1))
    await store.history.expire(NOW + 0.5)
    assert await store.history.failed("s", 1) is None
    assert await store.history.failed("s", 2) is not None


async def test_only_the_last_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for tables in (sqlite_tables, mongodb_tables):
        monkeypatch.setattr(tables, "FAILURES_MAX", 10)
    monkeypatch.setattr(sqlite_tables, "EXPIRED_FAILURES", 7)
    numbers = range(1, 31)
    await keep(store, *(replace(FAILED, n=n, finished_at=NOW + n) for n in numbers))
    await store.history.expire(NOW)
    kept = [n for n in numbers if await store.history.failed("s", n) is not None]
    assert kept == list(range(21, 31))
