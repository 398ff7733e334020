"""The sockets the server listens on.

Whoever connects from `listen` on waits in the kernel's queue until the listener accepts.
"""

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn

LISTEN_BACKLOG: Final = 4096
"""asyncio's own 100 turns a reconnect storm into SYN retries of a second each."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of `host`; port 0 takes free ones.

    Raises OSError that names the address.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            with suppress(_NoFamily):
                sockets.append(_bind(family, address))
        if not sockets:
            _refuse(host)
        for one in sockets:
            one.listen(LISTEN_BACKLOG)
    except BaseException:
        close(sockets)
        raise
    return sockets


def close(sockets: Sequence[socket.socket]) -> None:
    """Close them all."""
    for one in sockets:
        one.close()


class _NoFamily(Exception):
    """This system has no sockets of that family, such as IPv6."""


_Address = tuple[str, int] | tuple[str, int, int, int]


def _addresses(host: str, port: int) -> list[tuple[int, _Address]]:
    """Return family and address of everything `host` stands for, each once."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in infos))  # type: ignore[misc]


def _refuse(host: str) -> NoReturn:
    raise OSError(f"cannot listen on {host}: this system has none of its address families")


def _bind(family: int, address: _Address) -> socket.socket:
    try:
        one = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        raise _NoFamily from None
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError as error:
        one.close()
        what = f"cannot listen on {address[0]}:{address[1]}: {error.strerror}"
        raise OSError(error.errno, what) from None
    return one
