"""What must not be in code, lock files and defaults; and that SECURITY.md is true.

Read from the sources: what nobody wrote cannot be reached by anybody.
"""

import ast
import importlib.metadata
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server.settings import Settings, settings_table
from tests.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "server").rglob("*.py"), *(ROOT / "protocol").rglob("*.py")])


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def parsed() -> list[tuple[str, ast.AST]]:
    """Return (file, node) of all there is."""
    trees = [(name_of(path), ast.parse(path.read_text())) for path in SOURCES]
    return [(name, node) for name, tree in trees for node in ast.walk(tree)]


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    return ((name, node) for name, node in parsed() if isinstance(node, kind))


def imported() -> Iterator[tuple[str, str]]:
    """Yield (file, module) of every import."""
    for name, node in nodes(ast.Import):
        assert isinstance(node, ast.Import)
        yield from ((name, alias.name) for alias in node.names)
    for name, node in nodes(ast.ImportFrom):
        assert isinstance(node, ast.ImportFrom)
        yield name, node.module or ""


def importers(module: str) -> set[str]:
    return {name for name, one in imported() if one == module or one.startswith(f"{module}.")}


@pytest.mark.parametrize("builtin", ["eval", "exec", "compile", "__import__", "globals", "input"])
def test_no_text_is_run_as_code(builtin: str) -> None:
    calls = [
        name
        for name, node in nodes(ast.Call)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == builtin
    ]
    assert not calls


@pytest.mark.parametrize(
    "module",
    [
        "subprocess",
        "pty",
        "marshal",
        "shelve",
        "dill",
        "yaml",
        "xml",
        "tempfile",
        "telnetlib",
        "code",
    ],
)
def test_no_module_is_used_that_runs_commands_or_revives_objects(module: str) -> None:
    assert not importers(module)


def test_no_shell_is_started() -> None:
    found = [
        name
        for name, node in nodes(ast.Attribute)
        if isinstance(node, ast.Attribute)
        and node.attr in {"system", "popen", "execv", "execve", "spawnv", "create_subprocess_shell"}
    ]
    assert not found


def test_pickles_are_only_those_of_our_own_processes() -> None:
    """Over a pipe that nobody else can open; what clients send is JSON before it gets there."""
    assert importers("pickle") == {"server/processes.py", "server/process_worker.py"}


def test_a_module_is_loaded_by_name_only_for_the_handlers_setting() -> None:
    loaders = importers("importlib") - {
        name for name, module in imported() if module == "importlib.metadata"
    }
    assert loaders == {"server/loading.py"}


def test_chance_that_could_be_guessed_is_only_for_waiting_times() -> None:
    """Session ids, epochs and salts are of `secrets`."""
    assert importers("random") == {"server/app.py", "protocol/client.py"}
    assert "server/sessions.py" in importers("secrets")


def names_in(node: ast.AST) -> set[str]:
    """Return the names of variables and attributes in `node`."""
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} | {
        one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)
    }


def test_a_secret_is_never_compared_by_us() -> None:
    """PyJWT and Argon2 do it in constant time. (A command asks for a new password twice.)"""
    secret = re.compile(r"_?(secret|password|password_hash|token|signature|material)")
    found = [
        f"{name}:{node.lineno}"
        for name, node in nodes(ast.Compare)
        if isinstance(node, ast.Compare)
        and name != "server/commands/user.py"
        and any(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops)
        and any(secret.fullmatch(one) for one in names_in(node))
    ]
    assert not found


SQL = re.compile(r"\b(SELECT|INSERT|DELETE|UPDATE|PRAGMA|CREATE)\b")
OURS = re.compile(r"_?[A-Z_]+|table|where|fields|_requests\('\w+'\)")
"""Constants, and what sqlite_tables.py makes of the names of its own tables and columns."""


def test_sql_is_never_put_together_from_data() -> None:
    """Values are parameters."""
    found: list[str] = []
    for name, node in nodes(ast.JoinedStr):
        assert isinstance(node, ast.JoinedStr)
        text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        parts = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        data = [one for one in map(ast.unparse, parts) if not OURS.fullmatch(one)]
        if SQL.search(text) and data:
            found.append(f"{name}:{node.lineno} {data}")
    assert not found


