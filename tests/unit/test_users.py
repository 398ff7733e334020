"""Users: what may be added, who may log in, and how fast passwords may be guessed."""

import asyncio
import threading
import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters

from server.journal.log import JournalError
from server.journal.store import User
from server.throttle import ADDRESS_BURST, ENTRIES_MAX, INTERVAL_SECONDS, NAME_BURST, Throttle
from server.users import (
    HASHES_AT_ONCE,
    HASHES_WAITING_MAX,
    Accounts,
    LoginRefused,
    TooManyLogins,
    password_hasher,
)

PASSWORD = "correct horse"
HERE = "192.0.2.1"
MANY = [f"198.51.100.{number}" for number in range(NAME_BURST)]


class Memory:
    """Users in a dict; fails when told to."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.error: Exception | None = None

    async def put(self, user: User) -> None:
        self._check()
        self.users[user.name] = user

    async def get(self, name: str) -> User | None:
        self._check()
        name.encode()  # like a real store, which cannot look for what is no text
        return self.users.get(name)

    async def remove(self, name: str) -> bool:
        return self.users.pop(name, None) is not None

    async def list(self) -> Sequence[User]:
        return list(self.users.values())

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SlowHasher(PasswordHasher):
    """Computes only when let go; knows how many compute at once."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.lock = threading.Lock()
        self.go = threading.Event()
        self.now = 0
        self.most = 0

    def verify(self, *arguments: Any) -> bool:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.go.wait(10)
        with self.lock:
            self.now -= 1
        return super().verify(*arguments)


def quick(time_cost: int = 1) -> PasswordHasher:
    return PasswordHasher(time_cost=time_cost, memory_cost=8, parallelism=1)


@pytest.fixture
def users() -> Memory:
    return Memory()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(users: Memory, clock: Clock) -> Accounts:
    return Accounts(users, hasher=quick(), clock=clock)


async def add(accounts: Accounts, name: str = "alice", password: str = PASSWORD) -> None:
    await accounts.add(name, password, "", 1.0)


async def fail(accounts: Accounts, name: str, address: str, times: int = 1) -> None:
    """Log in with a wrong password so many times."""
    for _ in range(times):
        with pytest.raises(LoginRefused):
            await accounts.login(name, "wrong password", address)


# Adding


async def test_an_added_user_has_scope_and_time(accounts: Accounts, users: Memory):
    await accounts.add("alice", PASSWORD, " read  write ", 7.0)
    user = users.users["alice"]
    assert (user.name, user.scope, user.created_at) == ("alice", "read write", 7.0)


async def test_the_password_is_not_kept(accounts: Accounts, users: Memory):
    await add(accounts)
    assert PASSWORD not in users.users["alice"].password_hash


async def test_adding_again_replaces_the_password(accounts: Accounts):
    await add(accounts, password="the first password")
    await add(accounts)
    assert await accounts.login("alice", PASSWORD, HERE)


@pytest.mark.parametrize("name", ["a", "x" * 128, "Zoë Müller", "alice@example.org", "日本"])
async def test_a_name_may_be_any_printable_text(accounts: Accounts, name: str):
    await add(accounts, name)
    assert (await accounts.login(name, PASSWORD, HERE)).name == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a:b", " a", "a ", "a\nb", "a\x00", "\ud800"])
async def test_a_name_that_cannot_log_in_is_refused(accounts: Accounts, name: str):
    with pytest.raises(ValueError, match="a name must"):
        await add(accounts, name)


@pytest.mark.parametrize("password", ["x" * 8, "x" * 1024, "pass:word", "пароль пароль", " " * 8])
async def test_a_password_may_be_any_text(accounts: Accounts, password: str):
    await add(accounts, password=password)
    assert await accounts.login("alice", password, HERE)


@pytest.mark.parametrize("password", ["", "x" * 7, "x" * 1025, "x" * 8 + "\n", "\udc80" * 8])
async def test_a_password_that_is_too_short_too_long_or_no_text_is_refused(
    accounts: Accounts, password: str
):
    with pytest.raises(ValueError, match="a password must"):
        await add(accounts, password=password)


