"""Messages of `GET /pubsub`: COLONIES-RPC section 1.8; and reads that wait for a change.

A handler checks what is ordered and answers with the order; the way in opens it, since only there
is something to send events to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

from colonist_protocol import subscription as wire
from colonist_protocol.errors import ConflictError, InvalidValueError
from colonist_protocol.message import Message
from colonist_protocol.process import State
from colonist_server.repo.nouns import Executor
from colonist_server.repo.subscriptions import check_follower
from colonist_server.repo.topics import Follower, Order
from colonist_server.rpc.rooms import Call, Reply, Rooms

_STATES: Final = frozenset({wire.ANY_STATE, *State})


async def process(rooms: Rooms, call: Call, message: wire.SubscribeProcess) -> Reply:
    """Order the changes of one process; its type is known here, whatever the message says."""
    pid = bytes.fromhex(message.processid)
    return Reply(_order(rooms, call, message, pid, ""))


async def processes(rooms: Rooms, call: Call, message: wire.SubscribeProcesses) -> Reply:
    """Order the changes of a colony's processes."""
    return Reply(_order(rooms, call, message, None, message.executortype))


async def again(rooms: Rooms, call: Call, message: Message, value: bytes) -> Reply:
    """Refuse a sealed order that was presented before.

    Two streams of one order would number different events alike, and whoever carries both could
    put them together so that its caller misses none of the numbers, but some of the events.
    """
    del rooms, call, message, value
    raise ConflictError(
        "this sealed order was presented before and gives events once: seal another"
    )


def _order(
    rooms: Rooms,
    call: Call,
    message: wire.SubscribeProcess | wire.SubscribeProcesses,
    pid: bytes | None,
    type: str,
) -> Order:
    if message.state not in _STATES:
        raise InvalidValueError(f"no such state: {message.state}")
    is_sealed = call.seal is not None
    order = Order(call.colony, call.cause.who, pid, message.state, type, message.timeout, is_sealed)
    rooms.subscriptions.check_room(order)  # before it is taken: it can be presented once
    return order


async def while_in(rooms: Rooms, call: Call, pid: bytes, state: int, timeout_s: int) -> None:
    """Return when a process is in another state, or in another attempt, or the time is up.

    Raises `AccessError` when the caller is no member any more, or `PlainRefusedError`.
    """
    row = rooms.view.rows.get(pid)
    if row is None or timeout_s <= 0:
        return
    attempt, follower = row.live().attempt, Follower(call.cause.who, call.seal is not None)
    with suppress(TimeoutError), _present(rooms, call):
        async with asyncio.timeout(min(timeout_s, wire.MAX_TIMEOUT_S)):
            while (
                rooms.view.rows.get(pid) is row
                and row.state == state
                and row.live().attempt == attempt
                and not rooms.subscriptions.is_closing
            ):
                await rooms.subscriptions.changed(call.colony, pid, follower)
                check_follower(call.colony, follower)


@contextmanager
def _present(rooms: Rooms, call: Call) -> Generator[None]:
    """An executor that waits is there."""
    executor = call.caller
    if not isinstance(executor, Executor):
        yield
        return
    executor.asking += 1
    try:
        yield
    finally:
        executor.asking -= 1
        if executor.record.id == call.cause.who:
            executor.heard_ns = rooms.clock.now_ns()
