"""How the end of a subscription is told on a WebSocket: docs/reference/subscriptions.md."""

from __future__ import annotations

from typing import Final, NamedTuple

from aiohttp import WSCloseCode

from colonist_protocol.errors import (
    AccessError,
    BusyError,
    ColonistError,
    NotFoundError,
    PlainRefusedError,
    UnavailableError,
)
from colonist_server.repo.delivery import SEALED_RATE
from colonist_server.repo.plain import MUST_BE_SEALED
from colonist_server.repo.topics import Ending


class Farewell(NamedTuple):
    """An error frame, if any, then the close frame."""

    code: int
    reason: str
    error: ColonistError | None = None


FAREWELLS: Final = {
    Ending.DONE: Farewell(WSCloseCode.OK, "the process has ended"),
    Ending.TIME_IS_UP: Farewell(WSCloseCode.OK, "the time is up"),
    Ending.REMOVED: Farewell(
        WSCloseCode.OK, "the process was removed", NotFoundError("the process was removed")
    ),
    Ending.REFUSED: Farewell(
        WSCloseCode.POLICY_VIOLATION,
        "not a member any more",
        AccessError("Access denied, not a member of the colony any more"),
    ),
    Ending.PLAIN_REFUSED: Farewell(
        WSCloseCode.POLICY_VIOLATION,
        "only sealed orders are taken now",
        PlainRefusedError(MUST_BE_SEALED),
    ),
    Ending.BEHIND: Farewell(
        WSCloseCode.TRY_AGAIN_LATER,
        "events were missed",
        UnavailableError("events were missed: list what is of interest and subscribe again"),
    ),
    Ending.TOO_MANY: Farewell(
        WSCloseCode.TRY_AGAIN_LATER,
        "too many sealed events",
        BusyError(
            f"more than {SEALED_RATE.per_s} sealed events a second for one caller: events were "
            "missed; follow less, or with fewer subscriptions",
            retry_after_s=SEALED_RATE.burst / SEALED_RATE.per_s,
        ),
    ),
    Ending.UNREADABLE: Farewell(
        WSCloseCode.TRY_AGAIN_LATER,
        "the store cannot be read",
        UnavailableError("the store cannot be read now: subscribe again"),
    ),
    Ending.CLOSING: Farewell(WSCloseCode.GOING_AWAY, "the server stops"),
}
TOO_SLOW: Final = Farewell(
    WSCloseCode.TRY_AGAIN_LATER,
    "events are not read fast enough",
    BusyError("events are not read fast enough: this connection is dropped"),
)
REFUSED: Final = Farewell(WSCloseCode.POLICY_VIOLATION, "see the error before")
NO_ORDER: Final = Farewell(WSCloseCode.POLICY_VIOLATION, "no order came in time")
