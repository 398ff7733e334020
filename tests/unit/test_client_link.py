"""What a failed connection means to the client, and how long it tries again."""

import ssl

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import (
    ConnectionClosedError,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
)
from websockets.frames import Close
from websockets.http11 import Response

from protocol.client_errors import ConnectionFailed
from protocol.client_link import (
    EXPECTED_CAP_SECONDS,
    EXPECTED_SECONDS,
    RECONNECT_BASE_SECONDS,
    RECONNECT_CAP_SECONDS,
    STEADY_SECONDS,
    Loss,
    Patience,
    loss_of,
)

LOST = Loss("lost")
EXPIRED = Loss("expired", 4401)


def patience(tokens: int = 2) -> Patience:
    return Patience(now=0, first_seconds=10, later_seconds=100, tokens=tokens, random=lambda: 1.0)


def refused(status: int, body: bytes = b"", **headers: str) -> Loss:
    fields = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return loss_of(InvalidStatus(Response(status, "", fields, body)))


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4401, 4408, 4413, 4429])
def test_passing_trouble_is_not_fatal(code: int) -> None:
    assert not loss_of(ConnectionClosedError(Close(code, "why"), None)).fatal


@pytest.mark.parametrize("code", [1000, 1002, 1009, 4500, 4501, 4503, 4509])
def test_what_must_not_come_back_is_fatal(code: int) -> None:
    loss = loss_of(ConnectionClosedError(Close(code, "why"), None))
    assert (loss.fatal, loss.code, str(loss)) == (True, code, f"why (code {code})")


def test_a_connection_lost_without_a_close_frame_is_not_fatal() -> None:
    loss = loss_of(ConnectionClosedError(None, None))
    assert (loss.fatal, loss.code) == (False, 1006)


def test_a_message_that_is_too_big_to_read_is_fatal() -> None:
    loss = loss_of(ConnectionClosedError(None, Close(1009, "over limit")))
    assert loss.fatal
    assert "the server sent too big a message" in str(loss)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_not_ready_is_not_fatal(status: int) -> None:
    assert not refused(status).fatal


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404])
def test_any_other_answer_than_a_websocket_is_fatal(status: int) -> None:
    assert refused(status).fatal


def test_the_servers_words_are_in_the_message() -> None:
    assert str(refused(401, b"no such user\n")) == (
        "HTTP status 401 instead of a WebSocket: no such user"
    )


@pytest.mark.parametrize("error", [ConnectionRefusedError("no"), TimeoutError(), InvalidMessage()])
def test_a_server_that_is_away_is_not_fatal(error: Exception) -> None:
    assert not loss_of(error).fatal


@pytest.mark.parametrize("error", [ssl.SSLCertVerificationError("bad"), InvalidUpgrade("x")])
def test_a_peer_that_cannot_be_spoken_to_is_fatal(error: Exception) -> None:
    assert loss_of(error).fatal


def test_waits_double_up_to_their_cap() -> None:
    tries = patience()
    tries.welcomed(0)
    waits = [tries.after(LOST, 0) for _ in range(9)]
    assert waits == [min(RECONNECT_BASE_SECONDS * 2**n, RECONNECT_CAP_SECONDS) for n in range(9)]


def test_waits_begin_anew_after_a_connection_that_stood() -> None:
    tries = patience()
    for _ in range(3):
        tries.after(LOST, 0)
    tries.welcomed(5)
    assert tries.after(LOST, 5 + STEADY_SECONDS) == RECONNECT_BASE_SECONDS


def test_waits_grow_when_connections_do_not_stand() -> None:
    tries = patience()
    waits: list[float] = []
    for _ in range(3):
        tries.welcomed(0)
        waits.append(tries.after(LOST, 0))
    assert waits == [RECONNECT_BASE_SECONDS * 2**n for n in range(3)]


def test_the_server_chooses_the_wait_when_it_went_away() -> None:
    assert patience().after(LOST, 0, wish_seconds=2.5) == 2.5


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_names_a_time_is_left_alone_for_it_and_a_random_time_more(
    status: int,
) -> None:
    waits = patience()
    loss = refused(status, Retry_After="3")
    assert waits.after(loss, 0) == 3 + RECONNECT_BASE_SECONDS
    assert waits.after(loss, 0) == 3 + RECONNECT_BASE_SECONDS * 2


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT", ""])
def test_a_time_that_is_no_number_of_seconds_does_not_count(value: str) -> None:
    assert patience().after(refused(503, Retry_After=value), 0) == RECONNECT_BASE_SECONDS


def test_waits_stay_short_for_a_while_after_the_server_went_away() -> None:
    tries = patience()
    tries.welcomed(0)
    tries.after(LOST, 0, wish_seconds=2)
    waits = [tries.after(LOST, 2) for _ in range(6)]
    assert waits == [min(RECONNECT_BASE_SECONDS * 2**n, EXPECTED_CAP_SECONDS) for n in range(6)]
    assert tries.after(LOST, 2 + EXPECTED_SECONDS) > EXPECTED_CAP_SECONDS


def test_it_gives_up_when_there_is_no_first_connection_in_time() -> None:
    tries = patience()
    tries.after(LOST, 9)
    with pytest.raises(ConnectionFailed, match="gave up after 10 s: lost"):
        tries.after(LOST, 10)


def test_no_wait_goes_beyond_the_time_it_gives_up() -> None:
    assert patience().after(LOST, 9.99, wish_seconds=60) == pytest.approx(0.01)


def test_an_outage_is_timed_from_the_loss() -> None:
    tries = patience()
    tries.welcomed(1000)
    tries.after(LOST, 2000)
    tries.after(LOST, 2099)
    with pytest.raises(ConnectionFailed, match="gave up after 100 s"):
        tries.after(LOST, 2100)


def test_a_fatal_loss_ends_it_with_its_code() -> None:
    with pytest.raises(ConnectionFailed, match="taken over") as caught:
        patience().after(Loss("taken over", 4509, fatal=True), 0)
    assert caught.value.code == 4509


def test_a_token_refused_twice_ends_it() -> None:
    tries = patience(tokens=2)
    tries.after(EXPIRED, 0)
    with pytest.raises(ConnectionFailed, match="expired"):
        tries.after(EXPIRED, 0)


def test_a_token_that_expired_after_a_welcome_counts_anew() -> None:
    tries = patience(tokens=2)
    tries.after(EXPIRED, 0)
    tries.welcomed(0)
    assert tries.after(EXPIRED, 0) > 0
