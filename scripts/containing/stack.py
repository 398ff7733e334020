"""docker-compose.yml with server, database and Prometheus, on images that need no registry."""

import shutil
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values

from scripts.ports import free_port

from .container import Container
from .daemon import Daemon
from .image import ROOT, build
from .report import expect, run, say, verified, wait_until

STAND_INS: Final = Path(__file__).with_name("standins")
PROJECT: Final = "queuesystem-check"
PORT: Final = 8765
ADMIN_PORT: Final = 9465
SCRAPED_SECONDS: Final = 60.0
"""Some scrapes: prometheus.yml has one every 15 s."""
SCRAPED: Final = 'sum(queuesystem_requests_ended_total{job="queuesystem",method="words"}) > 0'

INTRUDER: Final = """\
import os, sys
from pymongo import MongoClient
from pymongo.errors import OperationFailure

ours = os.environ["QUEUESYSTEM_JOURNAL"]
for url, database in (("mongodb://mongodb/?directConnection=true", "queuesystem"), (ours, "other")):
    try:
        MongoClient(url)[database].things.insert_one({})
    except OperationFailure as error:
        print(error.details["codeName"])
    else:
        sys.exit(f"could write to {database}")
"""
"""Tries to write without a password, and with the server's to another database."""


def check_stack(daemon: Daemon, base: str, image: str) -> None:
    """Start server, database and Prometheus with compose; look, kill, stop."""
    for name in ("secantusdb", "prometheus"):
        _build_stand_in(daemon, base, name)
    say("server, database and Prometheus, with compose")
    env_file = daemon.directory / "stack.env"
    run([ROOT / "scripts/compose_env", env_file])
    port = free_port()
    with env_file.open("a", encoding="utf-8") as file:
        file.write(f"STACK_PORT={port}\n")
    files = [f"--file={ROOT / 'docker-compose.yml'}", f"--file={STAND_INS / 'compose.yml'}"]
    project = [f"--project-name={PROJECT}", f"--env-file={env_file}", *files]

    def compose(*arguments: str) -> str:
        return daemon.compose(*project, *arguments, cwd=ROOT)

    try:
        compose("up", "--detach", "--no-build", "server", "prometheus")
        secret = dotenv_values(env_file)["STACK_JWT_SECRET"] or ""
        name = daemon.inspect(compose("ps", "--quiet", "server").strip())["Name"].strip("/")
        container = Container(daemon, name, port, secret)
        container.wait_ready()
        container.wait_healthy()
        expect(daemon.inspect(name)["Config"]["Image"] == image, f"compose started {image}")
        _check_ports(daemon, name, compose("ps", "--quiet", "mongodb").strip(), port)
        refused = daemon.inside(name, "python", "-c", INTRUDER).split()
        expect(
            refused == ["Unauthorized", "Unauthorized"],
            "the database refuses who has no password, and the server another database",
            refused,
        )
        container.check_sandbox()
        container.check_login()
        container.check_methods(PORT)
        container.check_crash_and_restart(daemon.directory)
        _check_prometheus(daemon, compose("ps", "--quiet", "prometheus").strip())
    finally:
        say("stopping it")
        compose("down", "--volumes", "--timeout=45")


def _build_stand_in(daemon: Daemon, base: str, name: str) -> None:
    context = daemon.directory / name
    shutil.copytree(STAND_INS / name, context)
    shutil.copy(ROOT / "requirements-dev.lock", context)
    build(daemon, base, f"{name}:check", context)


def _check_prometheus(daemon: Daemon, container: str) -> None:
    def query(expression: str) -> str:
        url = "http://127.0.0.1:9090"
        return daemon.inside(container, "promtool", "query", "instant", url, expression).strip()

    wait_until(
        lambda: "=>" in query(SCRAPED), SCRAPED_SECONDS, "Prometheus has the server's metrics"
    )
    verified("Prometheus, on a read-only file system too, has the server's metrics")
    health = daemon.inspect(container)["State"]["Health"]["Status"]
    expect(health == "healthy", "Prometheus is healthy", health)


def _check_ports(daemon: Daemon, server: str, database: str, port: int) -> None:
    def published(container: str) -> dict[str, Any]:
        ports: dict[str, Any] = daemon.inspect(container)["NetworkSettings"]["Ports"]
        return {name: addresses for name, addresses in ports.items() if addresses}

    wanted = {f"{PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    expect(
        published(server) == wanted,
        f"the server is published on 127.0.0.1 only, its admin port {ADMIN_PORT} nowhere",
        published(server),
    )
    expect(published(database) == {}, "the database is published nowhere", published(database))
