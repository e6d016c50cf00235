"""Store invariants 5 and 6, in virtual time: work and workers that fit never both wait.

Whatever the order of park, submit, close, disconnect, pause, approve, reject, expiry and removal.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from colonist_core.matching import fits
from colonist_core.process import What
from colonist_protocol.colony import PauseAssignments, ResumeAssignments
from colonist_protocol.executor import ApproveExecutor, RejectExecutor
from colonist_protocol.process import CancelProcess, State
from colonist_server.repo import keys
from colonist_server.repo.records import decode_closed, decode_live
from tests.support.clock import VirtualLoop
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, Refused, bench, key, settle

EXECUTORS = ["e1", "e2", "e3"]
EXECUTOR = st.sampled_from(EXECUTORS)


class Case(RuleBasedStateMachine):
    """One server, three executors, any order of events."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.polls: list[asyncio.Task[Any]] = []
        self.stopping = asyncio.Event()
        self.delivered: set[str] = set()
        self.refusals: set[str] = set()
        self.approved = dict.fromkeys(EXECUTORS, True)

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def start(self) -> None:
        # The rooms' task group belongs to the task that entered it.
        self.home = self.runner.get_loop().create_task(self._live())
        self.run(settle())

    async def _live(self) -> None:
        self.store = MemoryStore()
        async with bench(self.store) as self.bench:
            await self.bench.found(*EXECUTORS)
            await self.stopping.wait()
            self.bench.rooms.hand_over.close()
            await settle()

    def teardown(self) -> None:
        async def end() -> None:
            for poll in self.polls:
                poll.cancel()
            self.stopping.set()
            await self.home

        self.run(end())
        self.runner.close()

    @rule(name=EXECUTOR, timeout=st.integers(1, 20))
    def ask(self, name: str, timeout: int) -> None:
        async def park() -> None:
            self.polls.append(asyncio.create_task(self._ask(name, timeout)))
            await settle()

        self.run(park())

    async def _ask(self, name: str, timeout: int) -> None:
        try:
            process = await self.bench.assign(name, timeout)
            self.delivered.add(process.processid)
        except Refused as refused:
            self.refusals.add(refused.failure.code)

    @rule(
        names=st.lists(EXECUTOR, max_size=2), limit=st.sampled_from([0, 3]), parallel=st.booleans()
    )
    def submit(self, names: list[str], limit: int, parallel: bool) -> None:
        async def act() -> None:
            calls = [
                self.bench.submit("e1", executornames=names, maxexectime=limit, maxretries=1)
                for _ in range(1 + parallel)
            ]
            await asyncio.gather(*calls, return_exceptions=True)
            await settle()

        self.run(act())

    @rule(position=st.integers(0, 5))
    def disconnect(self, position: int) -> None:
        async def act() -> None:
            if position < len(self.polls):
                self.polls.pop(position).cancel()
            await settle()

        self.run(act())

    @rule(position=st.integers(0, 5), steps=st.integers(0, 12), name=EXECUTOR)
    def disconnect_during_submit(self, position: int, steps: int, name: str) -> None:
        async def act() -> None:
            submit = asyncio.create_task(self._submit(name))
            await settle(steps)
            if position < len(self.polls):
                self.polls.pop(position).cancel()
            await submit
            await settle()

        self.run(act())

    @rule(steps=st.integers(0, 12), name=EXECUTOR)
    def submitter_leaves(self, steps: int, name: str) -> None:
        async def act() -> None:
            submit = asyncio.create_task(self._submit(name))
            await settle(steps)
            submit.cancel()
            await asyncio.gather(submit, return_exceptions=True)
            await settle()

        self.run(act())

    async def _submit(self, name: str) -> None:
        try:
            await self.bench.submit(name)
        except Refused as refused:
            assert refused.failure.code == "access_denied"

    @rule(success=st.booleans())
    def finish_one(self, success: bool) -> None:
        del success

        async def act() -> None:
            for row in list(self.bench.colony.running.values())[:1]:
                name = self.bench.colony.members[row.live().executor].name
                try:
                    await self.bench.close(name, row.id)
                except Refused as refused:
                    assert refused.failure.code == "access_denied"
            await settle()

        self.run(act())

    @rule()
    def cancel_one(self) -> None:
        async def act() -> None:
            for row in list(self.bench.rooms.view.rows.values())[:1]:
                for name in EXECUTORS:
                    if self.approved[name]:
                        await self.bench.call(CancelProcess(processid=row.id), key(name))
                        break
            await settle()

        self.run(act())

    @rule(pause=st.booleans())
    def pause_or_resume(self, pause: bool) -> None:
        message = PauseAssignments if pause else ResumeAssignments

        async def act() -> None:
            await self.bench.call(message(colonyname=COLONY), COLONY_OWNER)
            await settle()

        self.run(act())

    @rule(name=EXECUTOR, approve=st.booleans())
    def approve_or_reject(self, name: str, approve: bool) -> None:
        message = ApproveExecutor if approve else RejectExecutor

        async def act() -> None:
            await self.bench.call(message(colonyname=COLONY, executorname=name), COLONY_OWNER)
            self.approved[name] = approve
            await settle()

        self.run(act())

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        async def act() -> None:
            await asyncio.sleep(seconds)
            await settle()

        self.run(act())

    @invariant()
    def nobody_waits_for_each_other(self) -> None:
        colony = self.bench.colony
        if colony.record.is_paused:
            return
        room = self.bench.rooms.hand_over._room(colony)
        for waiter in room.everyone():
            assert waiter.ask.is_allowed
            for row in colony.queue:
                assert not fits(row.placement, waiter.profile)

    @invariant()
    def asking_fails_for_good_reasons_only(self) -> None:
        assert self.refusals <= {"no_process", "paused_timeout", "access_denied"}

    @invariant()
    def no_claim_is_left_over(self) -> None:
        rows = self.bench.rooms.view.rows.values()
        assert not [row for row in rows if row.claimed]
        waiting = [row for row in rows if row.state == State.WAITING]
        assert len(waiting) == len(self.bench.colony.queue) == self.bench.colony.waiting

    @invariant()
    def what_runs_was_delivered(self) -> None:
        """Also when the executor left at any await: the assignment went back."""
        running = {row.id for row in self.bench.colony.running.values()}
        assert running <= self.delivered

    @invariant()
    def attempts_and_events_have_no_gap(self) -> None:
        """Invariant 5, and each process is in exactly one of live and closed."""
        seen: Counter[bytes] = Counter()
        for item in self.store._items.values():
            if item.key.startswith(keys.LIVE):
                live = decode_live(item.value)
            elif item.key.startswith(keys.CLOSED):
                live = decode_closed(item.value).live
            else:
                continue
            seen[item.key[2:]] += 1
            assigned = [event.attempt for event in live.events if event.what == What.ASSIGNED]
            assert assigned == list(range(1, live.attempt + 1))
            assert live.count == len(live.events) + 1
        assert all(count == 1 for count in seen.values())


def test_work_and_workers_that_fit_never_both_wait() -> None:
    run_state_machine_as_test(
        Case, settings=settings(max_examples=250, stateful_step_count=40, deadline=None)
    )
