"""Crons, which start workflows at set times: COLONIES-RPC sections 2.8, 3.11 and 4.8."""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_protocol.errors import InvalidValueError, TooLargeError
from colonist_protocol.message import Int, Message
from colonist_protocol.names import check_text
from colonist_protocol.times import UNSET

OFF: Final = -1
"""The interval of a cron that has an expression instead."""
MAX_LIST: Final = 1000
MAX_INTERVAL_S: Final = 100 * 365 * 86_400
MAX_SPEC_BYTES: Final = 262_144
MAX_CRONS: Final = 1000
"""Crons of one colony."""
CHECKER_PERIOD_MS: Final = 1000
"""What the reference answers; nothing is checked periodically here."""


class Cron(msgspec.Struct, frozen=True, kw_only=True):
    """A cron; `workflowspec` is a text that holds the JSON of a workflow spec.

    An `interval` in seconds of 1 or more, or -1 and a `cronexpression`. pycolonies writes the name
    of the flag to wait as `waitforprevprocessgrap`. `disabledreason`, ours: why it starts nothing
    any more.
    """

    cronid: str = ""
    initiatorid: str = ""
    initiatorname: str = ""
    colonyname: str = ""
    name: str = ""
    cronexpression: str = ""
    interval: Int = 0
    random: bool = False
    nextrun: str = UNSET
    lastrun: str = UNSET
    workflowspec: str = ""
    prevprocessgraphid: str = ""
    waitforprevprocessgraph: bool = False
    checkerperiod: Int = 0
    waitforprevprocessgrap: bool | msgspec.UnsetType = msgspec.UNSET
    disabledreason: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def waits(self) -> bool:
        """Whether a run waits for the end of the one before, in either spelling."""
        return self.waitforprevprocessgraph or self.waitforprevprocessgrap is True


class AddCron(Message, tag="addcronmsg"):
    """Make a cron, which starts a workflow at set times; the reply tells the first of them."""

    cron: Cron


class GetCron(Message, tag="getcronmsg"):
    """Read one cron."""

    cronid: str = ""


class GetCrons(Message, tag="getcronsmsg"):
    """List crons, oldest first."""

    colonyname: str = ""
    count: Int = 0


class RunCron(Message, tag="runcronmsg"):
    """Start a cron's workflow now; the reply is the cron as it was before."""

    cronid: str = ""


class RemoveCron(Message, tag="removecronmsg"):
    """Remove a cron; workflows that it started go on. `all` means nothing."""

    cronid: str = ""
    all: bool = False


def check(cron: Cron) -> None:
    """Raise `InvalidValueError` or `TooLargeError`; what the expression says is not looked at."""
    check_text(cron.cronexpression, "cron expression")
    if cron.interval != OFF and not 1 <= cron.interval <= MAX_INTERVAL_S:
        if cron.interval > MAX_INTERVAL_S:
            raise InvalidValueError(f"Cron interval must be at most {MAX_INTERVAL_S} seconds")
        raise InvalidValueError("Cron interval must be -1 (disabled) or larger than 0")
    if cron.random and cron.interval == OFF:
        raise InvalidValueError("Random cron is only supported when specifying intervals")
    if len(cron.workflowspec.encode()) > MAX_SPEC_BYTES:
        raise TooLargeError(f"a workflowspec of more than {MAX_SPEC_BYTES} bytes")


MESSAGES: Final = (AddCron, GetCron, GetCrons, RunCron, RemoveCron)
