"""The sockets the server listens on.

    first    bind -> SO_REUSEPORT -> listen    a second server is told "address already in use",
    beside   SO_REUSEPORT -> bind -> listen    but one that is to replace the first is let in
    systemd  LISTEN_FDS                        it listens, also while no server runs

Whoever connects from `listen` on waits in the kernel's queue until the listener accepts.
"""

import array
import os
import socket
import struct
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from typing import Final, NoReturn

import structlog

LISTEN_BACKLOG: Final = 4096
"""asyncio's own 100 turns a reconnect storm into SYN retries of a second each."""

_log = structlog.get_logger(__name__)


def listen(host: str, port: int, *, beside: bool = False) -> list[socket.socket]:
    """Return a listening socket for each address of `host`; port 0 takes free ones.

    With `beside`, another server of the same user may listen there already (Linux). Raises
    OSError that names the address.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            with suppress(_NoFamily):
                sockets.append(_bind(family, address, beside))
        if not sockets:
            _refuse(host)
        for one in sockets:
            one.listen(LISTEN_BACKLOG)
    except BaseException:
        close(sockets)
        raise
    return sockets


def steer(sockets: Sequence[socket.socket]) -> None:
    """Have every new connection come to `sockets`, and none to the server they listen beside.

    Else the system gives some to each, and those that the other one has not accepted when it
    closes its socket are cut off.
    """
    # A program of one instruction (classic BPF) that says: the second socket, counted from 0 in
    # the order in which they began to listen. Once the first is gone there is no such socket, and
    # the system chooses as if there were no program. socket(7), SO_ATTACH_REUSEPORT_CBPF.
    program = array.array("Q", struct.pack("=HBBI", _BPF_RETURN, 0, 0, 1))
    address, length = program.buffer_info()
    for one in sockets:
        try:
            one.setsockopt(
                socket.SOL_SOCKET, _ATTACH_REUSEPORT_CBPF, struct.pack("@HP", length, address)
            )
        except OSError as error:
            _log.warning("connections_not_steered", error=str(error))


def activated(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the sockets that systemd listens on for this process; usually there are none.

    What tells of them is taken out of `environ`: it is not for the processes started from here.
    """
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        return []
    sockets = [socket.socket(fileno=_FIRST_ACTIVATED + number) for number in range(int(count))]
    for one in sockets:
        one.set_inheritable(False)
    return sockets


def close(sockets: Sequence[socket.socket]) -> None:
    """Close them all."""
    for one in sockets:
        one.close()


class _NoFamily(Exception):
    """This system has no sockets of that family, such as IPv6."""


_Address = tuple[str, int] | tuple[str, int, int, int]

_FIRST_ACTIVATED: Final = 3
"""The first descriptor of those that systemd hands over (sd_listen_fds(3))."""
_BPF_RETURN: Final = 0x06
_ATTACH_REUSEPORT_CBPF: Final = 51


def _addresses(host: str, port: int) -> list[tuple[int, _Address]]:
    """Return family and address of everything `host` stands for, each once."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in infos))  # type: ignore[misc]


def _refuse(host: str) -> NoReturn:
    raise OSError(f"cannot listen on {host}: this system has none of its address families")


def _bind(family: int, address: _Address, beside: bool) -> socket.socket:
    try:
        one = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        raise _NoFamily from None
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if beside:
            _share(one)
        one.bind(address)
        # Not before, unless it was asked for: a second server started by mistake would be let in.
        _share(one)
    except OSError as error:
        one.close()
        what = f"cannot listen on {address[0]}:{address[1]}: {error.strerror}"
        raise OSError(error.errno, what) from None
    return one


def _share(one: socket.socket) -> None:
    """Let sockets of the same user that say this too be bound to the same address."""
    if sys.platform == "linux":  # elsewhere it means something else
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
