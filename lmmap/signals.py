"""Signals: being asked to end is not being cut short."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def leave(number: int, frame: FrameType | None) -> None:
    """Exit on a signal as Ctrl-C does: blocks unwind, what they hold is let go."""
    signal.signal(number, signal.SIG_IGN)  # once is enough: a second one must not cut the unwinding short
    sys.exit(128 + number)


@contextmanager
def sigterm_exits() -> Iterator[None]:
    """Let SIGTERM unwind the block as Ctrl-C does, so that children stop and temporary files go."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
