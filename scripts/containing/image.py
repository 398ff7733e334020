"""From nothing to the image: a base by debootstrap, since there is no registry, then the build."""

import ast
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Final

from .daemon import Daemon
from .report import Failed, attempt, expect, run, say
from .tools import Tools

ROOT: Final = Path(__file__).parents[2]
DEBIAN: Final = "bookworm"
IN_BASE: Final = "python3,python3-venv,ca-certificates"
CERTIFICATE: Final = "/run/secrets/pip.pem"
PIP_OPTIONS: Final = {"index-url", "extra-index-url", "proxy", "timeout", "trusted-host"}
"""Of pip's configuration, what says how to reach packages."""


def make_base(daemon: Daemon, tools: Tools, archive: Path | None) -> str:
    """Import a small Debian with Python under the name the Dockerfile gives its base; return it.

    `archive` is a tar file that is used when it is there, and made when not.
    """
    found = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    if found is None:
        raise Failed("the Dockerfile has no ARG BASE")
    if archive is None or not archive.exists():
        say(f"making a base image by debootstrap of {DEBIAN}")
        archive = archive or daemon.directory / "base.tar"
        _debootstrap(daemon.directory / "base", tools, archive)
    daemon.docker("import", archive, found[1])
    return found[1]


def _debootstrap(directory: Path, tools: Tools, archive: Path) -> None:
    run([tools.debootstrap, "--variant=minbase", f"--include={IN_BASE}", DEBIAN, directory])
    for waste in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(directory / waste)
    part = archive.with_name(f"{archive.name}.part")  # one that is not whole is not found
    run(["tar", "--create", "--numeric-owner", f"--directory={directory}", f"--file={part}", "."])
    part.rename(archive)
    shutil.rmtree(directory)


def build(daemon: Daemon, base: str, tag: str, context: Path) -> None:
    """Build the image `tag` with this machine's way to PyPI, which must not be in it."""
    say(f"building {tag}")
    configuration, certificate = _pip_configuration()
    pip_conf = daemon.directory / "pip.conf"
    pip_conf.write_text(configuration)
    secrets = [f"--secret=id=pip.conf,src={pip_conf}"]
    if certificate is not None:
        secrets += [f"--secret=id=pip.pem,src={certificate}"]
    daemon.docker(
        "build",
        "--network=host",
        f"--build-arg=BASE={base}",
        *secrets,
        f"--tag={tag}",
        context,
    )


def check_image(daemon: Daemon, base: str, tag: str) -> None:
    """Check what is in the image, and what is not."""
    ours, theirs = (
        int(daemon.docker("image", "inspect", "--format={{.Size}}", one)) for one in (tag, base)
    )
    megabytes = (ours - theirs) / 1e6
    expect(megabytes < 60, f"{tag} adds {megabytes:.0f} MB to its base of {theirs / 1e6:.0f} MB")
    look = ["run", "--rm", "--entrypoint=sh", tag, "-c"]
    left = daemon.docker(*look, "ls /run/secrets /source /tools /wheels 2>/dev/null || true")
    expect(not left, "nothing of the build is left in it", left)
    writable = daemon.docker(
        *look, "find / -xdev -writable -type f -not -path '/proc/*' 2>/dev/null; true"
    )
    expect(not writable, "its user may write to no file of it", writable)


def _pip_configuration() -> tuple[str, str | None]:
    """Return how pip reaches packages here, as a pip.conf, and its file of certificates."""
    options: dict[str, str] = {}
    listed = attempt([sys.executable, "-m", "pip", "config", "list"], env=dict(os.environ))
    for line in listed.stdout.splitlines():  # the environment comes last, and wins
        name, separator, value = line.partition("=")
        if separator:
            options[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    lines = [f"{name} = {value}" for name, value in options.items() if name in PIP_OPTIONS]
    certificate = options.get("cert")
    if certificate is not None:
        lines += [f"cert = {CERTIFICATE}"]
    return "\n".join(["[global]", *lines, ""]), certificate
