"""Everybody does everything at once, on a real store: nothing breaks, and the books are right."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from colonist_core.process import Closed, Event, Live, What, step
from colonist_protocol import codec, envelope
from colonist_protocol.colony import PauseAssignments, ResumeAssignments
from colonist_protocol.envelope import Failure
from colonist_protocol.evidence import EventLine, event_hash
from colonist_protocol.executor import ApproveExecutor, RejectExecutor
from colonist_protocol.identity import Identity, digest
from colonist_protocol.log import AddLog
from colonist_protocol.message import Message
from colonist_protocol.process import (
    FINAL,
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
    Birth,
    decode_birth,
    decode_closed,
    decode_ended,
    decode_live,
)
from tests.server.house import House, house
from tests.server.people import attribute_of, function_of, submit_of
from tests.support.rooms import COLONY, COLONY_OWNER, key

WORKERS = [f"worker {number}" for number in range(6)]
ROUNDS = 40
EVENTS = msgspec.msgpack.Decoder(tuple[Event, ...])


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


def check_books(stored: dict[bytes, bytes]) -> None:
    """Every process is in one state, its chain is whole, what was removed left nothing behind."""
    births = {
        name[2:]: decode_birth(value)
        for name, value in stored.items()
        if name.startswith(keys.BIRTH)
    }
    lives = {
        name[2:]: decode_live(value) for name, value in stored.items() if name.startswith(keys.LIVE)
    }
    ends = {
        name[2:]: decode_closed(value)
        for name, value in stored.items()
        if name.startswith(keys.CLOSED)
    }
    listed = {
        name[-keys.PID_BYTES :]: (keys.state_of_ended(name), decode_ended(value))
        for name, value in stored.items()
        if name.startswith(keys.ENDED)
    }
    assert not lives.keys() & ends.keys()
    assert lives.keys() | ends.keys() == births.keys()
    assert {pid: closed.live.state for pid, closed in ends.items()} == {
        pid: state for pid, (state, _) in listed.items()
    }
    for pid, birth in births.items():
        found: Live | Closed = lives.get(pid) or ends[pid]
        live = found.live if isinstance(found, Closed) else found
        check_chain(pid, birth, live, stored)
        assert (live.state in FINAL) == isinstance(found, Closed)
    for prefix in (keys.OUTPUT, keys.ATTRIBUTE, keys.EVENTS):
        owners = {name[2 : 2 + keys.PID_BYTES] for name in stored if name.startswith(prefix)}
        assert owners <= births.keys(), prefix
    assert {value for name, value in stored.items() if name.startswith(b"ai/")} <= births.keys()


def check_chain(pid: bytes, birth: Birth, live: Live, stored: dict[bytes, bytes]) -> None:
    """The events from the birth on lead to the state and the head, each by a legal step."""
    moved = [
        event
        for name in sorted(stored)
        if name.startswith(keys.events_of(pid))
        for event in EVENTS.decode(stored[name])
    ]
    state, attempt = State.WAITING, 0
    line = EventLine(
        chain=pid.hex(),
        n=0,
        what="submitted",
        who=birth.initiator_id,
        attempt=0,
        time=birth.submitted_ns // 1_000_000,
        req=_digest(birth.payload).hex(),
        sig=birth.signature.hex(),
        prev="",
    )
    for number, event in enumerate([*moved, *live.events], 1):
        state = step(state, What(event.what))
        attempt += event.what == What.ASSIGNED
        assert event.attempt == attempt
        line = EventLine(
            chain=pid.hex(),
            n=number,
            what=What(event.what).name.lower(),
            who=event.who.hex(),
            attempt=attempt,
            time=event.time_ms,
            req=event.digest.hex(),
            sig=event.signature.hex(),
            prev=event_hash(line).hex(),
        )
    assert (live.state, live.attempt, live.count) == (state, attempt, line.n + 1)
    assert live.head == event_hash(line)


def _digest(payload: bytes) -> bytes:
    return digest(codec.to_base64(payload).encode())
