"""What runs in a process of the pool: take a call, answer it, until the server is gone."""

import ctypes
import os
import pickle
import signal
import sys
import traceback
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from types import FrameType
from typing import Final

from server.log_context import begin_handling
from server.logs import Format, Level, configure
from server.threads import ordinary

SIGNALS: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
"""Ctrl-C, closed terminals and service managers send these to the whole group; the server decides
what they mean."""

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def serve_calls(connection: Connection, log: tuple[Format, Level] | None) -> None:
    """Answer the calls that come over `connection` until its other end is closed.

    `log` is how the server logs; None when it does not.
    """
    for number in SIGNALS:
        # A handler and not SIG_IGN, which programs that a function starts would inherit; but
        # where nohup has put it they shall.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    _die_with_the_server()
    if log is not None:
        configure(*log)
    while True:
        try:
            connection.send_bytes(_answer(connection.recv_bytes()))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass


def _die_with_the_server() -> None:
    """Have the kernel end this process when the server's has ended, even by SIGKILL.

    Elsewhere than on Linux it ends when the function it runs has returned.
    """
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        if prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    server = parent_process()
    if server is not None and os.getppid() != server.pid:
        # It ended before, while this process was starting. Its first call may be in the pipe:
        # whoever has taken over from the server makes it.
        os._exit(1)


def _answer(call: bytes) -> bytes:
    try:
        function, arguments, request = pickle.loads(call)  # noqa: S301 - from the server
        begin_handling(request)
        return pickle.dumps((True, function(*arguments)))
    except BaseException as error:
        return _failure(error)


def _failure(error: BaseException) -> bytes:
    text = f"in process {os.getpid()}:\n{''.join(traceback.format_exception(error))}"
    error = ordinary(error)
    error.add_note(text)
    try:
        answer = pickle.dumps((False, error))
        pickle.loads(answer)  # noqa: S301 - our own; many exceptions pickle but do not unpickle
    except Exception:
        # Whatever it is, the text goes instead.
        return pickle.dumps((False, RuntimeError(text)))
    return answer
