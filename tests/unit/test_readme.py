"""The tables of README are those of the code."""

import pytest

from scripts.tables import README, TABLES, filled


def test_readme_has_the_tables_of_the_code() -> None:
    text = README.read_text(encoding="utf-8")
    assert filled(text) == text, "run scripts/tables.py --write"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_not_of_the_code_is_replaced(name: str) -> None:
    text = README.read_text(encoding="utf-8")
    assert filled(text.replace(TABLES[name](), "| old |")) == filled(text)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_a_place_is_an_error(name: str) -> None:
    text = README.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=name):
        filled(text.replace(f"<!-- {name} -->", ""))
