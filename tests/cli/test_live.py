"""Events go on over lost connections, in virtual time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self, cast

import pytest

from colonist_cli.live import STEADY_S, Event, Joined, Lost, events
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff
from colonist_client.subscriptions import Ended, StreamEndedError, Subscription
from colonist_client.transport import NotSentError
from colonist_protocol.envelope import Failure
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import Process, State
from tests.support.clock import virtual

LOST = StreamEndedError(Ended(1006, "the connection was lost"))
AWAY = NotSentError("no connection")


def process(state: int) -> Process:
    return Process(
        processid="1" * 64,
        initiatorid="",
        initiatorname="",
        assignedexecutorid="",
        isassigned=False,
        state=state,
        prioritytime=0,
        submissiontime="",
        spec=FunctionSpec(funcname="f"),
    )


class Script:
    """A server that does as it is told: one list for each connection."""

    def __init__(self, *connections: list[Any]) -> None:
        self.connections = list(connections)
        self.at: list[float] = []

    def subscribe(self) -> Subscription:
        self.at.append(asyncio.get_running_loop().time())
        return cast("Subscription", _Scripted(self.connections.pop(0)))


class _Scripted:
    def __init__(self, steps: list[Any]) -> None:
        self._steps = steps

    async def __aenter__(self) -> Self:
        if self._steps and self._steps[0] is AWAY:
            raise AWAY
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[Process]:
        for step in self._steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                yield step


BACKOFF = Backoff(uniform=lambda _low, high: high, base_s=1.0, cap_s=8.0)


async def heard(script: Script, *, is_one: bool = False) -> list[Event]:
    """All events until the script has no more connections."""
    found: list[Event] = []
    source = events(script.subscribe, BACKOFF, is_one=is_one)
    with contextlib.suppress(IndexError):
        async with contextlib.aclosing(source):
            async for event in source:
                found += [event]
    return found


@virtual
async def test_it_connects_again_and_says_for_how_long_it_was_away() -> None:
    script = Script([process(0), LOST], [AWAY], [AWAY], [process(1), LOST])
    found = await heard(script)
    assert [type(event) for event in found] == [Joined, Process, Lost, Joined, Process, Lost]
    assert found[0] == Joined(None)
    assert found[2] == Lost(str(LOST))
    assert getattr(found[3], "away_s", None) == pytest.approx(1 + 2 + 4, abs=0.01)
    assert [round(at, 2) for at in script.at[:4]] == [0, 1, 3, 7]


@virtual
async def test_a_connection_that_stood_long_starts_the_pauses_anew() -> None:
    script = Script([LOST], [AWAY], [STEADY_S + 1, LOST], [LOST])
    await heard(script)
    left = script.at[2] + STEADY_S + 1
    assert script.at[3] - left == pytest.approx(1.0, abs=0.01)


@virtual
async def test_a_server_that_ends_them_at_once_is_not_asked_in_a_circle() -> None:
    script = Script([], [], [], [])
    await heard(script)
    assert [round(at, 2) for at in script.at[:4]] == [0, 1, 3, 7]


@virtual
async def test_the_end_of_one_process_is_the_end() -> None:
    script = Script([process(0), process(State.SUCCESS), process(0)], [])
    found = await heard(script, is_one=True)
    assert [getattr(event, "state", None) for event in found] == [None, 0, State.SUCCESS]
    assert len(script.connections) == 1


@virtual
async def test_the_first_connection_must_come_about() -> None:
    with pytest.raises(NotSentError):
        await heard(Script([AWAY]))


@virtual
async def test_what_is_refused_for_good_is_raised_and_what_may_pass_is_not() -> None:
    refused = ServerError(Failure(status=403, message="no", code="access_denied", retry_after_s=0))
    busy = ServerError(Failure(status=429, message="busy", code="busy", retry_after_s=30))
    script = Script([busy], [refused])
    with pytest.raises(ServerError) as told:
        await heard(script)
    assert told.value.status == 403
    assert script.at[1] >= 30
