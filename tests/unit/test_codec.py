"""Messages to frames: strict about what we know, indifferent to what is newer."""

from pathlib import Path

import pytest
from msgspec import Raw

import protocol.schema
from protocol import frames as wire
from protocol.codec import (
    BAD_FRAMES_MAX,
    FrameError,
    decode_client_message,
    decode_server_message,
    encode,
)


def test_one_message_carries_several_frames_in_order() -> None:
    message = '{"type":"ack","seq":1}\n{"type":"cancel","id":"a"}\n'
    assert decode_client_message(message) == [wire.Ack(1), wire.Cancel("a")]


def test_unknown_fields_are_ignored() -> None:
    assert decode_client_message('{"type":"ack","seq":1,"new":true}') == [wire.Ack(1)]


def test_params_are_kept_as_they_came() -> None:
    (frame,) = decode_client_message('{"type":"request","id":"a","method":"m","params":{"x": 1}}')
    assert isinstance(frame, wire.Request)
    assert bytes(frame.params) == b'{"x": 1}'


def test_a_bad_frame_does_not_hide_its_neighbours() -> None:
    first, bad, last = decode_client_message('{"type":"ack","seq":1}\nnonsense\n{"type":"bye"}')
    assert (first, last) == (wire.Ack(1), wire.Bye())
    assert isinstance(bad, FrameError)


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("not json", "malformed"),
        ("[]", "Expected `object`"),
        ("{}", "`type`"),
        ('{"type":"nope"}', "$.type"),
        ('{"type":"request","method":"m"}', "`id`"),
        ('{"type":"request","id":"","method":"m"}', "$.id"),
        ('{"type":"request","id":"%s","method":"m"}' % ("x" * 129), "$.id"),
        ('{"type":"request","id":7,"method":"m"}', "$.id"),
        ('{"type":"request","id":"a","method":"m","timeout":-1}', "$.timeout"),
        ('{"type":"request","id":"a","method":"m","on_disconnect":"x"}', "$.on_disconnect"),
        ('{"type":"ack","seq":-1}', "$.seq"),
        ("", "no frame"),
        (" \n ", "no frame"),
        ('{"type":"request","id":"a","method":"m","params":' + "[" * 100_000, "recursion"),
        ('{"type":"ack","seq":1e400}', "$.seq"),
    ],
)
def test_a_bad_frame_is_refused_naming_the_field(message: str, named: str) -> None:
    (error,) = decode_client_message(message)
    assert isinstance(error, FrameError)
    assert named in str(error)


def test_a_refused_request_is_told_by_its_id_where_there_is_one() -> None:
    (error,) = decode_client_message('{"type":"request","id":"a","method":1}')
    assert isinstance(error, FrameError)
    assert error.id == "a"


def test_a_frame_of_a_newer_server_is_told_apart() -> None:
    known, newer = decode_server_message('{"type":"refreshed","expires_at":1}\n{"type":"new"}')
    assert known == wire.Refreshed(1.0)
    assert isinstance(newer, FrameError)


def test_of_many_frames_of_a_newer_server_only_some_are_told_of() -> None:
    newer = '{"type":"new"}\n' * 3 * BAD_FRAMES_MAX
    frames = decode_server_message(f'{newer}{{"type":"refreshed","expires_at":1}}\n{newer}')
    assert len(frames) == BAD_FRAMES_MAX + 1
    assert wire.Refreshed(1.0) in frames


def test_defaults_are_left_out_on_the_wire() -> None:
    assert encode(wire.Accepted("a", 1)) == b'{"type":"accepted","id":"a","n":1}'


def test_a_frame_is_one_line_whatever_its_text() -> None:
    frame = wire.Result("a\nb", 1, 0, Raw(encode("x\ny\u2028")), seq=1)
    assert b"\n" not in encode(frame)


def test_the_schema_file_is_up_to_date() -> None:
    """Renew it with: python -m protocol.schema > protocol/schema.json"""
    path = Path(protocol.schema.__file__).with_name("schema.json")
    assert path.read_text() == protocol.schema.render()
