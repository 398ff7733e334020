"""A URL names a store, or is refused with what would do."""

from pathlib import Path

import pytest

from server.journal.log import JournalError
from server.journal.opening import open_store
from server.journal.store import Store
from tests.contract.backends import Backend


@pytest.mark.parametrize("url", ["postgresql://host/db", "journal.db", "", "sqlite:"])
async def test_an_unknown_scheme_is_refused_with_those_we_know(url: str) -> None:
    with pytest.raises(ValueError, match=r"supported are sqlite:///PATH or mongodb://"):
        await open_store(url)


async def test_the_refusal_does_not_show_the_password() -> None:
    with pytest.raises(ValueError, match="supported") as refusal:
        await open_store("mysql://alice:secret@host/db")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://a.db", "sqlite:///:memory:"])
async def test_a_sqlite_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="names no file"):
        await open_store(url)


@pytest.mark.parametrize("url", ["mongodb://", "mongodb://host:port/db", "mongodb://h/d?w=nope=1"])
async def test_a_malformed_mongodb_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="MongoDB URL"):
        await open_store(url)


async def test_a_relative_path_starts_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await (await open_store("sqlite:///a.db")).close()
    assert (tmp_path / "a.db").exists()


async def test_an_absolute_path_has_four_slashes(tmp_path: Path) -> None:
    await (await open_store(f"sqlite:///{tmp_path}/a.db")).close()
    assert (tmp_path / "a.db").exists()


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=f"there is no directory {tmp_path}/missing"):
        await open_store(f"sqlite:///{tmp_path}/missing/a.db")


async def test_a_store_opened_without_its_log_says_so(backend: Backend) -> None:
    store: Store = await backend.open(log=False)
    with pytest.raises(JournalError, match="opened without its log"):
        _ = store.log
