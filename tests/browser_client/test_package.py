"""What is published of the browser client: its types, its size, its package."""

import gzip
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from tests.browser_client.node import HERE, PACKAGE, npm, tool

SIZE_BYTES_MAX = 6000
ROOT = PACKAGE.parent
CODE = (PACKAGE / "client.js").read_text()
MANIFEST: dict[str, Any] = json.loads((PACKAGE / "package.json").read_text())


def run(*command: str, cwd: Path = HERE) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_code_and_types_agree_and_are_strict() -> None:
    run(*tool("tsc"), "--project", "tsconfig.json")


def test_it_is_small() -> None:
    esbuild = tool("esbuild")
    code = run(*esbuild, str(PACKAGE / "client.js"), "--bundle", "--minify", "--format=esm")
    assert len(gzip.compress(code.encode(), 9)) <= SIZE_BYTES_MAX


def test_it_depends_on_nothing() -> None:
    assert not re.search(r"^import|^export .* from", CODE, re.MULTILINE)
    assert not {name for name in MANIFEST if name.lower().endswith("dependencies")}


def test_the_package_has_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert MANIFEST["version"] == project["version"]


def test_the_package_has_the_licence_of_the_project() -> None:
    assert (PACKAGE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_package_holds_what_it_names_and_nothing_else() -> None:
    (packed,) = json.loads(run(*npm(), "pack", "--dry-run", "--json", cwd=PACKAGE))
    names = {file["path"] for file in packed["files"]}
    assert names == {"LICENSE", "README.md", "client.d.ts", "client.js", "package.json"}
    exported = MANIFEST["exports"]["."]
    assert {exported["types"], exported["default"]} == {"./client.d.ts", "./client.js"}


def test_the_scripts_of_the_console_have_types_that_agree() -> None:
    run(*tool("tsc"), "--project", "tsconfig.web.json")
