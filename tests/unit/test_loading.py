"""The setting `handlers`: from MODULE:NAME to a registry, or to a text that says what is wrong."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import demo
from server.loading import load_handlers
from server.settings import SettingsError

MODULE = """
from server import Handlers

class inner:
    handlers = Handlers()

main = Handlers()
number = 5
"""


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten afterwards."""
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_an_installed_module_is_loaded() -> None:
    assert load_handlers("server.demo:handlers") is demo.handlers


def test_a_module_of_the_working_directory_is_loaded(working_directory: Path) -> None:
    (working_directory / "methods_one.py").write_text(MODULE)
    assert load_handlers("methods_one:main").names() == []


def test_a_name_within_a_name_is_loaded(working_directory: Path) -> None:
    (working_directory / "methods_two.py").write_text(MODULE)
    assert load_handlers("methods_two:inner.handlers").names() == []


@pytest.mark.parametrize("where", ["", "server.demo", "server.demo:", ":handlers"])
def test_another_form_is_refused_with_an_example(where: str) -> None:
    with pytest.raises(SettingsError, match="must be MODULE:NAME, such as server"):
        load_handlers(where)


def test_a_missing_module_is_named_with_where_it_was_looked_for(working_directory: Path) -> None:
    with pytest.raises(SettingsError, match="no module 'nowhere'") as caught:
        load_handlers("nowhere.methods:handlers")
    assert str(working_directory) in str(caught.value)


def test_a_missing_name_is_answered_with_those_that_exist(working_directory: Path) -> None:
    (working_directory / "methods_three.py").write_text(MODULE)
    with pytest.raises(SettingsError, match="has no 'handlers'; it has: main"):
        load_handlers("methods_three:handlers")


def test_what_is_no_registry_is_refused(working_directory: Path) -> None:
    (working_directory / "methods_four.py").write_text(MODULE)
    with pytest.raises(SettingsError, match=r"'int' and must be server\.Handlers; it has: main"):
        load_handlers("methods_four:number")


def test_what_a_module_fails_with_comes_through(working_directory: Path) -> None:
    """The traceback of the user's own module says more than we could."""
    (working_directory / "methods_five.py").write_text("import module_that_is_missing")
    with pytest.raises(ModuleNotFoundError, match="module_that_is_missing"):
        load_handlers("methods_five:handlers")
