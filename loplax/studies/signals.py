"""Ctrl-C and the signal of a scheduler that stops a job: a wish, at first."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

GRACE = 20.0  # seconds for the segment in progress: all is to be saved within 30


class Stop(KeyboardInterrupt):
    """The study has stopped as it was asked to; its argument is the signal's number."""


class Wish:
    """Whether somebody wishes the study to stop.

    Attributes:
      number: the number of the signal; 0 if none came.
      since: the time when it came, of ``time.monotonic``.
    """

    def __init__(self) -> None:
        """Nobody does yet."""
        self.number, self.since = 0, 0.0

    def make(self, number: int, *_: Any) -> None:
        """Wishes, as the handler of a signal."""
        self.number, self.since = number, time.monotonic()

    def heed(self, patience: float = 0.0) -> None:
        """Raises `Stop` if there is a wish, and it is as many seconds old."""
        if self.number and time.monotonic() - self.since >= patience:
            raise Stop(self.number)


@contextlib.contextmanager
def wishes() -> Iterator[Wish]:
    """Turns the first Ctrl-C or SIGTERM into a wish; the next acts as usual.

    Yields:
      The wish. Only the main thread receives signals; elsewhere it is never made.
    """
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    taken = [n for n, old in before.items() if old not in (None, signal.SIG_IGN)]

    def restore() -> None:
        for number in taken:
            signal.signal(number, before[number])

    def ask(number: int, *_: Any) -> None:
        wish.make(number)
        restore()
        with contextlib.suppress(RuntimeError):  # it may interrupt another print
            print(
                f"\nstopping: the segment in progress has {GRACE:g} s to end, then all "
                "that is finished is saved; again to stop without saving",
                file=sys.stderr,
            )

    for number in taken:
        signal.signal(number, ask)
    try:
        yield wish
    finally:
        restore()


_NUMBERS = (signal.SIGINT, signal.SIGTERM)
