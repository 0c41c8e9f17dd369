"""One process at a time: a lock on a folder that tells who holds it."""

import contextlib
import datetime
import json
import os
import pathlib
import socket
import threading
import time
import types
from collections.abc import Iterator

fcntl: types.ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has none: there the heart beat alone tells
    fcntl = None

_BEAT = 5.0  # seconds between two beats of whoever holds a lock
_WATCH = 15.0  # seconds without a beat after which its holder is dead


@contextlib.contextmanager
def held(path: str | os.PathLike, purpose: str) -> Iterator[None]:
    """Holds a lock file; it is gone afterwards.

    The kernel frees the lock of a process that died, however that was. On a file system
    where other machines do not see it, they see that the holder touches its file every
    few seconds, and take over the lock of one that does not.

    Args:
      path: the lock file, in a folder that exists.
      purpose: what is locked, for the message.

    Yields:
      Nothing; the lock is held meanwhile.

    Raises:
      ValueError: if another process holds the lock; the message names host and process.
      OSError: if the file cannot be made.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "lock"
      ...     with held(path, "the study"):
      ...         print(path.exists())
      ...     print(path.exists())
      True
      False
    """
    path = pathlib.Path(path)
    descriptor = _take(path, purpose)
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _take(path: pathlib.Path, purpose: str) -> int:
    """Opens and locks the file, and enters who this is; returns its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            locked = _exclude(descriptor)
            owner = _owner(descriptor)
            # A holder that this kernel does not know of shows itself by its beat.
            foreign = owner.get("host") != socket.gethostname() or locked is None
            if locked is False or (owner and foreign and _beats(path)):
                raise ValueError(_message(path, purpose, owner))
            if locked is None or _is_open(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(_self()).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has deleted it in between


def _exclude(descriptor: int) -> bool | None:
    """Locks an open file: whether it could, or None where there are no such locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has none
        return None
    return True


def _is_open(descriptor: int, path: pathlib.Path) -> bool:
    """Whether an open file is still the one at this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(descriptor: int) -> dict:
    """What the lock file says of its holder; nothing if it is new or half written."""
    try:
        return dict(json.loads(os.pread(descriptor, 10_000, 0)))
    except (ValueError, TypeError):
        return {}


def _self() -> dict[str, str | int]:
    now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    return {"host": socket.gethostname(), "process": os.getpid(), "since": now}


def _message(path: pathlib.Path, purpose: str, owner: dict) -> str:
    who = "another process"
    if owner:
        who = f"process {owner.get('process')} on {owner.get('host')}"
        who += f" since {owner.get('since')}"
    return f"{purpose} is in use by {who} (it holds {path}); wait for it, or stop it"


def _beats(path: pathlib.Path) -> bool:
    """Whether somebody touches the file."""
    touched = lambda: path.stat().st_mtime_ns if path.exists() else None
    before, end = touched(), time.monotonic() + _WATCH
    while touched() == before and time.monotonic() < end:
        time.sleep(0.2)
    return touched() not in (before, None)


def _beat(path: pathlib.Path, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
