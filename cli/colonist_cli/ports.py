"""Ports of this machine: whether one is free, and one that is."""

from __future__ import annotations

import errno
import socket
from typing import Final

from colonist_cli.exits import CliError, Exit

HOST: Final = "127.0.0.1"


def check_free(port: int, flag: str, *, host: str = HOST) -> None:
    """Raises `CliError`, which names the flag to choose another with. 0 is always free."""
    try:
        with socket.create_server((host, port)):
            return
    except OSError as error:
        raise CliError(Exit.NOT_STARTED, why_not(error, host, port, flag)) from None
    except OverflowError:
        raise CliError(Exit.USAGE, f"{flag} {port} is not 0 to 65535") from None


def why_not(error: OSError, host: str, port: int, flag: str) -> str:
    """Why nobody can listen there, for a person."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken: stop what uses it, or choose another with {flag}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs rights that you do not have: choose another with {flag}"
    return f"cannot listen at {host}:{port}: {error.strerror or error}"


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])