@pytest.mark.parametrize("scope", ['a"b', "a\\b", "é", "read \x07"])
async def test_a_scope_that_is_none_is_refused(accounts: Accounts, scope: str):
    with pytest.raises(ValueError, match="scope"):
        await accounts.add("alice", PASSWORD, scope, 1.0)


async def test_scopes_that_no_token_could_hold_are_refused(accounts: Accounts):
    with pytest.raises(ValueError, match="at most 2048"):
        await accounts.add("alice", PASSWORD, "x" * 2049, 1.0)


async def test_a_refused_user_is_not_added(accounts: Accounts, users: Memory):
    with pytest.raises(ValueError, match="a password must"):
        await add(accounts, password="short")
    assert not users.users


def test_passwords_are_hashed_with_argon2id_as_rfc_9106_recommends():
    parameters = extract_parameters(password_hasher().hash("x"))
    assert (parameters.type.name, parameters.time_cost, parameters.memory_cost) == ("ID", 3, 65536)


# Logging in


async def test_the_right_password_logs_in(accounts: Accounts, users: Memory):
    await add(accounts)
    assert await accounts.login("alice", PASSWORD, HERE) == users.users["alice"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_a_password_is_the_same_however_the_keyboard_composes_it(
    accounts: Accounts, form: Any
):
    await add(accounts, password="café café")
    assert await accounts.login("alice", unicodedata.normalize(form, "café café"), HERE)


@pytest.mark.parametrize("name", ["alice", "nobody", "", "a:b", "\ud800", "x" * 10_000])
@pytest.mark.parametrize("password", ["wrong password", "", "\ud800", "x" * 10_000])
async def test_every_wrong_login_is_refused_with_the_same_text(
    accounts: Accounts, name: str, password: str
):
    await add(accounts)
    with pytest.raises(LoginRefused, match=r"^wrong name or password$"):
        await accounts.login(name, password, HERE)


@pytest.mark.parametrize("name", ["alice", "nobody", "a:b"])
async def test_every_wrong_login_computes_a_hash_of_the_same_cost(users: Memory, name: str):
    costs: list[object] = []

    class Recording(PasswordHasher):
        def verify(self, *arguments: Any) -> bool:
            costs.append(extract_parameters(arguments[0]))
            return super().verify(*arguments)

    hasher = Recording(time_cost=2, memory_cost=16, parallelism=2)
    accounts = Accounts(users, hasher=hasher)
    await add(accounts)
    await fail(accounts, name, HERE)
    assert costs == [extract_parameters(users.users["alice"].password_hash)]


async def test_a_stored_hash_that_is_none_refuses_the_login(accounts: Accounts, users: Memory):
    users.users["alice"] = User("alice", "garbage", "", 1.0)
    await fail(accounts, "alice", HERE)


async def test_a_login_renews_a_hash_of_old_parameters(users: Memory):
    await add(Accounts(users, hasher=quick(time_cost=1)))
    await Accounts(users, hasher=quick(time_cost=2)).login("alice", PASSWORD, HERE)
    assert extract_parameters(users.users["alice"].password_hash).time_cost == 2


async def test_a_renewed_hash_is_of_the_same_password(users: Memory):
    await add(Accounts(users, hasher=quick(time_cost=1)))
    newer = Accounts(users, hasher=quick(time_cost=2))
    await newer.login("alice", PASSWORD, HERE)
    assert await newer.login("alice", PASSWORD, HERE)


async def test_a_renewal_that_fails_does_not_fail_the_login(users: Memory):
    class ReadOnly(Memory):
        async def put(self, user: User) -> None:
            raise JournalError("read only")

    await add(Accounts(users, hasher=quick(time_cost=1)))
    read_only = ReadOnly()
    read_only.users = users.users
    assert await Accounts(read_only, hasher=quick(time_cost=2)).login("alice", PASSWORD, HERE)


async def test_a_renewal_does_not_undo_a_removal(users: Memory):
    class Vanishing(Memory):
        async def get(self, name: str) -> User | None:
            return self.users.pop(name, None)

    await add(Accounts(users, hasher=quick(time_cost=1)))
    vanishing = Vanishing()
    vanishing.users = users.users
    await Accounts(vanishing, hasher=quick(time_cost=2)).login("alice", PASSWORD, HERE)
    assert not vanishing.users


# Guessing


async def test_an_address_that_guesses_is_stopped(accounts: Accounts):
    await fail(accounts, "alice", HERE, ADDRESS_BURST)
    with pytest.raises(TooManyLogins) as caught:
        await accounts.login("alice", "wrong password", HERE)
    assert caught.value.retry_after_seconds == INTERVAL_SECONDS


async def test_an_address_that_guesses_at_many_names_is_stopped(accounts: Accounts):
    for number in range(ADDRESS_BURST):
        await fail(accounts, f"user{number}", HERE)
    with pytest.raises(TooManyLogins):
        await accounts.login("another", "wrong password", HERE)


async def test_a_stopped_address_is_refused_even_with_the_right_password(accounts: Accounts):
    await add(accounts)
    await fail(accounts, "alice", HERE, ADDRESS_BURST)
    with pytest.raises(TooManyLogins):
        await accounts.login("alice", PASSWORD, HERE)


async def test_a_stopped_address_may_try_once_after_the_wait(accounts: Accounts, clock: Clock):
    await fail(accounts, "alice", HERE, ADDRESS_BURST)
    clock.now += INTERVAL_SECONDS
    await fail(accounts, "alice", HERE)
    with pytest.raises(TooManyLogins):
        await accounts.login("alice", "wrong password", HERE)


async def test_guessing_elsewhere_does_not_stop_the_user(accounts: Accounts):
    await add(accounts)
    await fail(accounts, "alice", "198.51.100.7", ADDRESS_BURST)
    assert await accounts.login("alice", PASSWORD, HERE)


async def test_guessing_everywhere_else_does_not_stop_the_user(accounts: Accounts):
    await add(accounts)
    await accounts.login("alice", PASSWORD, HERE)
    for address in MANY:
        await fail(accounts, "alice", address)
    assert await accounts.login("alice", PASSWORD, HERE)


async def test_logging_in_is_no_guess(accounts: Accounts):
    await add(accounts)
    for _ in range(ADDRESS_BURST + 1):
        await accounts.login("alice", PASSWORD, HERE)


async def test_an_attempt_the_store_could_not_judge_is_no_guess(accounts: Accounts, users: Memory):
    await add(accounts)
    users.error = JournalError("gone")
    for _ in range(ADDRESS_BURST):
        with pytest.raises(JournalError):
            await accounts.login("alice", PASSWORD, HERE)
    users.error = None
    assert await accounts.login("alice", PASSWORD, HERE)


async def test_guesses_at_one_time_count_before_they_are_judged(accounts: Accounts):
    outcomes = await asyncio.gather(
        *(accounts.login("alice", "wrong password", HERE) for _ in range(ADDRESS_BURST + 5)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, LoginRefused) for one in outcomes) == ADDRESS_BURST


def guess(throttle: Throttle, name: str, addresses: Sequence[str]) -> None:
    for address in addresses:
        throttle.take(name, address)


def test_a_name_guessed_at_from_many_addresses_is_closed(clock: Clock):
    throttle = Throttle(clock)
    guess(throttle, "alice", MANY)
    with pytest.raises(TooManyLogins):
        throttle.take("alice", HERE)


def test_a_name_guessed_at_stays_open_where_the_user_has_logged_in(clock: Clock):
    throttle = Throttle(clock)
    throttle.know("alice", HERE)
    guess(throttle, "alice", MANY)
    throttle.take("alice", HERE)


def test_a_closed_name_does_not_close_others(clock: Clock):
    throttle = Throttle(clock)
    guess(throttle, "alice", MANY)
    throttle.take("bob", HERE)


def test_one_address_alone_cannot_close_a_name(clock: Clock):
    throttle = Throttle(clock)
    for _ in range(NAME_BURST * 10):
        try:
            throttle.take("alice", "198.51.100.7")
        except TooManyLogins as error:
            clock.now += error.retry_after_seconds
    throttle.take("alice", HERE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8::1", "2001:db8::ffff:2"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::2%eth0"),
        ("", ""),
    ],
)
def test_addresses_of_one_party_count_as_one(clock: Clock, one: str, other: str):
    throttle = Throttle(clock)
    guess(throttle, "alice", [one] * ADDRESS_BURST)
    with pytest.raises(TooManyLogins):
        throttle.take("alice", other)


