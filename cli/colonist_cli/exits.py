"""Exit codes, and the one line that each error is told in. Stable: scripts may rely on them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, cast


class Exit(IntEnum):
    """What the shell is told; docs/reference/cli.md has the table."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    TIMEOUT = 6
    CONFLICT = 7
    UNAVAILABLE = 8
    NOT_STARTED = 9
    BUG = 70
    INTERRUPTED = 130


MEANINGS: Final = {
    Exit.OK: "done",
    Exit.FAILED: "the work failed or was cancelled; the demo went wrong; a store or file is faulty",
    Exit.USAGE: "bad input: a flag, a spec, a setting, an unreadable file",
    Exit.NOT_FOUND: "there is no such thing",
    Exit.REFUSED: "the server refused: a wrong key, or one that may not do this",
    Exit.UNREACHABLE: "no server there, or no answer; the message says if the outcome is unknown. "
    "With a pinned server also a key that it does not know: that refusal nobody has signed",
    Exit.TIMEOUT: "waited in vain; the work goes on",
    Exit.CONFLICT: "it exists already, or its state does not allow this",
    Exit.UNAVAILABLE: "the server is there, but cannot do it now: busy, paused, out of disk",
    Exit.NOT_STARTED: "a program could not start: port taken, store open elsewhere",
    Exit.BUG: "a fault of ours, with a traceback",
    Exit.INTERRUPTED: "Ctrl-C",
}

_BY_STATUS: Final = {
    403: Exit.REFUSED,
    404: Exit.NOT_FOUND,
    408: Exit.UNAVAILABLE,
    409: Exit.CONFLICT,
    429: Exit.UNAVAILABLE,
}
_FIRST_SERVER_ERROR: Final = 500


class CliError(Exception):
    """One line for a person, and the exit code."""

    def __init__(self, exit: Exit, line: str) -> None:
        super().__init__(line)
        self.exit = exit


def verdict(error: BaseException) -> CliError | None:
    """What to tell about an error; None when it is a fault of ours."""
    from colonist_client.failure import ServerError
    from colonist_client.transport import UnreachableError
    from colonist_protocol.errors import ColonistError

    match innermost(error):
        case CliError() as told:
            return told
        case ServerError() as refusal:
            return CliError(of_status(refusal.status), in_line(str(refusal)))
        case UnreachableError() as lost:
            return CliError(Exit.UNREACHABLE, in_line(str(lost)))
        case ColonistError() as bad:
            return CliError(of_status(bad.status), in_line(str(bad)))
        case _:
            return None


def innermost(error: BaseException) -> BaseException:
    """The one error inside the groups that task groups wrap around it."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return innermost(group.exceptions[0])


def of_status(status: int) -> Exit:
    """The exit code of a status as in HTTP."""
    if status >= _FIRST_SERVER_ERROR:
        return Exit.UNAVAILABLE
    return _BY_STATUS.get(status, Exit.USAGE)


def in_line(text: str) -> str:
    """What others said, as one line."""
    return " ".join(text.split())
