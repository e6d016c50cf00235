"""Commits on their way: many share a transaction, each transaction happens once.

Two lanes carry one transaction each. A free lane takes all waiting commits that fit into one and
touch no key that another of it writes; large commits keep to the second lane, so that they never
hold up the small ones. If a guard fails in a merged transaction, etcd tells how all guarded keys
stand: commits whose guards differ are lost, the others go again.

Every transaction guards and writes the fence of its lane, a key of this process alone. So one that
was sent twice happens once; and where no answer came, the fence tells what happened: it bears the
transaction's mark, or it does not and, being written since, never will (docs/adr/0013). A fence is
written alone before the first transaction that guards it: that it is absent could hold again, once
it was swept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from colonist_server.store.etcd import wire
from colonist_server.store.etcd.client import (
    FULL,
    GIVE_UP_S,
    Client,
    FullError,
    NotDoneError,
    TroubleError,
    pauses,
)
from colonist_server.store.interface import (
    MAX_OPS,
    DeleteRange,
    Guard,
    Op,
    ReadOnlyError,
    Revision,
    StoreError,
    TooBigError,
    UnavailableError,
)
from colonist_server.store.laws import Shape

LARGE_OPS: Final = 32
"""A commit with more is large: a stage, a sweep, a move to the archive."""
CROWD: Final = 4
"""So many commits in one transaction, and more are about to come:"""
MANY: Final = 8
"""the next one waits until there are so many, or the first has waited for"""
PACE_S: Final = 0.002
"""this long."""
MAX_BYTES: Final = 1_048_576
"""Merged transactions stay below; a single commit may be larger."""
UNKNOWN: Final = "whether this was written is not known"
NOTHING: Final = "nothing was written"

PLANTED: Final = b""
"""What a fence bears that was absent before; as an absent one, it tells of no transaction."""

Answer = asyncio.Future[Revision | None]


class Commit:
    """A commit that waits for its answer, `since` when on the loop's clock."""

    __slots__ = (
        "answer",
        "fragment",
        "guards",
        "is_alone",
        "is_large",
        "ops",
        "since",
        "touched",
        "written",
    )

    def __init__(
        self,
        prefix: bytes,
        guards: Sequence[Guard],
        ops: Sequence[Op],
        shape: Shape,
        answer: Answer,
    ) -> None:
        self.answer = answer
        self.since = answer.get_loop().time()
        self.guards = guards
        self.ops = max(len(ops), len(guards))
        self.fragment = wire.fragment(prefix, guards, ops)
        # What a delete-range meets is not known here, and an ended lease spoils a transaction.
        self.is_alone = bool(shape.prefixes or shape.leases)
        self.is_large = self.ops > LARGE_OPS
        self.written = {op[0] for op in ops if type(op) is not DeleteRange}
        self.touched = self.written.union(guard[0] for guard in guards)

    def settle(self, revision: Revision | None) -> None:
        """Tell whoever waits."""
        if not self.answer.done():
            self.answer.set_result(revision)

    def fail(self, error: StoreError) -> None:
        """Tell whoever waits that it is not known, or cannot be done."""
        if not self.answer.done():
            self.answer.set_exception(error)


class _Lane:
    """One transaction at a time, and the fence that each of them writes."""

    def __init__(self, fence: bytes, *, takes_large: bool) -> None:
        self.fence = fence
        self.takes_large = takes_large
        self.revision: Revision = 0
        self.was_swept = False
        self.is_busy = False

    def find(self, fence: wire.Found) -> None:
        """Learn how the fence stands: absent, or written where it was absent, it was swept."""
        if fence.revision != self.revision and fence.value == PLANTED:
            self.was_swept = True
        self.revision = fence.revision


