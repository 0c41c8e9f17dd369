"""Ctrl-C and the signal of a scheduler that stops a job: a wish, at first."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def wishes() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C or SIGTERM into an event; the next acts as usual.

    Yields:
      The event. Only the main thread receives signals; elsewhere it is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    taken = [n for n, old in before.items() if old not in (None, signal.SIG_IGN)]

    def restore() -> None:
        for number in taken:
            signal.signal(number, before[number])

    def ask(*_: Any) -> None:
        asked.set()
        restore()
        with contextlib.suppress(RuntimeError):  # it may interrupt another print
            print("\nsaving after this segment; again to stop now", file=sys.stderr)

    for number in taken:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()


_NUMBERS = (signal.SIGINT, signal.SIGTERM)
