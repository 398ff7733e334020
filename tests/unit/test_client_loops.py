"""The client on event loops other than asyncio's own."""

import uvloop

from protocol.client import Session


def test_a_timer_that_is_due_already_can_be_armed_again_on_uvloop() -> None:
    """uvloop's handle of a time in the past cannot tell when it was due."""

    async def arm_twice() -> None:
        session = Session(
            "ws://127.0.0.1:1/ws",
            "token",
            resume=None,
            connect_timeout_seconds=1,
            give_up_after_seconds=1,
            buffer_bytes=1024,
            max_message_bytes=1024,
            tls=None,
            client=None,
        )
        session._rules._ack_at = session._loop.time() - 1
        session._arm()
        session._arm()

    uvloop.run(arm_twice())
