"""Users are kept by name."""

import pytest
from msgspec.structs import replace

from server.journal.store import Store, User
from tests.contract.backends import Backend

ALICE = User(name="alice", password_hash="$argon2id$a", scope="echo words", created_at=1.25)
BOB = User(name="bob", password_hash="$argon2id$b", scope="", created_at=1_732_463_712.123456)


async def test_a_user_is_found_by_name(store: Store) -> None:
    await store.users.put(ALICE)
    await store.users.put(BOB)
    assert await store.users.get("alice") == ALICE
    assert await store.users.get("bob") == BOB


async def test_an_unknown_user_is_none(store: Store) -> None:
    assert await store.users.get("alice") is None


async def test_putting_a_user_again_replaces_it(store: Store) -> None:
    await store.users.put(ALICE)
    changed = replace(ALICE, password_hash="$argon2id$other", scope="")
    await store.users.put(changed)
    assert await store.users.list() == [changed]


async def test_users_are_listed_by_name(store: Store) -> None:
    for user in (BOB, ALICE):
        await store.users.put(user)
    assert await store.users.list() == [ALICE, BOB]


async def test_removing_tells_whether_there_was_one(store: Store) -> None:
    await store.users.put(ALICE)
    assert await store.users.remove("alice")
    assert not await store.users.remove("alice")
    assert await store.users.get("alice") is None


async def test_users_are_there_after_reopening(backend: Backend, store: Store) -> None:
    await store.users.put(ALICE)
    store = await backend.reopen(store)
    assert await store.users.list() == [ALICE]


async def test_users_are_managed_while_a_server_has_the_log(backend: Backend, store: Store) -> None:
    """An operator's command opens the store without its log, and both see the same users."""
    command = await backend.open(log=False)
    await command.users.put(ALICE)
    assert await store.users.get("alice") == ALICE
    await store.log.append("a", 1, b"one")
    await command.users.remove("alice")
    assert await store.users.get("alice") is None


@pytest.mark.parametrize(
    "name",
    [
        "$where",
        "$gt",
        '{"$ne": ""}',
        "a.b",
        "' OR '1'='1",
        "alice'; DROP TABLE users; --",
        "%",
        "_",
    ],
)
async def test_a_name_is_data_to_every_database(store: Store, name: str) -> None:
    await store.users.put(ALICE)
    assert await store.users.get(name) is None
    odd = replace(BOB, name=name)
    await store.users.put(odd)
    assert await store.users.get(name) == odd
    assert await store.users.remove(name)
    assert await store.users.list() == [ALICE]
