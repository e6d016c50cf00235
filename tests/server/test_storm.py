"""Everybody does everything at once, on a real store: nothing breaks, and the books are right."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from colonist_protocol import codec, envelope
from colonist_protocol.colony import PauseAssignments, ResumeAssignments
from colonist_protocol.envelope import Failure
from colonist_protocol.executor import ApproveExecutor, RejectExecutor
from colonist_protocol.identity import Identity
from colonist_protocol.log import AddLog
from colonist_protocol.message import Message
from colonist_protocol.process import (
    AssignProcess,
    CancelProcess,
    CloseFailed,
    CloseSuccessful,
    GetProcess,
    GetProcesses,
    RemoveAllProcesses,
    RemoveProcess,
    SetOutput,
    State,
)
from colonist_server.repo import keys
from colonist_server.repo.records import (
    decode_live,
)
from tests.server.house import House, house
from tests.server.people import attribute_of, function_of, submit_of
from tests.support.books import check_books
from tests.support.rooms import COLONY, COLONY_OWNER, key

WORKERS = [f"worker {number}" for number in range(6)]
ROUNDS = 40


class Storm:
    """Random requests; counts what they were answered."""

    def __init__(self, home: House, seed: int) -> None:
        self.home = home
        self.random = random.Random(seed)
        self.answers: Counter[str] = Counter()
        self.ids: list[str] = []

    async def ask(self, message: Message, identity: Identity) -> bytes | None:
        """One request; the reply, or None for a refusal, which must be a sensible one."""
        answer = await self.home.answer(message, identity)
        reply = envelope.parse_reply(answer.body)
        if isinstance(reply, Failure):
            self.answers[reply.code] += 1
            assert reply.status not in (500, 503) or reply.code == "paused", reply
            return None
        self.answers["ok"] += 1
        return reply

    async def member(self, name: str) -> None:
        """One executor's busy day: it also meddles with what is others'."""
        identity = key(name)
        for _ in range(ROUNDS):
            await self.ask(self._message(name), identity)
            await self.ask(submit_of(), identity)
            timeout = self.random.choice([-1, -1, -1, -1, -1, -1, 1])
            reply = await self.ask(AssignProcess(colonyname=COLONY, timeout=timeout), identity)
            if reply is None:
                continue
            id = codec.scan(reply)["processid"]
            self.ids.append(id)
            both = [self._ending(id), self._ending(id), self._work(id), self._work(id)]
            async with asyncio.TaskGroup() as group:
                for message in both[: self.random.randint(0, 4)]:
                    group.create_task(self.ask(message, identity))

    def _message(self, name: str) -> Message:
        some = self.random.choice(self.ids) if self.ids else "ab" * 32
        return self.random.choice(
            [
                submit_of(maxexectime=self.random.choice([0, 1]), maxretries=2, env={"E": "1"}),
                submit_of(executornames=self.random.sample(WORKERS, 2)),
                submit_of(priority=self.random.randint(-3, 3), cpu="1", maxwaittime=1),
                CancelProcess(processid=some),
                RemoveProcess(processid=some),
                GetProcess(processid=some),
                GetProcesses(colonyname=COLONY, count=100, state=self.random.randint(0, 4)),
                function_of(name),
            ]
        )

    def _work(self, id: str) -> Message:
        return self.random.choice(
            [
                AddLog(processid=id, message="m"),
                attribute_of(id, f"k{self.random.randint(0, 2)}"),
                SetOutput(processid=id, out=msgspec.Raw(b'["half"]')),
            ]
        )

    def _ending(self, id: str) -> Message:
        return self.random.choice(
            [
                CloseSuccessful(processid=id, out=msgspec.Raw(b'["done"]')),
                CloseFailed(processid=id, errors=["e"]),
                CancelProcess(processid=id),
            ]
        )

    async def owner(self) -> None:
        """The owner's whims."""
        for _ in range(ROUNDS):
            name = self.random.choice(WORKERS)
            for message in self.random.choice(
                [
                    [PauseAssignments(colonyname=COLONY), ResumeAssignments(colonyname=COLONY)],
                    [
                        RejectExecutor(colonyname=COLONY, executorname=name),
                        ApproveExecutor(colonyname=COLONY, executorname=name),
                    ],
                    [RemoveAllProcesses(colonyname=COLONY, state=self.random.choice([0, 3]))],
                    [submit_of()],
                ]
            ):
                await self.ask(message, COLONY_OWNER)


@pytest.mark.parametrize("number", range(2))
async def test_after_a_storm_the_books_are_right(tmp_path: Path, number: int, seed: int) -> None:
    async with house(tmp_path) as home:
        await home.found(*WORKERS)
        storm = Storm(home, seed + number)
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.owner())
            for name in WORKERS:
                group.create_task(storm.member(name))
        assert storm.answers["ok"] > ROUNDS * 2
        assert {"conflict", "not_found"} <= set(storm.answers)
        await _until_quiet(home)
        check_books(await home.dump())
        before = await _counts(home)
    async with house(tmp_path) as home:
        assert await _counts(home) == before


async def _until_quiet(home: House) -> None:
    """Until no deadline is left that would ring meanwhile."""
    async with asyncio.timeout(20):
        while any(row.deadline_ns for row in home.rooms.view.rows.values()):
            await home.request("GET", "/livez")


async def _counts(home: House) -> dict[str, int]:
    """What is counted, compared with what is stored."""
    message = GetProcesses(colonyname=COLONY, count=1)
    await home.call(message, key(WORKERS[0]))
    colony = home.colony
    stored = await home.dump()
    closed = [keys.state_of_ended(name) for name in stored if name.startswith(keys.ENDED)]
    assert colony.closed == [closed.count(state) for state in State]
    live = [decode_live(value) for name, value in stored.items() if name.startswith(keys.LIVE)]
    states = [each.state for each in live]
    assert colony.waiting == len(colony.queue) == states.count(State.WAITING)
    assert len(colony.running) == states.count(State.RUNNING)
    runs = sum(function.tally.counter for function in colony.functions.values())
    return {"runs": runs, **{state.name: closed.count(state) for state in State}}
