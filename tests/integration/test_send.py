"""`queuesystem send` as its users run it: a process with arguments, output and an exit code."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from scripts.ports import free_port
from server.commands.send import IN_FLIGHT
from tests.integration.scripted_server import ScriptedServer
from tests.server_process import SECRET, ServerProcess, token


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that no test may kill."""
    server = ServerProcess(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    server.start()
    yield server
    server.close()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "server", "send", *arguments]


def environment(**settings: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QUEUESYSTEM_")}
    return clean | {f"QUEUESYSTEM_{name.upper()}": value for name, value in settings.items()}


def of(server: ServerProcess) -> dict[str, str]:
    """Return an environment for that server."""
    return environment(port=str(server.port), jwt_secret=SECRET)


def send(
    arguments: Sequence[str], env: dict[str, str], directory: Path, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments),
        check=False,
        capture_output=True,
        cwd=directory,
        env=env,
        input=stdin,
        text=True,
        timeout=60,
    )


def test_each_result_is_a_line_of_json(shared: ServerProcess, tmp_path: Path) -> None:
    done = send(["words", "--param", 'text=to "be'], of(shared), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, '"to"\n"\\"be"\n', "")


def test_params_are_json_or_text(shared: ServerProcess, tmp_path: Path) -> None:
    done = send(["echo", "--param", 'text={"a":[1,null]}'], of(shared), tmp_path)
    assert json.loads(done.stdout) == {"a": [1, None]}


def test_several_params_can_follow_one_flag(shared: ServerProcess, tmp_path: Path) -> None:
    done = send(["words", "--param", "text=a b", "delay=0"], of(shared), tmp_path)
    assert done.stdout == '"a"\n"b"\n'


def test_lines_of_json_are_as_many_requests_in_order(shared: ServerProcess, tmp_path: Path) -> None:
    numbers = range(3 * IN_FLIGHT)
    lines = "".join(f'{{"text": {number}}}\n' for number in numbers)
    done = send(["echo", "--json", "-"], of(shared), tmp_path, stdin=lines)
    assert done.stdout == "".join(f"{number}\n" for number in numbers)


def test_a_failed_request_is_told_on_standard_error(shared: ServerProcess, tmp_path: Path) -> None:
    done = send(["fail", "--param", "message=so it is"], of(shared), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "error demo_failure: so it is\n",
    )


def test_the_requests_after_a_failed_one_are_run(shared: ServerProcess, tmp_path: Path) -> None:
    lines = '{"text": 1}\n{"nonsense": 2}\n{"text": 3}\n'
    done = send(["echo", "--json", "-"], of(shared), tmp_path, stdin=lines)
    assert (done.returncode, done.stdout) == (1, "1\n3\n")


def test_a_timeout_is_passed_on(shared: ServerProcess, tmp_path: Path) -> None:
    done = send(["sleep", "--param", "seconds=60", "--timeout", "0.1"], of(shared), tmp_path)
    assert (done.returncode, done.stderr[:14]) == (1, "error timeout:")


def test_a_token_of_the_environment_is_used(shared: ServerProcess, tmp_path: Path) -> None:
    env = environment(port=str(shared.port), token=token())
    assert send(["echo", "--param", "text=1"], env, tmp_path).stdout == "1\n"


def test_a_token_of_the_dotenv_file_is_used(shared: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"QUEUESYSTEM_TOKEN={token()}\n")
    env = environment(port=str(shared.port))
    assert send(["echo", "--param", "text=1"], env, tmp_path).stdout == "1\n"


def test_the_url_can_be_given(shared: ServerProcess, tmp_path: Path) -> None:
    env = environment(jwt_secret=SECRET)
    done = send(["echo", "--param", "text=1", "--url", shared.url], env, tmp_path)
    assert done.stdout == "1\n"


def test_without_token_and_secret_it_says_what_to_do(tmp_path: Path) -> None:
    done = send(["echo"], environment(), tmp_path)
    assert done.returncode == 2
    assert "QUEUESYSTEM_TOKEN" in done.stderr
    assert "QUEUESYSTEM_JWT_SECRET" in done.stderr


def test_without_a_method_it_is_wrong_usage(tmp_path: Path) -> None:
    assert send([], environment(jwt_secret=SECRET), tmp_path).returncode == 2


def test_without_a_server_it_names_the_url_and_gives_up(tmp_path: Path) -> None:
    url = f"ws://127.0.0.1:{free_port()}/ws"
    arguments = ["echo", "--url", url, "--connect-timeout", "0.2"]
    done = send(arguments, environment(jwt_secret=SECRET), tmp_path)
    assert done.returncode == 3
    assert f"no connection to {url}" in done.stderr
    assert "queuesystem serve" in done.stderr


def test_a_wrong_token_is_no_connection(shared: ServerProcess, tmp_path: Path) -> None:
    done = send(["echo"], environment(port=str(shared.port), token="x.y.z"), tmp_path)
    assert done.returncode == 3
    assert "unauthenticated" in done.stderr


def test_a_reader_that_goes_away_ends_it_quietly(shared: ServerProcess, tmp_path: Path) -> None:
    with subprocess.Popen(
        command("words", "--param", f"text={'a ' * 2000}", "delay=0.001"),
        cwd=tmp_path,
        env=of(shared),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == '"a"\n'
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == ""


def test_a_stream_survives_the_server_being_killed(own: ServerProcess, tmp_path: Path) -> None:
    words = [str(number) for number in range(20)]
    with subprocess.Popen(
        command("words", "--param", f"text={' '.join(words)}", "delay=0.02"),
        cwd=tmp_path,
        env=of(own),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(5)]
        own.kill()
        own.start()
        rest = list(process.stdout)
        assert process.wait(30) == 0
    assert [json.loads(line) for line in first + rest] == words


async def test_ctrl_c_cancels_the_requests(tmp_path: Path) -> None:
    script = [
        [
            {"expect": {"type": "hello"}},
            {"welcome": {}},
            {"expect": {"type": "request", "id": "$a"}},
            {
                "send": [
                    {"type": "result", "id": "$a", "seq": 1, "attempt": 1, "index": 0, "data": 1}
                ]
            },
            {"expect": {"type": "bye", "cancel": True}},
            {"close": 1000},
        ]
    ]
    async with ScriptedServer(script) as server:
        process = await asyncio.create_subprocess_exec(
            *command("sleep", "--url", server.url, "--token", "t"),
            cwd=tmp_path,
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        assert await process.stderr.read() == b""
