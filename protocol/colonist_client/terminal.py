"""Asking a person for a secret, so that nobody reads it over a shoulder or in a log."""

from __future__ import annotations

import contextlib
import signal
import threading
import warnings
from collections.abc import Generator
from typing import Final

from colonist_protocol.errors import InvalidValueError

REMEDY: Final = (
    "there is no terminal to ask for it at: put it into a file of mode 0600 and its name into "
    "COLONIST_PASSPHRASE_FILE, or give systemd's credential colonist-passphrase"
)


def ask(prompt: str) -> str:
    """What is typed, unseen. Raises `InvalidValueError` where there is no terminal, or nothing."""
    import getpass  # noqa: PLC0415 - rarely needed, and slow to load

    with warnings.catch_warnings(), interruptible():
        # Without a terminal it would read, and show, what comes in.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(prompt)
        except getpass.GetPassWarning:
            raise InvalidValueError(f"{prompt}{REMEDY}") from None
        except (EOFError, OSError, UnicodeDecodeError):
            raise InvalidValueError(f"{prompt}nothing was typed") from None


@contextlib.contextmanager
def interruptible() -> Generator[None]:
    """Ctrl-C ends what is done meanwhile even where an event loop has taken the signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
