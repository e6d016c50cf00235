"""Claims and cards for tests, and devices that enrol by them."""

from __future__ import annotations

import hashlib
from typing import Any

from colonist_protocol import claims
from colonist_protocol.claims import AddClaim, Approval, Enrol
from colonist_protocol.envelope import Failure
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_server.rpc.dispatch import Dispatch
from tests.support import sealing
from tests.support.rooms import COLONY, COLONY_OWNER, EPOCH_NS, Bench

HOUR_MS = 3_600_000
START_MS = EPOCH_NS // 1_000_000


def code_of(name: str) -> str:
    """The same code for the same name."""
    return claims.make_code(hashlib.sha3_256(name.encode()).digest()[:16])


def claim_of(
    code: str,
    *,
    count: int = 1,
    type: str = "sensor",
    hours: int = 24,
    from_ms: int = START_MS,
    **more: Any,
) -> AddClaim:
    return AddClaim(
        colonyname=COLONY,
        claim=claims.claim_key(code).id,
        executortype=type,
        count=count,
        expires=from_ms + hours * HOUR_MS,
        **more,
    )


async def open_claim(made: Bench, name: str = "card", **more: Any) -> str:
    """Let executors enrol by a code."""
    code = code_of(name)
    now_ms = made.rooms.clock.now_ns() // 1_000_000
    await made.call(claim_of(code, from_ms=now_ms, **more), COLONY_OWNER)
    return code


def enrol_of(
    dispatch: Dispatch, code: str, device: Identity, hw: str = "", **changes: Any
) -> Enrol:
    """The message by which a device enrols."""
    server = dispatch.rooms.server_keys.id
    said: dict[str, Any] = {
        "colonyname": COLONY,
        "claim": claims.claim_key(code).id,
        "executorid": device.id,
        "hw": hw or f"board of {device.id[:8]}",
        "proof": claims.prove(code, server=server, colony=COLONY, executor=device.id),
    }
    return Enrol(**{**said, **changes})


async def enrol(
    dispatch: Dispatch, code: str, device: Identity, hw: str = "", **changes: Any
) -> Any:
    """The executor as it is shown, or the failure; both under a good seal."""
    message = enrol_of(dispatch, code, device, hw, **changes)
    return await say(dispatch, message, device)


async def say(dispatch: Dispatch, message: Message, device: Identity) -> Any:
    """Present a message under a seal of now."""
    return (await sealing.present(dispatch, sealing.of_now(dispatch, message, device)))[0]


def failed(reply: Any, code: str, words: str = "") -> bool:
    """Whether a reply is that failure."""
    assert isinstance(reply, Failure), reply
    return reply.code == code and words in reply.message


PERSON = Approval.PERSON
