"""Where tokens, passwords and secrets must not be found: logs, journals, command lines, answers."""

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from websockets.exceptions import InvalidStatus

from server.keys import looks_guessable
from tests.integration.test_http import basic, login, user
from tests.raw import online, raw
from tests.server_process import ROOT, SECRET, ServerProcess, token

PASSWORD = "correct horse battery"
WRONG = "wrong horse battery"


async def say_hello(server: ServerProcess, given: str) -> None:
    async with raw(server.url) as client:
        await client.send({"type": "hello", "token": given})
        await client.closed()


async def use_every_way_in(server: ServerProcess) -> list[str]:
    """Log in rightly and wrongly in all ways there are; return what must be kept secret."""
    await asyncio.to_thread(user, server, "add", "bob", "--password-stdin", password=PASSWORD)
    _, body, _ = await asyncio.to_thread(login, server, "bob", PASSWORD)
    await asyncio.to_thread(login, server, "bob", WRONG)
    await asyncio.to_thread(login, server, WRONG, WRONG)
    good, issued = token("carol"), body["access_token"]
    forged = jwt.encode({"sub": "alice", "exp": 4e9}, "another-secret-" * 4)
    bad = [token(audience="others"), token(ttl_seconds=-60), forged, "nonsense" * 10]
    for given in bad:
        await say_hello(server, given)
        with pytest.raises(InvalidStatus):
            async with raw(server.url, {"Authorization": f"Bearer {given}"}):
                pass
        async with online(server.url) as client:
            await client.send({"type": "refresh", "token": given})
            await client.closed()
    with pytest.raises(InvalidStatus):
        async with raw(f"{server.url}?access_token={good}"):
            pass
    async with online(server.url, token=issued) as client:
        await client.send({"type": "request", "id": "a", "method": "echo", "params": {"text": 1}})
        await client.next("done")
        refresh = {"type": "refresh", "token": issued}
        words = {"type": "request", "method": "words", "params": {"text": "a"}}
        await client.send(words | {"id": "b"}, refresh, words | {"id": "c"})
        await client.next("done", "c")
    async with raw(server.url, {"Authorization": f"Bearer {good}"}) as client:
        await client.send({"type": "hello", "token": good}, {"type": "hello", "token": good})
        await client.closed()
    logins = [basic("bob", PASSWORD), basic("bob", WRONG), basic(WRONG, WRONG)]
    signatures = [one.rpartition(".")[2] for one in (good, issued, *bad)]
    return [SECRET, PASSWORD, WRONG, *(value.split()[1] for value in logins), *signatures]


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_no_secret_is_in_the_log_or_the_journal_whatever_happens(
    own_server: ServerProcess, log_format: str
) -> None:
    own_server.settings |= {"log_level": "debug", "log_format": log_format}
    await own_server.astart()
    kept_secret = await use_every_way_in(own_server)
    async with online(own_server.url) as client:
        await client.request("crash", "fail", params={"crash": True, "code": "a_local_variable"})
        await client.next("error", "crash")
    await own_server.restart()
    own_server.terminate()
    places = [own_server.log, *own_server.directory.glob("journal.db*")]
    everything = b"".join(path.read_bytes() for path in places)
    assert b"handler_failed" in everything
    assert b"a_local_variable" not in own_server.log.read_bytes()
    assert not [secret for secret in kept_secret if secret.encode() in everything]


def test_the_store_of_users_holds_hashes_only(own_server: ServerProcess) -> None:
    user(own_server, "add", "bob", "--password-stdin", password=PASSWORD)
    content = b"".join(path.read_bytes() for path in own_server.directory.glob("journal.db*"))
    assert b"$argon2id$v=19$m=65536,t=3,p=4$" in content
    assert PASSWORD.encode() not in content


