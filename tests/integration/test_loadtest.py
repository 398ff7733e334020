"""scripts/loadtest.py: it measures real servers, survives what happens, and catches faulty ones."""

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple, Self
from xml.etree import ElementTree

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from protocol import frames as wire
from protocol.codec import decode_client_message, encode
from scripts.ports import free_port
from tests.integration.welcome import WELCOME
from tests.server_process import SECRET, ServerProcess, token

ROOT = Path(__file__).parents[2]
SHORT = ("--connections", "3", "--window", "4", "--warm-up", "0.1", "--duration", "0.4")
RUN_SECONDS = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server as users run it, shared by the tests that leave it running."""
    server = ServerProcess(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.close()


class Ended(NamedTuple):
    """What a run of the command left."""

    code: int | None
    out: str
    err: str
    json: dict[str, Any]


class Command:
    """The command under test, as a process of its own, in a directory of its own."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._url = url
        self._process: asyncio.subprocess.Process
        self._heard = ""

    @property
    def file(self) -> Path:
        return self._directory / "result.json"

    async def start(self, *arguments: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("QUEUESYSTEM_")}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            ROOT / "scripts" / "loadtest.py",
            *("--url", self._url, "--json", self.file),
            *arguments,
            cwd=self._directory,
            env=environment | {"QUEUESYSTEM_JWT_SECRET": SECRET, "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def measuring(self) -> None:
        """Wait until it says that it measures."""
        assert self._process.stderr is not None
        async with asyncio.timeout(RUN_SECONDS):
            while "measuring" not in self._heard:
                line = await self._process.stderr.readline()
                assert line, f"it ended: {self._heard}"
                self._heard += line.decode()

    def interrupt(self) -> None:
        """Press Ctrl-C: a terminal sends the signal to all processes."""
        os.killpg(self._process.pid, signal.SIGINT)

    async def end(self) -> Ended:
        async with asyncio.timeout(RUN_SECONDS):
            out, err = await self._process.communicate()
        found = json.loads(self.file.read_text()) if self.file.exists() else {}
        return Ended(self._process.returncode, out.decode(), self._heard + err.decode(), found)

    async def run(self, *arguments: str) -> Ended:
        await self.start(*arguments)
        return await self.end()


# Real servers


async def test_closed_loop(server: ServerProcess, tmp_path: Path) -> None:
    """Every request is done; text, JSON and picture tell the same."""
    picture = tmp_path / "plot.svg"
    ended = await Command(tmp_path, server.url).run(*SHORT, "--plot", str(picture))
    assert ended.code == 0, ended.err
    assert "nothing lost, nothing repeated, all in order" in ended.out
    found = ended.json
    assert found["exit_code"] == 0
    assert found["options"]["rate"] is None
    requests = found["requests"]
    assert requests["sent"] == requests["done"] > 0
    assert requests["failed"] == requests["unfinished"] == requests["not_sent"] == 0
    assert f"{requests['sent']:,} sent" in ended.out
    assert found["rate"] > 0
    for name in ("first_result", "done"):
        latencies = found["latencies"][name]
        assert latencies["count"] == requests["done"]
        assert 0 < latencies["p50"] <= latencies["p99"] <= latencies["p99_9"] <= latencies["max"]
    assert found["latencies"]["sending"] is None
    assert found["violations"]["checked"] >= 3 * requests["done"]  # accepted, result, done
    assert len(found["generator"]["cpu_shares"]) == 1
    assert sum(second["done"] for second in found["seconds"]) >= requests["done"]
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")  # noqa: S314


async def test_open_loop_over_processes(server: ServerProcess, tmp_path: Path) -> None:
    """Every request of the schedule is sent, whichever process it belongs to."""
    arguments = (*SHORT, "--rate", "300", "--processes", "2", "--ramp-up", "0.1")
    ended = await Command(tmp_path, server.url).run(*arguments)
    assert ended.code == 0, ended.err
    requests = ended.json["requests"]
    assert requests["sent"] == requests["done"] == pytest.approx(300 * 0.4, abs=4)
    assert ended.json["latencies"]["sending"]["count"] == requests["sent"]
    assert len(ended.json["generator"]["cpu_shares"]) == 2


async def test_a_crash_of_the_server_is_survived(tmp_path: Path) -> None:
    """SIGKILL under load: every session is resumed, and nothing is lost or comes twice."""
    server = ServerProcess(tmp_path)
    try:
        await server.astart()
        command = Command(tmp_path, server.url)
        await command.start(*SHORT, "--duration", "2")
        await command.measuring()
        await server.restart()
        ended = await command.end()
    finally:
        server.close()
    assert ended.code == 0, ended.out + ended.err
    assert ended.json["connections"]["reconnects"] == 3
    assert ended.json["connections"]["closed"] == {"1006": 3}
    assert ended.json["connections"]["offline"] == 0
    assert ended.json["violations"]["total"] == 0
    assert ended.json["requests"]["sent"] == ended.json["requests"]["done"] > 0


class Proxy:
    """A TCP proxy whose connections can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/ws"

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, server_writer]
        await asyncio.gather(self._copy(reader, server_writer), self._copy(server_reader, writer))

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


async def test_cut_connections_are_resumed(server: ServerProcess, tmp_path: Path) -> None:
    """In the same epoch: results go on where they were."""
    async with Proxy(server.port) as proxy:
        command = Command(tmp_path, proxy.url)
        text = '{"text": "to be or not to be"}'
        await command.start(*SHORT, "--duration", "1", "--method", "words", "--params", text)
        await command.measuring()
        proxy.cut()
        ended = await command.end()
    assert ended.code == 0, ended.out + ended.err
    assert ended.json["connections"]["reconnects"] == 3
    assert ended.json["violations"]["total"] == 0


async def test_ctrl_c_reports_what_was_measured(server: ServerProcess, tmp_path: Path) -> None:
    """At once, with the exit code that shells expect."""
    command = Command(tmp_path, server.url)
    await command.start(*SHORT, "--warm-up", "0", "--duration", "600")
    await command.measuring()
    command.interrupt()
    ended = await command.end()
    assert ended.code == 130, ended.err
    assert ended.json["stopped_by"] == "SIGINT"
    assert 0 < ended.json["measured"]["seconds"] < 600
    assert ended.json["violations"]["total"] == 0
    assert "stopped early" in ended.out
    assert "Traceback" not in ended.err


async def test_errors_of_the_server_are_counted(server: ServerProcess, tmp_path: Path) -> None:
    """They are no violations, but no success either."""
    ended = await Command(tmp_path, server.url).run(*SHORT, "--method", "fail", "--params", "{}")
    assert ended.code == 1
    assert list(ended.json["errors"]) == ["demo_failure"]
    assert ended.json["violations"]["total"] == 0
    assert ended.json["requests"]["failed"] == ended.json["requests"]["sent"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--token", "no.such.token"), "4501: unauthenticated"),
        (("--window", "1000"), "--window 64 or less"),
    ],
)
async def test_what_the_server_refuses_is_told(
    server: ServerProcess, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    """There is nothing to measure then."""
    ended = await Command(tmp_path, server.url).run(*arguments)
    assert ended.code == 2
    assert message in ended.err
    assert ended.out == ""


async def test_a_token_of_all_connections(server: ServerProcess, tmp_path: Path) -> None:
    """They share the subject, each has a session of its own."""
    ended = await Command(tmp_path, server.url).run(*SHORT, "--token", token("alice"))
    assert ended.code == 0, ended.err


async def test_nobody_listens(tmp_path: Path) -> None:
    """The first connection tells."""
    ended = await Command(tmp_path, f"ws://127.0.0.1:{free_port()}/ws").run()
    assert ended.code == 2
    assert "refused" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--params", "[1]"), "--params"),
        (("--rate", "-1"), "--rate"),
        (("--url", "http://127.0.0.1"), "--url"),
        (("--plot", "plot.png"), "--plot"),
        (("--connections", "1", "--processes", "2"), "--processes"),
    ],
)
async def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """It is told which argument is wrong, before anything is started."""
    ended = await Command(tmp_path, "ws://127.0.0.1:1/ws").run(*arguments)
    assert ended.code == 2
    assert f"error: {'argument ' if message != '--processes' else ''}{message}" in ended.err


# Faulty servers

FAULT_AT = 5
"""The request with which a faulty server goes wrong, counted from 1 on each connection."""

Fault = Callable[[int, list[bytes]], list[bytes]]
"""Gets the number of a request and its frames of the faulty kind; returns what is sent instead."""


def keep(number: int, frames: list[bytes]) -> list[bytes]:
    return frames


def lose(number: int, frames: list[bytes]) -> list[bytes]:
    return [] if number == FAULT_AT else frames


def repeat(number: int, frames: list[bytes]) -> list[bytes]:
    return frames * 2 if number == FAULT_AT else frames


def fall_silent(number: int, frames: list[bytes]) -> list[bytes]:
    return frames if number < FAULT_AT else []


def swapped() -> Fault:
    """Return a fault that holds frames back until those of the next request were sent."""
    held: list[bytes] = []

    def swap(number: int, frames: list[bytes]) -> list[bytes]:
        if number == FAULT_AT:
            held.extend(frames)
            return []
        if number == FAULT_AT + 1:
            return frames + held
        return frames

    return swap


@asynccontextmanager
async def faulty(
    make: Callable[[], Fault], kind: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve `echo`; the frames of one kind (`done`, ...) go through a fault."""

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(encode(WELCOME), text=True)
        fault = make()
        number = 0
        with suppress(ConnectionClosed):
            async for message in connection:
                assert isinstance(message, str)
                for frame in decode_client_message(message):
                    if isinstance(frame, wire.Bye):
                        return
                    if isinstance(frame, wire.Request):
                        number += 1
                        for tag, reply in replies(number, frame.id):
                            for one in fault(number, [reply]) if tag == kind else [reply]:
                                await connection.send(one, text=True)

    subprotocols = [Subprotocol(wire.SUBPROTOCOL)]
    async with serve(
        handle, "127.0.0.1", 0, subprotocols=subprotocols, compression=None, ssl=tls
    ) as server:
        scheme = "ws" if tls is None else "wss"
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"


def replies(n: int, name: str) -> list[tuple[str, bytes]]:
    return [
        ("accepted", b'{"type":"accepted","id":"%b","n":%d}' % (name.encode(), n)),
        (
            "result",
            b'{"type":"result","id":"%b","seq":%d,"attempt":1,"index":0,"data":"hello"}'
            % (name.encode(), 2 * n - 1),
        ),
        (
            "done",
            b'{"type":"done","id":"%b","seq":%d,"attempt":1,"results":1}' % (name.encode(), 2 * n),
        ),
    ]


@pytest.mark.parametrize(
    ("fault", "kind", "violation"),
    [
        (lambda: lose, "result", "lost"),
        (lambda: lose, "done", "lost"),
        (lambda: repeat, "accepted", "repeated"),
        (lambda: repeat, "done", "repeated"),
        (swapped, "accepted", "order"),
    ],
    ids=["lost result", "lost done", "repeated accepted", "repeated done", "swapped accepted"],
)
async def test_a_faulty_server_is_caught(
    fault: Callable[[], Fault], kind: str, violation: str, tmp_path: Path
) -> None:
    """The violation is counted and shown in full, with the frame."""
    async with faulty(fault, kind) as url:
        ended = await Command(tmp_path, url).run(*SHORT, "--drain", "0.2")
    assert ended.code == 1
    assert violation in ended.json["violations"]["kinds"]
    assert "VIOLATIONS" in ended.out
    example = next(text for text in ended.json["violations"]["examples"] if violation in text)
    assert example.startswith(f"{violation}: load-")
    assert example in ended.out


def make_certificate(path: Path) -> Path:
    """Write a self-signed certificate for 127.0.0.1, with its key, to `path`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loadtest")])
    address = x509.IPAddress(IPv4Address("127.0.0.1"))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path


async def test_an_honest_server_is_not_accused(tmp_path: Path) -> None:
    """Without a fault the server of these tests has no violation; and TLS works."""
    certificate = make_certificate(tmp_path / "certificate.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with faulty(lambda: keep, "done", tls) as url:
        ended = await Command(tmp_path, url).run(*SHORT, "--ca", str(certificate))
        assert ended.code == 0, ended.out + ended.err
        stranger = await Command(tmp_path, url).run(*SHORT)
    assert stranger.code == 2
    assert "certificate" in stranger.err


async def test_a_server_that_falls_silent_leaves_requests_unfinished(tmp_path: Path) -> None:
    """In the open loop: what was due and could not be sent is counted, none is dropped."""
    async with faulty(lambda: fall_silent, "done") as url:
        ended = await Command(tmp_path, url).run(*SHORT, "--rate", "200", "--drain", "0.2")
    assert ended.code == 1
    requests = ended.json["requests"]
    assert requests["not_sent"] > 0
    assert requests["sent"] + requests["not_sent"] == pytest.approx(200 * 0.4, abs=2)
    assert requests["sent"] == requests["done"] + requests["unfinished"]
    assert "were not sent" in ended.out
