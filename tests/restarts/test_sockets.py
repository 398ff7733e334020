"""Sockets that listen beside each other on one port, and who of them gets a connection."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from scripts.ports import free_port
from server.sockets import close, listen, steer

CLIENTS = 30
"""Chance would give all of them to one of two sockets once in a thousand million times."""


@contextmanager
def listening(port: int, *, beside: bool = False) -> Iterator[Sequence[socket.socket]]:
    sockets = listen("127.0.0.1", port, beside=beside)
    yield sockets
    close(sockets)


def waiting(sockets: Sequence[socket.socket]) -> int:
    """Accept what waits at `sockets`; return how many there were."""
    count = 0
    for one in sockets:
        one.setblocking(False)
        while True:
            try:
                one.accept()[0].close()
            except BlockingIOError:
                break
            count += 1
    return count


@contextmanager
def clients(port: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        yield


def test_nobody_listens_where_somebody_does_unless_it_is_asked_for() -> None:
    port = free_port()
    with listening(port), pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: "):
        listen("127.0.0.1", port)


def test_after_a_replacement_nobody_else_is_let_in_either() -> None:
    port = free_port()
    with listening(port) as first, listening(port, beside=True):
        close(first)
        with pytest.raises(OSError, match="Address already in use"):
            listen("127.0.0.1", port)


def test_new_connections_go_to_who_listens_beside() -> None:
    port = free_port()
    with listening(port) as first, listening(port, beside=True) as second:
        steer(second)
        with clients(port):
            assert waiting(second) == CLIENTS
            assert waiting(first) == 0


def test_they_go_to_the_third_when_the_second_is_replaced() -> None:
    port = free_port()
    with listening(port) as first, listening(port, beside=True) as second:
        steer(second)
        close(first)
        with clients(port):
            assert waiting(second) == CLIENTS
        with listening(port, beside=True) as third:
            steer(third)
            with clients(port):
                assert waiting(third) == CLIENTS
                assert waiting(second) == 0


def test_it_listens_on_ipv6_too() -> None:
    port = free_port()
    try:
        sockets = listen("::1", port)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with socket.create_connection(("::1", port)):
        assert waiting(sockets) == 1
    close(sockets)
