"""One client: it sends, cancels, repeats itself, is cut off and comes back, until told to finish.

dial -> hello -> welcome -> (messages <-> frames)* -> cut off -> dial ...
finish -> wait for every end -> ack -> bye -> 1000
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from protocol.codes import CloseCode
from scripts.checking.history import Writer

from .dialogue import Dialogue
from .link import Link
from .place import Place
from .workload import Ask, Asking, Mix

WELCOME_SECONDS: Final = 15.0
AGAIN_SECONDS: Final = 0.03
"""Before dialling again: a random part of this."""
BYE_SECONDS: Final = 10.0
LATE_ACK_EVENTS: Final = 60
LATE_ACK_SECONDS: Final = 0.3
OVERLAP_SECONDS: Final = 2.0
"""How long a connection that was taken over is kept, for the server to close it."""

Frame = dict[str, Any]


@dataclass
class Tally:
    """What all clients of a run have done and seen so far."""

    connections: int = 0
    sessions: int = 0
    resumed: int = 0
    requests: int = 0
    frames: int = 0
    ends: int = 0
    replays: int = 0
    cancels: int = 0
    repeats: int = 0
    cuts: int = 0
    takeovers: int = 0
    byes: int = 0
    commands: int = 0


class Client:
    """Client `name` with a session at a time; `window` is how many requests it has unfinished."""

    def __init__(
        self,
        name: str,
        place: Place,
        mix: Mix,
        window: int,
        dice: Random,
        token: str,
        history: Writer,
        tally: Tally,
    ) -> None:
        self.name = name
        self.finishing = False
        self._place = place
        self._mix = mix
        self._window = window
        self._dice = dice
        self._token = token
        self._history = history
        self._tally = tally
        self._asking = Asking(name, mix, dice)
        self._dialogue = Dialogue()
        self._lazy = dice.random() < mix.lazy
        self._link: Link | None = None
        self._over = False
        self._away_seconds = AGAIN_SECONDS
        self._send_at = 0.0
        self._ack_at = 0.0
        self._overlaps: set[asyncio.Task[None]] = set()

    def __str__(self) -> str:
        waits = self._dialogue.waiting_for
        return f"{self.name} (session {self._dialogue.session}) waits for {waits[:3]}"

    @property
    def over(self) -> bool:
        """Tell whether it has finished."""
        return self._over

    async def run(self) -> None:
        """Go on until everything is finished, after `finish`."""
        try:
            while not self._over:
                self._away_seconds = AGAIN_SECONDS
                link = await self._connect()
                if link is not None:
                    await self._talk(link)
                self._link = None
                if not self._over:
                    await asyncio.sleep(self._dice.uniform(0, self._away_seconds))
            await asyncio.gather(*self._overlaps)
        finally:
            for task in self._overlaps:
                task.cancel()

    def finish(self) -> None:
        """Send nothing new; `run` returns when all has ended."""
        self.finishing = True
        if self._link is not None:
            self._link.arrived.set()

    def move(self) -> None:
        """Leave the connection for the server that is at the place now."""
        if self._link is not None:
            self._link.abort()

    # Connecting

    async def _connect(self) -> Link | None:
        """Return a connection that was welcomed, or None."""
        await self._place.open.wait()
        link = Link(self.name, self._token, self._history)
        if not await link.dial(self._place):
            return None
        self._tally.connections += 1
        if self._chance(self._mix.abort / 3):
            self._cut(link)
            return None
        hello = self._dialogue.hello()
        link.send([{**hello, "started": True} if self._chance(0.5) else hello])
        self._link = link
        if self._chance(self._mix.abort / 3):
            self._cut(link)
            return None
        welcome = await self._first_frame(link)
        if welcome is None:
            link.abort()
            return None
        self._tally.sessions += not welcome["resumed"]
        self._tally.resumed += welcome["resumed"]
        self._dialogue.receive(welcome)
        return link

    async def _first_frame(self, link: Link) -> Frame | None:
        deadline = time.monotonic() + WELCOME_SECONDS
        while not link.frames:
            if link.closed is not None or time.monotonic() > deadline:
                return None
            await self._arrival(link, deadline)
        frame = link.frames.popleft()
        return frame if frame["type"] == "welcome" else None

    @staticmethod
    async def _arrival(link: Link, deadline: float) -> None:
        """Wait until something has come, or until `deadline`."""
        if not link.frames and link.closed is None:
            link.arrived.clear()
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                    await link.arrived.wait()
            except TimeoutError:
                pass

    # Talking

    async def _talk(self, link: Link) -> None:
        """Talk until the connection is over, or is to be."""
        self._send_at = 0.0
        while True:
            self._hear(link)
            if link.closed is not None:
                return
            now = time.monotonic()
            if self.finishing and self._dialogue.settled:
                await self._say_bye(link, cancel=False)
                self._over = link.closed == CloseCode.NORMAL
                return
            frames = self._acks(now)
            if now >= self._send_at:
                frames += self._requests(link)
                self._send_at = now + self._dice.uniform(0, self._mix.pause_seconds)
                if await self._misbehave(link, frames):
                    return
            if frames:
                link.send(frames)
            await self._arrival(link, min(self._send_at, self._ack_at or self._send_at))

    def _hear(self, link: Link) -> None:
        dialogue = self._dialogue
        tally = self._tally
        before = (dialogue.ends, dialogue.replays, dialogue.cancels)
        tally.frames += len(link.frames)
        while link.frames:
            dialogue.receive(link.frames.popleft())
        tally.ends += dialogue.ends - before[0]
        tally.replays += dialogue.replays - before[1]
        tally.cancels += dialogue.cancels - before[2]

    def _acks(self, now: float) -> list[Frame]:
        """Acknowledge what has come: at once, or (the lazy) late and together."""
        dialogue = self._dialogue
        pending = dialogue.seq - dialogue.acked
        if not pending:
            self._ack_at = 0.0
            return []
        if self._lazy and not self.finishing and pending < LATE_ACK_EVENTS:
            if not self._ack_at:
                self._ack_at = now + self._dice.uniform(0, LATE_ACK_SECONDS)
            if now < self._ack_at:
                return []
        self._ack_at = 0.0
        return [dialogue.ack()]

    def _requests(self, link: Link) -> list[Frame]:
        """Return what is to be sent: requests, again or for the first time, cancels, repeats."""
        dialogue = self._dialogue
        frames: list[Frame] = []
        asks = [ask for ask in dialogue.asks.values() if not ask.sent]
        room = self._window - dialogue.unfinished
        if not self.finishing:
            fresh = min(room, self._dice.randint(0, self._mix.batch)) - len(asks)
            for _ in range(fresh):
                ask = self._asking.next()
                dialogue.asks[ask.id] = ask
                asks.append(ask)
                self._tally.requests += 1
        for ask in asks[: max(room, 0)]:
            ask.sent = True
            frames.append(ask.frame)
        if self._chance(self._mix.cancel):
            self._choose_to_cancel()
        for ask in dialogue.asks.values():
            if ask.to_be_cancelled and ask.sent and not ask.ended and ask.cancelled != link.number:
                ask.cancelled = link.number
                frames.append({"type": "cancel", "id": ask.id})
        frames += self._repeats()
        if self._chance(self._mix.refresh):
            # Anywhere: what is behind it waits until the token was verified.
            frames.insert(self._dice.randint(0, len(frames)), {"type": "refresh"})
        return frames

    def _choose_to_cancel(self) -> None:
        """Have a request cancelled, on this connection and, until it has ended, all later ones."""
        unended = [ask for ask in self._dialogue.asks.values() if ask.sent and not ask.ended]
        if unended:
            self._dice.choice(unended).to_be_cancelled = True

    def _repeats(self) -> list[Frame]:
        """Now and then return a known request once more, as it was or with other params."""
        dialogue = self._dialogue
        frames: list[Frame] = []
        for chance, make in ((self._mix.repeat, _same), (self._mix.conflict, Ask.conflicting)):
            if self._chance(chance):
                known = [ask for ask in dialogue.asks.values() if ask.accepted or ask.ended]
                known += dialogue.remembered
                if known:
                    frames.append(make(self._dice.choice(known)))
                    self._tally.repeats += 1
        return frames

    # What connections must survive

    async def _misbehave(self, link: Link, frames: list[Frame]) -> bool:
        """Now and then end the connection (True), with `frames` sent, in part or not at all."""
        mix = self._mix
        if self._chance(mix.abort):
            self._cut(link, frames)
            return True
        if self._chance(mix.take_over):
            link.send(frames)
            self._tally.takeovers += 1
            self._leave_open(link)
            return True
        if self._chance(mix.bye) and not self.finishing:
            if frames:
                link.send(frames)
            self._tally.byes += 1
            await self._say_bye(link, cancel=self._chance(0.5))
            self._dialogue = Dialogue()
            return True
        return False

    def _cut(self, link: Link, frames: "list[Frame] | None" = None) -> None:
        self._tally.cuts += 1
        self._away_seconds = self._mix.away_seconds
        ways: list[Callable[[], None]] = [link.reset, link.abort]
        if frames:
            ways.append(lambda: link.tear(frames))
            if self._chance(0.5):
                link.send(frames)
                ways.pop()
        self._dice.choice(ways)()

    def _leave_open(self, link: Link) -> None:
        """Let go of a connection, for another one of the session to take it over."""
        task = asyncio.create_task(self._overlap(link))
        self._overlaps.add(task)
        task.add_done_callback(self._overlaps.discard)

    async def _overlap(self, link: Link) -> None:
        deadline = time.monotonic() + OVERLAP_SECONDS
        while link.closed is None and time.monotonic() < deadline:
            await self._arrival(link, deadline)
            link.frames.clear()
        link.abort()

    async def _say_bye(self, link: Link, *, cancel: bool) -> None:
        """End the session, and wait until the server closes."""
        link.send([{"type": "bye", "cancel": True} if cancel else {"type": "bye"}])
        deadline = time.monotonic() + BYE_SECONDS
        while link.closed is None and time.monotonic() < deadline:
            await self._arrival(link, deadline)
            link.frames.clear()
        link.abort()

    def _chance(self, share: float) -> bool:
        return self._dice.random() < share


def _same(ask: Ask) -> Frame:
    return ask.frame