def test_neighbours_count_apart(clock: Clock):
    throttle = Throttle(clock)
    guess(throttle, "alice", ["2001:db8:0:1::1"] * ADDRESS_BURST)
    throttle.take("alice", "2001:db8:0:2::1")


def test_a_guesser_is_remembered_in_bounded_memory(clock: Clock):
    throttle = Throttle(clock)
    for number in range(ENTRIES_MAX + 100):
        throttle.take(f"user{number}", f"2001:db8:{number:x}::1")
        throttle.know(f"user{number}", f"2001:db8:{number:x}::1")
    kept = (throttle._addresses._empty_at, throttle._names._empty_at, throttle._known)
    assert [len(one) for one in kept] == [ENTRIES_MAX] * 3


# Many at once


async def started(tasks: int, accounts: Accounts) -> list[asyncio.Task[User]]:
    """Begin so many logins, each from its own address; return when all wait for their hash."""
    begun = [
        asyncio.create_task(accounts.login(f"user{number}", PASSWORD, f"192.0.2.{number}"))
        for number in range(tasks)
    ]
    await asyncio.sleep(0)  # lets each run up to its hash: nothing before that waits
    assert accounts._hashes == tasks
    return begun


async def test_few_hashes_are_computed_at_once(users: Memory):
    hasher = SlowHasher()
    begun = await started(HASHES_AT_ONCE * 3, Accounts(users, hasher=hasher))
    hasher.go.set()
    await asyncio.gather(*begun, return_exceptions=True)
    assert hasher.most <= HASHES_AT_ONCE


