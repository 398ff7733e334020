"""Entrypoint of the SecantusDB container: make the server's user, then run with authentication.

A SecantusDB that asks for passwords cannot be given its first user. So it runs without for a
moment, where only this container can reach it.
"""

import os
import subprocess
import time

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure

DAEMON = ["secantusd-py", "--storage-path=/data/db", "--sync-on-commit", "--cache-size=256M"]
DATABASE = USER = "queuesystem"
START_SECONDS = 30.0


def make_user(password: str) -> None:
    with MongoClient("mongodb://127.0.0.1:27017/?directConnection=true") as client:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                users = client[DATABASE].command("usersInfo", USER)["users"]
                break
            except ConnectionFailure:
                if time.monotonic() > deadline:
                    raise
        roles = [{"role": "readWrite", "db": DATABASE}]
        make = "updateUser" if users else "createUser"
        client[DATABASE].command(make, USER, pwd=password, roles=roles)


def main() -> None:
    daemon = subprocess.Popen([*DAEMON, "--host=127.0.0.1"])
    try:
        make_user(os.environ["MONGODB_PASSWORD"])
    finally:
        daemon.terminate()
        daemon.wait()
    os.execvp(DAEMON[0], [*DAEMON, "--host=0.0.0.0", "--auth"])  # noqa: S606 - a container


if __name__ == "__main__":
    main()
