"""Whatever comes is decoded or refused, and nothing that is decoded changes on the way."""

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import frames as wire
from protocol.codec import decode_client_message, decode_server_message, encode
from tests.fuzz.targets import codec
from tests.fuzz.texts import json_text, messages, mutated, odd_text

numbers = st.integers(0, 2**63 - 1)
clients = st.builds(wire.ClientInfo, st.text(max_size=64), st.text(max_size=64))
names = st.text(min_size=1, max_size=128)
client_frames = st.one_of(
    st.builds(wire.Cancel, names),
    st.builds(wire.Ack, numbers),
    st.builds(wire.Refresh, names),
    st.builds(wire.Bye),
    st.builds(
        wire.Hello,
        session=st.none() | names,
        seq=numbers,
        client=st.none() | clients,
    ),
)
server_frames = st.one_of(
    st.builds(wire.Accepted, id=odd_text, n=numbers),
    st.builds(wire.Done, id=odd_text, seq=numbers, attempt=numbers, results=numbers),
    st.builds(wire.Error, odd_text, odd_text, st.booleans(), st.none() | odd_text),
    st.builds(wire.GoAway, odd_text, st.floats(0, 1e308)),
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | messages | mutated(messages) | odd_text.map(str.encode))
def test_any_message_is_decoded_or_refused(message: bytes) -> None:
    codec(message)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(("hello", "request", "cancel", "ack", "refresh", "bye", "welcome", "result")),
    st.dictionaries(
        st.sampled_from(
            ("id", "method", "params", "seq", "timeout", "token", "session", "data", "new")
        ),
        json_text,
        max_size=5,
    ),
)
def test_any_value_in_any_field_is_decoded_or_refused(kind: str, fields: dict[str, str]) -> None:
    parts = [f'"{name}":{text}' for name, text in fields.items()]
    codec(("{" + ",".join([f'"type":"{kind}"', *parts]) + "}").encode())


@settings(deadline=None)
@given(st.lists(client_frames, min_size=1, max_size=5))
def test_frames_of_clients_come_as_they_were_sent(frames: list[wire.ClientFrame]) -> None:
    assert decode_client_message(b"\n".join(map(encode, frames))) == frames


@settings(deadline=None)
@given(st.lists(server_frames, min_size=1, max_size=5))
def test_frames_of_servers_come_as_they_were_sent(frames: list[wire.ServerFrame]) -> None:
    assert decode_server_message(b"\n".join(map(encode, frames))) == frames


@given(odd_text)
def test_a_frame_is_one_line_whatever_text_is_in_it(text: str) -> None:
    assert b"\n" not in encode(wire.Error("code", text, retryable=False, id=text, details=[text]))


@settings(deadline=None)
@given(json_text.filter(lambda text: "\n" not in text))
def test_a_field_that_is_not_known_changes_nothing(value: str) -> None:
    frames = decode_client_message(f'{{"type":"ack","seq":1,"new":{value}}}')
    if frames != [wire.Ack(1)]:
        # Then it is no JSON.
        (alone,) = decode_client_message(f'{{"new":{value}}}')
        assert "`type`" not in str(alone)