async def test_too_many_logins_at_once_are_sent_away(users: Memory):
    hasher = SlowHasher()
    accounts = Accounts(users, hasher=hasher)
    begun = await started(HASHES_AT_ONCE + HASHES_WAITING_MAX, accounts)
    with pytest.raises(TooManyLogins):
        await accounts.login("alice", PASSWORD, HERE)
    hasher.go.set()
    await asyncio.gather(*begun, return_exceptions=True)


async def test_a_login_sent_away_is_no_guess(users: Memory):
    hasher = SlowHasher()
    accounts = Accounts(users, hasher=hasher)
    begun = await started(HASHES_AT_ONCE + HASHES_WAITING_MAX, accounts)
    for _ in range(ADDRESS_BURST):
        with pytest.raises(TooManyLogins, match="at once"):
            await accounts.login("alice", PASSWORD, HERE)
    hasher.go.set()
    await asyncio.gather(*begun, return_exceptions=True)
    await fail(accounts, "alice", HERE)


async def test_a_guess_that_hangs_up_still_counts(users: Memory):
    hasher = SlowHasher()
    accounts = Accounts(users, hasher=hasher)
    for _ in range(ADDRESS_BURST):
        hasher.go.clear()
        guess = asyncio.create_task(accounts.login("alice", "wrong password", HERE))
        await asyncio.sleep(0)  # lets it run up to its hash
        guess.cancel()
        hasher.go.set()
        with pytest.raises(asyncio.CancelledError):
            await guess
    with pytest.raises(TooManyLogins):
        await accounts.login("alice", "wrong password", HERE)
