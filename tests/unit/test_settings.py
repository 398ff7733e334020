"""Settings: which source wins, what is refused and how the refusal reads."""

from pathlib import Path

import pytest

from server.settings import Settings, SettingsError, load, read_dotenv, settings_table

SECRET = "s3cret-" * 8


def refusal(
    arguments: dict[str, str | None] | None = None,
    environ: dict[str, str] | None = None,
    dotenv: dict[str, str] | None = None,
) -> str:
    """Return the text of the SettingsError that loading must raise."""
    with pytest.raises(SettingsError) as caught:
        load(arguments or {}, environ or {}, dotenv or {})
    return str(caught.value)


def test_without_any_source_the_defaults_hold():
    assert load({}, {}, {}) == Settings()


def test_the_names_and_defaults_that_others_rely_on():
    fixed = {
        "QUEUESYSTEM_HOST": "127.0.0.1",
        "QUEUESYSTEM_PORT": "8765",
        "QUEUESYSTEM_ADMIN_HOST": "127.0.0.1",
        "QUEUESYSTEM_ADMIN_PORT": "9465",
        "QUEUESYSTEM_JOURNAL": "sqlite:///queuesystem.db",
        "QUEUESYSTEM_JWT_SECRET": "",
        "QUEUESYSTEM_JWT_AUDIENCE": "",
        "QUEUESYSTEM_HANDLERS": "server.demo:handlers",
        "QUEUESYSTEM_WINDOW": "64",
        "QUEUESYSTEM_LOG_FORMAT": "auto",
    }
    assert fixed.items() <= {row.env: row.default for row in settings_table()}.items()


def test_a_flag_wins_over_the_environment():
    settings = load({"window": "1"}, {"QUEUESYSTEM_WINDOW": "2"}, {"QUEUESYSTEM_WINDOW": "3"})
    assert settings.window == 1


def test_the_environment_wins_over_dotenv():
    assert load({}, {"QUEUESYSTEM_WINDOW": "2"}, {"QUEUESYSTEM_WINDOW": "3"}).window == 2


def test_dotenv_wins_over_the_default():
    assert load({}, {}, {"QUEUESYSTEM_WINDOW": "3"}).window == 3


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_value_counts_as_not_given(empty: str | None):
    settings = load({"window": empty}, {"QUEUESYSTEM_WINDOW": ""}, {"QUEUESYSTEM_WINDOW": "3"})
    assert settings.window == 3


def test_every_default_survives_being_written_into_the_environment():
    """What the table shows as default can be copied into `.env` and means the same."""
    environ = {row.env: row.default for row in settings_table()}
    assert load({}, environ, {}) == Settings()


@pytest.mark.parametrize("name", ["origins", "jwt_public_key"])
def test_lists_are_comma_separated(name: str):
    settings = load({name: "https://a.example, https://b.example,"}, {}, {})
    assert getattr(settings, name) == ("https://a.example", "https://b.example")


def test_a_text_that_looks_like_a_number_stays_text():
    assert load({"jwt_audience": "42"}, {}, {}).jwt_audience == "42"


@pytest.mark.parametrize("value", ["0", "10001", "-1", "1.5", "many"])
def test_a_value_out_of_bounds_is_refused(value: str):
    assert refusal({"window": value}) == (
        f'--window is "{value}" but must be a whole number from 1 to 10000'
    )


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "86401"])
def test_a_time_out_of_bounds_is_refused(value: str):
    assert "must be a number above 0, up to 86400 (seconds)" in refusal({"auth_timeout": value})


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("log_format", "xml", "one of auto, console, json"),
        ("journal", "mysql://localhost", "sqlite:///PATH or mongodb://HOST/DATABASE"),
        ("handlers", "no colon", "MODULE:NAME"),
        ("max_params_bytes", "1", "a whole number from 2 to 67108864 (bytes)"),
    ],
)
def test_a_refusal_says_what_is_allowed(name: str, value: str, allowed: str):
    assert refusal({name: value}).endswith(f"must be {allowed}")


def test_a_refusal_names_the_environment():
    assert refusal(environ={"QUEUESYSTEM_PORT": "x"}).startswith(
        'QUEUESYSTEM_PORT in the environment is "x"'
    )


def test_a_refusal_names_dotenv():
    assert refusal(dotenv={"QUEUESYSTEM_PORT": "x"}).startswith('QUEUESYSTEM_PORT in .env is "x"')


@pytest.mark.parametrize("source", ["environ", "dotenv"])
def test_a_misspelt_name_is_refused_with_the_closest_one(source: str):
    text = refusal(**{source: {"QUEUESYSTEM_WINDWO": "5"}})
    assert text.endswith("is no setting; did you mean QUEUESYSTEM_WINDOW?")


def test_names_without_the_prefix_are_nobodys_business():
    assert load({}, {"WINDOW": "x"}, {"OTHER": "y"}) == Settings()


def test_the_token_of_the_client_is_no_misspelt_setting():
    assert load({}, {"QUEUESYSTEM_TOKEN": "abc"}, {}) == Settings()


def test_a_refused_secret_is_not_shown():
    assert "hunter2" not in refusal({"jwt_secret": "hunter2"})


def test_a_refused_journal_is_shown_without_its_password():
    assert "hunter2" not in refusal({"journal": "mysql://root:hunter2@localhost/q"})


def test_the_repr_shows_no_secret():
    settings = load({"jwt_secret": SECRET, "journal": "mongodb://u:hunter2@h/d"}, {}, {})
    assert SECRET not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_dotenv_values_are_taken_literally(tmp_path: Path):
    """A secret with a dollar sign is that secret, not the value of a variable."""
    path = tmp_path / ".env"
    path.write_text("# comment\nexport A='x ${HOME} y'\nB\n", encoding="utf-8")
    assert read_dotenv(path) == {"A": "x ${HOME} y"}


def test_a_missing_dotenv_is_empty(tmp_path: Path):
    assert read_dotenv(tmp_path / ".env") == {}


def test_a_dotenv_that_is_no_text_is_refused(tmp_path: Path):
    path = tmp_path / ".env"
    path.write_bytes(b"A=\xff\n")
    with pytest.raises(SettingsError, match="cannot read"):
        read_dotenv(path)


def test_every_setting_is_documented():
    assert all(row.help for row in settings_table())
