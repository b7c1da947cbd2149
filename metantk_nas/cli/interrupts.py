"""Ctrl-C that is never lost, wherever it falls."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

AGAIN = 0.02
"""Seconds until an interrupt that was dropped is tried again."""


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Raise a Ctrl-C again that fell into a finaliser or a callback of a weak reference.

    Python cannot raise exceptions out of these: it says "Exception ignored in …" and goes on, and so would the program.
    """
    drop, again = sys.unraisablehook, list[threading.Timer]()

    def keep(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            drop(unraisable)
            return
        main = threading.main_thread().ident
        again.append(threading.Timer(AGAIN, signal.pthread_kill, (main, signal.SIGINT)))
        again[-1].start()

    sys.unraisablehook = keep
    try:
        yield
    finally:
        sys.unraisablehook = drop
        for timer in again:
            timer.join()