def test_by_default_nobody_else_on_the_network_is_served() -> None:
    assert (Settings().host, Settings().admin_host) == ("127.0.0.1", "127.0.0.1")


def test_no_secret_no_origin_and_no_key_is_trusted_by_default() -> None:
    assert Settings().jwt_secret is None
    assert Settings().origins == Settings().jwt_public_key == ()
    assert not [row.name for row in settings_table() if "secret" in row.name and row.default]


def test_the_development_server_listens_where_the_setting_says() -> None:
    """`scripts/serve` opens nothing to the network by itself."""
    text = (ROOT / "scripts/serve").read_text() + (ROOT / "scripts/development.py").read_text()
    assert "0.0.0.0" not in text  # noqa: S104
    assert "--host" not in text


def listening(pid: int) -> set[tuple[str, int]]:
    """Return the addresses and ports on which that process listens (TCP of both kinds)."""
    inodes: set[str] = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    found: set[tuple[str, int]] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, port = fields[1].split(":")
                found.add((socket.inet_ntoa(bytes.fromhex(host)[::-1][:4]), int(port, 16)))
    return found


def test_two_ports_are_open_and_no_other(server: ServerProcess) -> None:
    """The public one and the admin port: no debugger."""
    assert server.process is not None
    admin = urlsplit(server.admin).port
    assert admin is not None
    assert listening(server.process.pid) == {("127.0.0.1", server.port), ("127.0.0.1", admin)}


def status(url: str, method: str) -> int:
    """Return what a request for `url`, which is refused, is refused with."""
    asked = urllib.request.Request(url, method=method)  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=30)  # noqa: S310
    refused.value.close()
    return refused.value.code


def test_metrics_are_not_on_the_public_port(server: ServerProcess) -> None:
    assert status(f"{server.http}/metrics", "GET") == 404


@pytest.mark.parametrize("path", ["/ws", "/token", "/methods", "/", "/console.js"])
def test_the_admin_port_has_nothing_of_the_public_one(server: ServerProcess, path: str) -> None:
    """But the probes: no way in, no login to guess passwords at."""
    assert {status(f"{server.admin}{path}", method) for method in ("GET", "POST")} == {404}


# Dependencies


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_every_dependency_is_pinned_to_a_version_and_its_hashes(lock: str) -> None:
    """And comes from the registry: not from a URL, a repository or a directory."""
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())
    assert len(entries) > 15
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+==[0-9][^ ]* ", entry), entry
        assert "--hash=sha256:" in entry, entry
        assert "://" not in entry, entry


def test_what_is_installed_is_checked_against_the_hashes() -> None:
    assert "--require-hashes" in (ROOT / "scripts/bootstrap").read_text()
    assert "--require-hashes" in (ROOT / "scripts/audit").read_text()


LICENCES = re.compile(r"MIT|BSD|Apache|ISC|Mozilla Public|MPL-2\.0")


def test_every_licence_of_what_ships_allows_it() -> None:
    names = re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    for name in names:
        try:
            metadata = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system or Python
        stated = [metadata.get("License-Expression", ""), metadata.get("License", "")]
        stated += metadata.get_all("Classifier", [])
        assert LICENCES.search(" ".join(stated)), f"{name}: {stated}"


# SECURITY.md


POLICY = (ROOT / "SECURITY.md").read_text()
CITED = set(re.findall(r"`(tests/\S+?\.py)(?:::(\w+))?`", POLICY))


def test_every_test_that_security_md_names_is_there() -> None:
    for file, test in CITED:
        text = (ROOT / file).read_text()
        assert not test or re.search(rf"def {test}\(", text), f"{file}::{test}"


def test_every_threat_names_its_test() -> None:
    section = POLICY.partition("## Threats")[2].partition("\n## ")[0]
    rows = [line for line in section.split("\n") if line.startswith("| ")]
    threats = [row for row in rows if not row.startswith("| threat |")]
    assert len(threats) > 40
    assert not [row for row in threats if "`tests/" not in row and "`scripts/audit`" not in row]


def test_every_attack_tested_here_is_in_security_md() -> None:
    tested = {
        (f"tests/security/{path.name}", name)
        for path in Path(__file__).parent.glob("test_*.py")
        if path.name != Path(__file__).name
        for name in re.findall(r"def (test_\w+)\(", path.read_text())
    }
    assert not tested - CITED
