"""What a development server needs before it starts: a secret in `.env` and a user to log in as.

Called by scripts/serve with the arguments of `queuesystem serve`. Says what it made and how to
send a first request.
"""

import asyncio
import os
import secrets
import shlex
import sys
import time
from argparse import ArgumentParser
from pathlib import Path

from dotenv import dotenv_values

from server.commands.common import add_settings, settings_of
from server.journal.log import JournalError
from server.journal.opening import open_store
from server.settings import Settings, SettingsError
from server.users import Accounts

DOTENV = Path(".env")
USER = "dev"
PASSWORD_NAME = "DEVELOPMENT_PASSWORD"  # noqa: S105 - the name of a variable


def main() -> int:
    parser = ArgumentParser(add_help=False)
    add_settings(parser)
    arguments, _ = parser.parse_known_args()
    if {"-h", "--help"} & set(sys.argv):
        return 0
    try:
        settings = settings_of(arguments)
        if not (settings.jwt_secret or settings.jwt_public_key or settings.jwt_jwks_url):
            remember("QUEUESYSTEM_JWT_SECRET", secrets.token_hex(32))
            print("Made a secret for development in .env (for production, make one of your own).")
            settings = settings_of(arguments)
        password = asyncio.run(make_user(settings)) if settings.jwt_secret else None
    except (SettingsError, JournalError, ValueError) as error:
        print(f"scripts/serve: {error}", file=sys.stderr)
        return 2
    print(welcome(settings, password), flush=True)
    return 0


def remember(name: str, value: str) -> None:
    """Add a line to `.env`, which only its owner may read."""
    text = DOTENV.read_text(encoding="utf-8") if DOTENV.exists() else ""
    if text and not text.endswith("\n"):
        text += "\n"
    descriptor = os.open(DOTENV, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)  # also when it was there
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{text}{name}={value}\n")


async def make_user(settings: Settings) -> str:
    """Add the development user to the store unless it is there; return its password."""
    password = dotenv_values(DOTENV).get(PASSWORD_NAME)
    if not password:
        password = secrets.token_urlsafe(12)
        remember(PASSWORD_NAME, password)
    store = await open_store(settings.journal, log=False)
    try:
        if await store.users.get(USER) is None:
            await Accounts(store.users).add(USER, password, "", time.time())
    finally:
        await store.close()
    return password


def welcome(settings: Settings, password: str | None) -> str:
    """Return what to do next."""
    address = f"{settings.host}:{settings.port}"
    url = f"ws://{address}/ws"
    usual = url == f"ws://{Settings().host}:{Settings().port}/ws"
    send = [".venv/bin/queuesystem", "send", "words"]
    send += [] if usual else ["--url", url]
    lines = [f"  WebSocket  {url}"]
    if settings.console == "on":
        lines += [f"  console    http://{address}/"]
    if password is None:
        send += ["--token", "$TOKEN"]
    else:
        login = f"{USER}:{password}"
        lines += [
            f"  user       {USER}, password {password}",
            f"  token      curl -X POST -u {shlex.quote(login)} http://{address}/token",
        ]
    lines += [f"  try        {' '.join(send)} --param delay=0.5 --param text='to be or not to be'"]
    return "\n".join(["", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