class Batches:
    """Takes commits and sees each through to its answer."""

    def __init__(
        self, client: Client, prefix: bytes, fence: bytes, seen: Callable[[Revision], None]
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._seen = seen
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Commit] = deque()
        self._lanes = [
            _Lane(fence + b"0", takes_large=False),
            _Lane(fence + b"1", takes_large=True),
        ]
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_woken = False
        self._is_paced = False
        self._is_draining = False
        self._last_size = 0
        self._number = 0
        self.fault = ""
        """Why writes are refused."""

    async def start(self) -> None:
        """Write the fences, for the first commits not to have to; later where etcd is full."""

        async def plant(lane: _Lane) -> None:
            with suppress(UnavailableError):
                await self._fence_off(lane, PLANTED)
                self._seen(lane.revision)

        await asyncio.gather(*map(plant, self._lanes))

    def put(self, guards: Sequence[Guard], ops: Sequence[Op], shape: Shape) -> Answer:
        """Send a commit soon: the answer to wait for. Cancelling it does not cancel the commit."""
        answer: Answer = self._loop.create_future()
        self._waiting.append(Commit(self._prefix, guards, ops, shape, answer))
        self._wake()
        return answer

    async def mark(self) -> Revision:
        """Write a fence and nothing else: a revision that the watch will show."""
        answer: Answer = self._loop.create_future()
        self._waiting.append(Commit(self._prefix, (), (), Shape(0, (), ()), answer))
        self._wake()
        return await answer or 0

    async def drain(self) -> None:
        """Wait until all that was put is answered; what is put meanwhile waits for no more."""
        self._is_draining = True
        self._pump()
        while self._tasks:
            await asyncio.wait(self._tasks)
            self._pump()

    def stop(self) -> None:
        """Give up what is not settled."""
        for task in self._tasks:
            task.cancel()

    # -- which commits go together

    def _wake(self) -> None:
        """What is put in the same turn of the loop goes together."""
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._is_woken = False
        for lane in self._lanes:
            if lane.is_busy or not self._waiting or not self._is_worth(lane):
                continue
            batch = self._take(lane)
            if batch:
                self._last_size = len(batch)
                lane.is_busy = True
                task = self._loop.create_task(self._carry(lane, batch))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _is_worth(self, lane: _Lane) -> bool:
        """Whether to send now: where many commit at once, a few had better wait for more.

        A transaction costs etcd, and everybody who watches, more than a commit in it.
        """
        waiting = self._waiting
        if len(waiting) >= MANY or self._is_draining or any(each.is_large for each in waiting):
            return True
        if lane.takes_large and self._lanes[0].is_busy:
            return False
        if self._last_size < CROWD:
            return True
        left_s = waiting[0].since + PACE_S - self._loop.time()
        if left_s <= 0:
            return True
        if not self._is_paced:
            self._is_paced = True
            self._loop.call_later(left_s, self._pace)
        return False

    def _pace(self) -> None:
        self._is_paced = False
        self._pump()

    def _take(self, lane: _Lane) -> list[Commit]:
        """The longest waiting commits that may share a transaction; the others keep their order."""
        waiting = self._waiting
        batch: list[Commit] = []
        left: list[Commit] = []
        ops = size = 0
        written: set[bytes] = set()
        touched: set[bytes] = set()
        while waiting:
            commit = waiting.popleft()
            if commit.is_large and not lane.takes_large:
                left.append(commit)
                continue
            ops += commit.ops
            size += len(commit.fragment)
            if batch and (commit.is_alone or ops > MAX_OPS or size > MAX_BYTES):
                left.append(commit)
                break
            if not (written.isdisjoint(commit.touched) and touched.isdisjoint(commit.written)):
                left.append(commit)
                ops -= commit.ops
                size -= len(commit.fragment)
            else:
                batch.append(commit)
            written |= commit.written
            touched |= commit.touched
            if commit.is_alone:
                break
        waiting.extendleft(reversed(left))
        return batch

    # -- seeing a transaction through

    async def _carry(self, lane: _Lane, batch: list[Commit]) -> None:
        try:
            while batch:
                go = self._send if lane.revision else self._plant
                batch = await go(lane, batch)
        except StoreError as error:
            for commit in batch:
                commit.fail(error)
        except BaseException:
            for commit in batch:
                commit.fail(UnavailableError("the store is closed"))
            raise
        finally:
            lane.is_busy = False
            self._pump()

    async def _plant(self, lane: _Lane, batch: list[Commit]) -> list[Commit]:
        """Write a fence that is absent; the batch is to go then."""
        try:
            await self._fence_off(lane, PLANTED)
        except FullError:
            return self._fail(batch, ReadOnlyError(FULL))
        except UnavailableError as error:
            return self._give_up(batch, error, NOTHING)
        return batch

    async def _send(self, lane: _Lane, batch: list[Commit]) -> list[Commit]:
        """Try a transaction until its fate is known; which commits are to go again."""
        mark = self._new_mark()
        request = b"".join(
            [wire.fence(lane.fence, lane.revision, mark), *[commit.fragment for commit in batch]]
        )
        until = self._loop.time() + GIVE_UP_S
        lane.was_swept = may_be_done = False
        trouble: StoreError = UnavailableError("etcd does not answer")
        for pause_s in pauses():
            try:
                answer = wire.answer(await self._client.call(wire.TXN, request))
            except (TroubleError, NotDoneError) as error:
                trouble = error
                may_be_done = may_be_done or isinstance(error, TroubleError)
            except FullError:
                return await self._refused(lane, batch, mark, may_be_done=may_be_done)
            except StoreError as error:
                return self._not_taken(batch, error, may_be_done=may_be_done)
            else:
                return await self._settled(lane, batch, mark, answer, sent_again=may_be_done)
            if self._loop.time() + pause_s > until:
                break
            await asyncio.sleep(pause_s)
        return self._give_up(batch, trouble, UNKNOWN if may_be_done else NOTHING)

    async def _settled(
        self,
        lane: _Lane,
        batch: list[Commit],
        mark: bytes,
        answer: wire.Answer,
        *,
        sent_again: bool,
    ) -> list[Commit]:
        """What etcd answered: it is done now, was done at an earlier try, or a guard failed."""
        self.fault = ""
        if answer.done:
            return self._done(lane, batch, answer.revision)
        fence = answer.found[0]
        if fence.value == mark:
            return self._done(lane, batch, fence.revision)
        lane.find(fence)
        if sent_again:
            # A guard of "absent" may hold again later: the earlier try must not come then.
            try:
                revision = await self._fence_off(lane, mark)
            except StoreError as error:
                return self._give_up(batch, error, UNKNOWN)
            if revision:
                return self._done(lane, batch, revision)
        return _those_to_repeat(batch, answer.found)

    def _done(self, lane: _Lane, batch: list[Commit], revision: Revision) -> list[Commit]:
        lane.revision = max(lane.revision, revision)
        self._seen(revision)
        for commit in batch:
            commit.settle(revision)
        return []

    async def _refused(
        self, lane: _Lane, batch: list[Commit], mark: bytes, *, may_be_done: bool
    ) -> list[Commit]:
        """No space; etcd may have done what filled it, all the same. The fence tells."""
        self.fault = FULL
        try:
            fence = await self._read_fence(lane)
        except StoreError as error:
            return self._give_up(batch, error, UNKNOWN)
        if fence.value == mark:
            return self._done(lane, batch, fence.revision)
        lane.find(fence)
        if may_be_done or lane.was_swept:
            return self._give_up(batch, UnavailableError(FULL), UNKNOWN)
        return self._fail(batch, ReadOnlyError(FULL))

    async def _read_fence(self, lane: _Lane) -> wire.Found:
        response = await self._client.ask(wire.TXN, wire.read_many([lane.fence]))
        item = wire.items_read(response, 0)[0]
        return wire.Found(item.modified, item.value) if item else wire.Found(0, b"")

    def _not_taken(
        self, batch: list[Commit], error: StoreError, *, may_be_done: bool
    ) -> list[Commit]:
        """Refused for good. What is too large goes apart: etcd may be set to take less."""
        if may_be_done:  # by another member, which may be set otherwise
            return self._give_up(batch, error, UNKNOWN)
        if len(batch) == 1 or not isinstance(error, TooBigError):
            return self._fail(batch, error)
        for commit in batch:
            commit.is_alone = True
        self._waiting.extendleft(reversed(batch))
        return []

    @staticmethod
    def _fail(batch: list[Commit], error: StoreError) -> list[Commit]:
        for commit in batch:
            commit.fail(error)
        return []

    def _give_up(self, batch: list[Commit], trouble: StoreError, known: str) -> list[Commit]:
        """Tell those that were sent, and those that wait for as long and were not."""
        for commit in batch:
            commit.fail(UnavailableError(f"{trouble}: {known}"))
        oldest = self._loop.time() - GIVE_UP_S
        while self._waiting and self._waiting[0].since <= oldest:
            error = UnavailableError(f"{trouble}: {NOTHING}")
            self._waiting.popleft().fail(error)
        return []

    async def _fence_off(self, lane: _Lane, mark: bytes) -> Revision:
        """Let what may still be on its way come too late: 0; or the revision at which it came.

        Afterwards there is a fence. Raises `StoreError` where what came cannot be told.
        """
        until = self._loop.time() + GIVE_UP_S
        for pause_s in pauses():
            written = self._new_mark() if lane.revision else PLANTED
            request = wire.fence(lane.fence, lane.revision, written)
            try:
                answer = wire.answer(await self._client.call(wire.TXN, request))
            except (TroubleError, NotDoneError):
                if self._loop.time() + pause_s > until:
                    raise
                await asyncio.sleep(pause_s)
                continue
            except FullError:
                self.fault = FULL
                raise
            if answer.done:
                lane.revision = answer.revision
                break
            lane.find(answer.found[0])
            if lane.revision and answer.found[0].value == mark:
                return lane.revision
        if lane.was_swept and mark != PLANTED:
            raise UnavailableError("the fence was swept, and what it told with it")
        return 0

    def _new_mark(self) -> bytes:
        self._number += 1
        return self._number.to_bytes(8, "big")


def _those_to_repeat(batch: list[Commit], found: Sequence[wire.Found]) -> list[Commit]:
    """Answer the commits of which a guard has failed; the others."""
    again: list[Commit] = []
    at = 1  # after the fence
    for commit in batch:
        guards = commit.guards
        here = found[at : at + len(guards)]
        at += len(guards)
        if any(guard.revision != each.revision for guard, each in zip(guards, here, strict=True)):
            commit.settle(None)
        else:
            again.append(commit)
    return again
