"""What commands share: the flags of settings, and the token made from the configured secret."""

import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Collection

from server.settings import Settings, read_settings, settings_table

_HOW_TO_MAKE_ONE = """\
no secret is configured, so {consequence}. Make one in the file .env of this directory:

    (umask 077; echo QUEUESYSTEM_JWT_SECRET=$(python3 -c \
'import secrets; print(secrets.token_hex(32))') >> .env)
"""


class CommandError(Exception):
    """A command that cannot go on; the text is for its user, `exit_code` for the shell."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def add_settings(parser: ArgumentParser, names: Collection[str] | None = None) -> None:
    """Give the command a flag for each of these settings, or for all of them."""
    group = parser.add_argument_group(
        "settings",
        "Each can also be an environment variable or a line of the file .env in the working "
        "directory, such as QUEUESYSTEM_LOG_LEVEL=debug for --log-level debug. A flag wins over "
        "the environment, which wins over .env. Keep secrets out of flags: other users of the "
        "machine can read those.",
    )
    for row in settings_table():
        if names is None or row.name in names:
            default = f" (default: {row.default})" if row.default else ""
            text = (row.help + default).replace("%", "%%")
            group.add_argument(row.flag, metavar="VALUE", help=text)


def settings_of(arguments: Namespace) -> Settings:
    """Load the settings, given the flags of `add_settings`. Raises SettingsError."""
    given = vars(arguments)
    return read_settings({row.name: given.get(row.name) for row in settings_table()})


def need_secret(settings: Settings, consequence: str) -> str:
    """Return the configured secret, or raise the CommandError that says how to make one."""
    if settings.jwt_secret is None:
        raise CommandError(_HOW_TO_MAKE_ONE.format(consequence=consequence), exit_code=2)
    return settings.jwt_secret


def make_token(
    settings: Settings, subject: str, scope: str | None = None, ttl_seconds: float | None = None
) -> str:
    """Sign a token for `subject` with the configured secret (HS256)."""
    from server.tokens import issue_token  # noqa: PLC0415 - loading cryptography takes time

    return issue_token(
        need_secret(settings, "no token can be signed"),
        subject,
        ttl_seconds=settings.token_ttl if ttl_seconds is None else ttl_seconds,
        scope=scope,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        now=time.time(),
    )


def seconds(text: str) -> float:
    """Parse a positive number of seconds (an argparse type)."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400 * 3650:  # also refuses NaN
        raise ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value
