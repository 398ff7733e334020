"""A cable between this machine and another one that is a network namespace; packets can be lost.

    near 10.213.N.1, tun -- Cable: loses, delays, reorders packets, or is cut -- tun, far 10.213.N.2

Both ends are kernels with real TCP. The packets pass through this process, so that nothing is asked
of the kernel but TUN and namespaces (netem, say, is often not there).
"""

import asyncio
import ctypes
import fcntl
import os
import random
import shutil
import struct
import subprocess
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

PACKET_BYTES_MAX: Final = 65_536
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001
_CLONE_NEWNET: Final = 0x40000000


class NoCable(Exception):
    """This machine cannot have one; the text says what is missing."""


class Cable:
    """See above. What it does to packets may be changed at any time.

    `loss` is the share of packets that get lost; each of the others takes `delay_seconds` and a
    random part of `jitter_seconds`, so that they overtake each other. With `cut` none gets through,
    and neither end is told.
    """

    def __init__(self, seed: int = 1) -> None:
        self.loss = 0.0
        self.delay_seconds = 0.0
        self.jitter_seconds = 0.0
        self.cut = False
        self._random = random.Random(seed)  # noqa: S311 - not a secret
        network = random.randrange(256)  # noqa: S311 - not a secret
        self.near = f"10.213.{network}.1"
        self.far = f"10.213.{network}.2"
        self._name = f"qs{os.getpid() % 100_000}x{network}"
        self._tuns: list[int] = []
        self._loop: asyncio.AbstractEventLoop
        self._far_loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live_far, name="far", daemon=True)

    async def run_far(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the far machine, in an event loop of its own."""
        return await asyncio.wrap_future(self.start_far(work))

    def start_far(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Begin `work` on the far machine."""
        return asyncio.run_coroutine_threadsafe(work, self._far_loop)

    async def abort_far(self, writer: asyncio.StreamWriter) -> None:
        """End a connection that was opened at the far end."""

        async def abort() -> None:
            writer.transport.abort()

        await self.run_far(abort())

    # Laying and removing it

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            self._lay()
        except BaseException:
            self._remove()
            raise
        near, far = self._tuns
        self._loop.add_reader(near, self._relay, near, far)
        self._loop.add_reader(far, self._relay, far, near)
        self._thread.start()
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.run_far(_cancel_all())
        self._far_loop.call_soon_threadsafe(self._far_loop.stop)
        await asyncio.to_thread(self._thread.join)
        for tun in self._tuns:
            self._loop.remove_reader(tun)
        self._remove()

    def _lay(self) -> None:
        if os.geteuid() != 0:
            raise NoCable("only root can make network namespaces")
        if shutil.which("ip") is None:
            raise NoCable("there is no `ip` (Debian: iproute2)")
        try:
            _ip("netns", "add", self._name)
            for end in "nf":
                self._tuns.append(_open_tun(f"{self._name}{end}"))
            near, far = f"{self._name}n", f"{self._name}f"
            _ip("link", "set", far, "netns", self._name)
            _ip("addr", "add", self.near, "peer", self.far, "dev", near)
            _ip("link", "set", near, "up")
            _ip("-n", self._name, "addr", "add", self.far, "peer", self.near, "dev", far)
            _ip("-n", self._name, "link", "set", far, "up")
        except OSError as error:
            raise NoCable(f"no TUN device: {error}") from error
        except subprocess.CalledProcessError as error:
            raise NoCable(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error

    def _remove(self) -> None:
        for tun in self._tuns:
            os.close(tun)
        self._tuns.clear()
        self._far_loop.close()
        with suppress(subprocess.CalledProcessError, OSError):
            _ip("netns", "del", self._name)

    def _live_far(self) -> None:
        namespace = os.open(Path("/var/run/netns") / self._name, os.O_RDONLY)
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.setns(namespace, _CLONE_NEWNET)  # of this thread only
        os.close(namespace)
        assert not failed, os.strerror(ctypes.get_errno())
        asyncio.set_event_loop(self._far_loop)
        self._far_loop.run_forever()

    # Packets

    def _relay(self, source: int, target: int) -> None:
        with suppress(BlockingIOError):
            while True:
                packet = os.read(source, PACKET_BYTES_MAX)
                if self.cut or self._random.random() < self.loss:
                    continue
                delay = self.delay_seconds + self.jitter_seconds * self._random.random()
                if delay:
                    self._loop.call_later(delay, self._deliver, target, packet)
                else:
                    self._deliver(target, packet)

    def _deliver(self, target: int, packet: bytes) -> None:
        if not self.cut and target in self._tuns:
            with suppress(BlockingIOError):  # the queue is full: lost
                os.write(target, packet)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)  # noqa: S607


def _open_tun(name: str) -> int:
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
    except OSError:
        os.close(tun)
        raise
    return tun
