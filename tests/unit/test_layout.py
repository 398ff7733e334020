"""Data flows one way: which part may import which, and what is generated is current."""

import ast
from pathlib import Path

import pytest

from protocol import codes, frames, schema

ROOT = Path(__file__).parents[2]

INPUT_OUTPUT = {"asyncio", "sqlite3", "motor", "pymongo", "websockets", "socket", "threading"}
LEAVES = {"server.histogram"}
"""What every room may use: it imports nothing of ours."""
RULES = [
    "protocol/frames.py",
    "protocol/codes.py",
    "protocol/codec.py",
    "protocol/client_rules.py",
    "server/session.py",
    "server/counts.py",
    "server/load.py",
    "server/addresses.py",
    "server/admission.py",
    "server/rate.py",
    "server/journal/entries.py",
    "server/journal/state.py",
    "server/params.py",
    "server/scopes.py",
]
"""Sans-I/O: testable without a loop or a socket."""


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, those inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", files("protocol"), ids=lambda path: path.name)
def test_the_protocol_knows_nothing_of_the_server(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] == "server"}


@pytest.mark.parametrize("path", RULES)
def test_the_rules_do_no_input_or_output(path: str) -> None:
    assert not {name for name in imports(ROOT / path) if name.split(".")[0] in INPUT_OUTPUT}


@pytest.mark.parametrize("path", files("server/journal"), ids=lambda path: path.name)
def test_the_journal_knows_nothing_of_sockets_and_sessions(path: Path) -> None:
    ours = {name for name in imports(path) if name.startswith("server.")} - LEAVES
    assert not {name for name in ours if not name.startswith("server.journal")}
    assert not {name for name in imports(path) if name.startswith("websockets")}


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_what_every_room_uses_imports_none(leaf: str) -> None:
    found = imports(ROOT / f"{leaf.replace('.', '/')}.py")
    assert not {name for name in found if name.split(".")[0] in {"server", "protocol"}}


@pytest.mark.parametrize("path", [*files("server"), *files("protocol")], ids=lambda path: path.name)
def test_what_ships_imports_no_tests_and_no_scripts(path: Path) -> None:
    assert not {n for n in imports(path) if n.split(".")[0] in {"tests", "scripts", "pytest"}}


@pytest.mark.parametrize("path", files("scripts/checking"), ids=lambda path: path.name)
def test_the_checker_of_histories_believes_none_of_our_code(path: Path) -> None:
    tree = ast.parse(path.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = {"server", "protocol", "tests", "scripts"}
    assert not {name for name in imports(path) if name.split(".")[0] in ours}
    assert {node.level for node in nodes} <= {0, 1}  # nothing from beside its own package


def test_the_json_schema_is_current() -> None:
    committed = (ROOT / "protocol/schema.json").read_text()
    assert committed == schema.render(), "run: python -m protocol.schema > protocol/schema.json"


SPEC = (ROOT / "protocol/SPEC.md").read_text()


@pytest.mark.parametrize(
    "frame", [*frames.ClientFrame.__args__, *frames.ServerFrame.__args__], ids=lambda f: f.__name__
)
def test_the_spec_describes_every_frame_and_field(frame: type) -> None:
    tag = frame.__struct_config__.tag  # type: ignore[attr-defined]
    row = next((line for line in SPEC.split("\n") if line.startswith(f"| `{tag}` |")), "")
    assert row, f"no row for {tag}"
    for field in frame.__struct_fields__:  # type: ignore[attr-defined]
        assert f"`{field}" in row, f"{tag}: {field}"


@pytest.mark.parametrize("code", list(codes.ErrorCode))
def test_the_spec_lists_every_error_code(code: str) -> None:
    retryable = "yes" if code in codes.RETRYABLE else "no"
    assert f"| `{code}` | {retryable} |" in SPEC


@pytest.mark.parametrize("code", list(codes.CloseCode))
def test_the_spec_lists_every_close_code_with_what_to_do(code: int) -> None:
    table = [line for line in SPEC.split("\n## 6.")[1].split("\n") if line.startswith("|")]
    rows = [line for line in table if str(int(code)) in line]
    assert rows
    assert (
        rows[0]
        .rsplit("|", 2)[1]
        .strip()
        .startswith("yes" if codes.should_reconnect(code) else "no")
    )
