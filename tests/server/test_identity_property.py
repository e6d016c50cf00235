"""Any interleaving of change, assign, close and restart: whoever holds the key now may close."""

from __future__ import annotations

import asyncio

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from colonist_protocol.executor import ChangeExecutorId
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import AssignProcess, CloseSuccessful, Process
from colonist_server.rpc.dispatch import Answer
from tests.server.people import World, crashing, world
from tests.support.clock import run_virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, key

POOL = [key(f"pool {n}") for n in range(5)]
NAMES = ("ada", "ben")

WHO = st.sampled_from(NAMES)
KEYS = st.sampled_from(POOL)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), WHO, KEYS),
        st.tuples(st.just("assign"), WHO),
        st.tuples(st.just("close"), KEYS),
        st.tuples(st.just("change and close at once"), WHO, KEYS),
        st.tuples(st.just("change and assign at once"), WHO, KEYS),
        st.tuples(st.just("restart"), st.booleans()),
    ),
    max_size=14,
)


class Model:
    """What must be so: who holds which key, who had which, whose is what runs."""

    def __init__(self) -> None:
        self.holds: dict[str, Identity] = {name: key(name) for name in NAMES}
        self.had: dict[str, set[str]] = {name: set() for name in NAMES}
        self.runs: list[tuple[str, str]] = []

    def may_take(self, name: str, id: str) -> bool:
        others = [other for other in NAMES if other != name]
        return all(id != self.holds[other].id and id not in self.had[other] for other in others)

    def take(self, name: str, new: Identity) -> None:
        self.had[name].add(self.holds[name].id)
        self.holds[name] = new
        self.had[name].discard(new.id)

    def holder(self, id: str) -> str:
        return next((name for name in NAMES if self.holds[name].id == id), "")


class Run:
    """Steps on a server, checked against the model."""

    def __init__(self, store: MemoryStore, model: Model) -> None:
        self.store = store
        self.model = model

    async def all(self, steps: list[tuple[object, ...]]) -> None:
        rest = steps
        is_first = True
        while True:
            stop = next((n for n, step in enumerate(rest) if step[0] == "restart"), len(rest))
            is_crash = stop < len(rest) and bool(rest[stop][1])
            opened = crashing if is_crash else world
            async with opened(self.store) as made:
                if is_first:
                    await made.found(*NAMES)
                    await made.enrol("uma")
                    for _ in range(12):
                        await made.submit("uma")
                is_first = False
                for kind, *given in rest[:stop]:
                    await getattr(self, str(kind).replace(" ", "_"))(made, *given)
                if stop == len(rest):
                    await self.finish(made)
                    return
            rest = rest[stop + 1 :]

    async def change(self, made: World, name: str, new: Identity) -> None:
        answer = await made.answer(_change(new), self.model.holds[name])
        self._changed(answer, name, new)

    def _changed(self, answer: Answer, name: str, new: Identity) -> None:
        assert (answer.status == 200) is self.model.may_take(name, new.id), answer.body
        if answer.status == 200 and new.id != self.model.holds[name].id:
            self.model.take(name, new)

    async def assign(self, made: World, name: str) -> None:
        self._assigned(await made.process(_ASSIGN, self.model.holds[name]), name)

    def _assigned(self, process: Process, name: str) -> None:
        id = process.processid
        if (id, name) not in self.model.runs:  # else it was in doubt, and is given again
            assert all(each != id for each, _ in self.model.runs)
            self.model.runs.append((id, name))

    async def close(self, made: World, by: Identity) -> None:
        for id, name in list(self.model.runs):
            answer = await made.answer(_close(id), by)
            assert (answer.status == 200) is (self.model.holder(by.id) == name), answer.body
            if answer.status == 200:
                self.model.runs.remove((id, name))

    async def change_and_close_at_once(self, made: World, name: str, new: Identity) -> None:
        mine = next((id for id, owner in self.model.runs if owner == name), None)
        if mine is None:
            return
        old = self.model.holds[name]
        changed, closed = await asyncio.gather(
            made.answer(_change(new), old), made.answer(_close(mine), old)
        )
        self._changed(changed, name, new)
        assert closed.status in (200, 403)
        if closed.status == 200:
            self.model.runs.remove((mine, name))

    async def change_and_assign_at_once(self, made: World, name: str, new: Identity) -> None:
        old = self.model.holds[name]
        given, changed = await asyncio.gather(
            made.answer(_ASSIGN, old), made.answer(_change(new), old)
        )
        assert given.status in (200, 403)
        self._changed(changed, name, new)
        for row in made.colony.running.values():
            if all(id != row.id for id, _ in self.model.runs):
                self.model.runs.append((row.id, name))

    async def finish(self, made: World) -> None:
        """Nobody else may close what runs; whoever holds the key may."""
        for id, name in self.model.runs:
            for by in (*POOL, *map(key, NAMES)):
                if by.id != self.model.holds[name].id:
                    assert (await made.answer(_close(id), by)).status == 403
            assert (await made.answer(_close(id), self.model.holds[name])).status == 200


_ASSIGN = AssignProcess(colonyname=COLONY, timeout=-1)


def _change(new: Identity) -> Message:
    return ChangeExecutorId(colonyname=COLONY, executorid=new.id)


def _close(id: str) -> Message:
    return CloseSuccessful(processid=id, out=msgspec.Raw(b"[1]"))


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_w15_exactly_the_holder_of_the_key_can_close(steps: list[tuple[object, ...]]) -> None:
    async def main() -> None:
        async with MemoryStore() as store:
            await Run(store, Model()).all(steps)

    run_virtual(main())
