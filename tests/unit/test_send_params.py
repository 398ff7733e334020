"""The params of `queuesystem send`, from arguments and from files."""

import io
from pathlib import Path

import pytest

from server.commands.common import CommandError
from server.commands.params import from_file, from_pairs


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("three", "three"),
        ("3", 3),
        ('"3"', "3"),
        ("", ""),
        ("a=b", "a=b"),
        ("null", None),
        ("[1,2]", [1, 2]),
        ("{broken", "{broken"),
        ("to be", "to be"),
    ],
)
def test_a_value_is_json_where_it_can_be_and_text_otherwise(text: str, value: object) -> None:
    assert from_pairs([f"name={text}"]) == {"name": value}


def test_no_pairs_are_no_params() -> None:
    assert from_pairs([]) == {}


@pytest.mark.parametrize("pair", ["name", "=value", ""])
def test_a_pair_must_have_a_name_and_an_equals_sign(pair: str) -> None:
    with pytest.raises(CommandError, match="NAME=VALUE") as caught:
        from_pairs([pair])
    assert caught.value.exit_code == 2


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(CommandError, match="twice"):
        from_pairs(["a=1", "a=2"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "params"


def test_a_file_may_hold_one_object_over_several_lines(file: Path) -> None:
    file.write_text('{\n  "a": 1\n}\n')
    assert from_file(str(file)) == [{"a": 1}]


def test_a_file_may_hold_an_object_per_line_and_empty_lines(file: Path) -> None:
    file.write_text('{"a": 1}\n\n{"a": 2}\r\n')
    assert from_file(str(file)) == [{"a": 1}, {"a": 2}]


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1}')))
    assert from_file("-") == [{"a": 1}]


def test_a_broken_line_is_named(file: Path) -> None:
    file.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(CommandError, match="line 2"):
        from_file(str(file))


@pytest.mark.parametrize("text", ["", "[1]", "3", "nonsense"])
def test_what_is_no_object_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(CommandError, match="params") as caught:
        from_file(str(file))
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot read .*params"):
        from_file(str(file))