def test_the_journal_is_for_its_owner_only(own_server: ServerProcess) -> None:
    """It holds what clients send and get; the umask of most systems lets everybody read."""
    before = os.umask(0)
    try:
        own_server.start()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in own_server.directory.iterdir()}
    del modes["server.log"]  # made by the test
    assert set(modes) == {"journal.db", "journal.db-wal", "journal.db-shm", "journal.db-lock"}
    assert set(modes.values()) == {0o600}


def test_a_journal_that_was_there_keeps_its_mode(own_server: ServerProcess) -> None:
    """An operator may share it with a group."""
    file = own_server.directory / "journal.db"
    file.touch()
    file.chmod(0o640)
    own_server.start()
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("there", [True, False], ids=["there before", "new"])
def test_a_secret_made_for_development_is_for_its_owner_only(tmp_path: Path, there: bool) -> None:
    dotenv = tmp_path / ".env"
    if there:
        dotenv.write_text("QUEUESYSTEM_PORT=1234\n")
        dotenv.chmod(0o644)
    spec = importlib.util.spec_from_file_location("development", ROOT / "scripts/development.py")
    assert spec is not None
    assert spec.loader is not None
    development = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(development)
    development.DOTENV = dotenv
    development.remember("QUEUESYSTEM_JWT_SECRET", "s" * 32)
    assert dotenv.stat().st_mode & 0o777 == 0o600
    assert dotenv.read_text().endswith(f"QUEUESYSTEM_JWT_SECRET={'s' * 32}\n")


def run(server: ServerProcess, *arguments: str, **settings: str) -> tuple[int, str]:
    """Run the command line beside a server; return its exit code and what it printed."""
    environment = {f"QUEUESYSTEM_{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=server.directory,
        env=server.environment() | environment,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_weak_secret_stops_the_start_and_is_not_shown(own_server: ServerProcess) -> None:
    secret = "only-31-bytes-" + "x" * 17
    code, printed = run(own_server, "serve", jwt_secret=secret)
    assert code == 2
    assert "at least 32 characters" in printed
    assert secret not in printed


@pytest.mark.parametrize(
    "journal",
    ["mongodb://bob:{}/x@127.0.0.1:1/db", "mongodb://bob:{}@x@127.0.0.1:1/db"],
    ids=["slash", "at"],
)
def test_a_journal_that_cannot_be_read_stops_the_start_and_shows_no_password(
    own_server: ServerProcess, journal: str
) -> None:
    """A password in a URL must be escaped; who forgets that is told so, not shown a traceback."""
    code, printed = run(own_server, "serve", journal=journal.format(PASSWORD.replace(" ", "-")))
    assert code == 2
    assert "must be escaped" in printed
    assert "correct-horse" not in printed
    assert "Traceback" not in printed


def test_without_a_secret_or_a_key_there_is_no_server(own_server: ServerProcess) -> None:
    """None works by default."""
    code, printed = run(own_server, "serve", jwt_secret="")
    assert code == 2
    assert "nobody could authenticate" in printed


@pytest.mark.parametrize("secret", ["x" * 40, "changeme" * 4, "0123456789" * 4, "abababab" * 8])
def test_a_secret_long_only_by_repetition_is_told_apart(secret: str) -> None:
    assert looks_guessable(secret)


def test_a_server_with_a_guessable_secret_warns(own_server: ServerProcess) -> None:
    own_server.settings["jwt_secret"] = "changeme" * 4
    own_server.start()
    assert "jwt_secret_guessable" in own_server.log.read_text()


def test_a_server_with_a_made_secret_does_not_warn(server: ServerProcess) -> None:
    assert "jwt_secret_guessable" not in server.log.read_text()


def test_a_password_is_never_an_argument(own_server: ServerProcess) -> None:
    """Everybody on the machine can read the arguments of a command."""
    code, _ = run(own_server, "user", "add", "bob", "--password", PASSWORD)
    assert code == 2
    code, _ = run(own_server, "user", "add", "bob", PASSWORD)
    assert code == 2


def test_a_secret_in_the_environment_is_not_on_the_command_line(server: ServerProcess) -> None:
    assert server.process is not None
    arguments = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    assert SECRET.encode() not in arguments
