"""Invariant 1 on etcd: a commit succeeds once, and its answer is never guessed.

Over a network that loses requests and answers, delivers some of them long after they were given
up, and an etcd that refuses for lack of space, after doing it or before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from aetcd.rpc import rpc_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from colonist_server.store.etcd import wire
from colonist_server.store.etcd.batches import MANY, Batches
from colonist_server.store.etcd.client import FullError, NotDoneError, TroubleError
from colonist_server.store.interface import (
    MAX_OPS,
    Delete,
    DeleteRange,
    Guard,
    Op,
    Put,
    ReadOnlyError,
    Revision,
    StoreError,
    TooBigError,
    UnavailableError,
)
from colonist_server.store.laws import check
from tests.support.clock import run_virtual

PREFIX = b"p/k"
CLIENTS = 8
COMMITS = 12
LATEST_S = 40.0
MAX_TXN_OPS = 128

Outcome = Revision | None | type[BaseException]


class ModelEtcd:
    """One key space with etcd's transactions, and a network in front of it."""

    def __init__(self, chance: Random, fates: dict[str, int]) -> None:
        self.chance = chance
        self.fates = fates
        self.keys: dict[bytes, tuple[bytes, int]] = {}
        self.revision = 1
        self.done: Counter[bytes] = Counter()
        self.done_at: dict[bytes, int] = {}
        self.transactions = 0
        self.max_txn_ops = MAX_TXN_OPS

    async def call(self, method: wire.Method, request: bytes, timeout_s: float = 3.0) -> Any:
        fate = self.chance.choices(list(self.fates), list(self.fates.values()))[0]
        await asyncio.sleep(self.chance.uniform(0.0005, 0.005))
        if fate == "answered":
            return self._answer(request)
        if fate == "refused":
            raise NotDoneError("too many requests")
        if fate in {"full", "full after all"}:
            if fate == "full after all":
                self._answer(request)
            raise FullError("no space")
        if fate == "answer lost":
            self._answer(request)
        elif fate == "late":
            delay_s = self.chance.uniform(timeout_s, LATEST_S)
            asyncio.get_running_loop().call_later(delay_s, self._answer, request)
        await asyncio.sleep(timeout_s)
        raise TroubleError("no answer")

    async def ask(self, method: wire.Method, request: bytes, give_up_s: float = 10.0) -> Any:
        return self._answer(request)

    def sweep(self) -> None:
        """As `compact` does with old fences."""
        self.keys = {key: held for key, held in self.keys.items() if not key.startswith(b"p/f")}

    def _answer(self, request: bytes) -> Any:
        wanted = rpc_pb2.TxnRequest.FromString(request)
        self.transactions += 1
        for part in (wanted.compare, wanted.success, wanted.failure):
            if len(part) > self.max_txn_ops:
                raise TooBigError("too many operations")
        held = all(self._modified(each.key) == each.mod_revision for each in wanted.compare)
        response = rpc_pb2.TxnResponse(succeeded=held)
        if held and len(wanted.success) and not wanted.success[0].HasField("request_range"):
            self.revision += 1
        for op in wanted.success if held else wanted.failure:
            part = response.responses.add()
            if op.HasField("request_range"):
                self._read(op.request_range, part.response_range)
            elif op.HasField("request_put"):
                self._put(op.request_put)
            else:
                self._delete(op.request_delete_range)
        response.header.revision = self.revision
        return response

    def _modified(self, key: bytes) -> int:
        return self.keys[key][1] if key in self.keys else 0

    def _read(self, read: Any, into: Any) -> None:
        if read.key in self.keys:
            value, modified = self.keys[read.key]
            into.kvs.add(key=read.key, value=value, mod_revision=modified)

    def _put(self, put: Any) -> None:
        self.keys[put.key] = (put.value, self.revision)
        if put.key.startswith(PREFIX + b"mark/"):
            self.done[put.key] += 1
            self.done_at[put.key] = self.revision

    def _delete(self, delete: Any) -> None:
        end = delete.range_end or delete.key + b"\0"
        for key in [key for key in self.keys if delete.key <= key < end]:
            del self.keys[key]


class Client:
    """Makes, changes and deletes a few keys that all clients share."""

    def __init__(self, number: int, etcd: ModelEtcd, batches: Batches) -> None:
        self.number = number
        self.etcd = etcd
        self.batches = batches
        self.outcomes: dict[bytes, Outcome] = {}

    async def run(self) -> None:
        chance = Random(self.etcd.chance.random())
        for count in range(COMMITS):
            key = b"shared/%d" % chance.randrange(4)
            known = self.etcd._modified(PREFIX + key)
            mark = b"mark/%d/%d" % (self.number, count)
            ops: list[Op] = [Put(mark, b"")]
            if known and chance.random() < 0.5:
                ops.append(chance.choice([Delete(key), DeleteRange(key)]))
            else:
                ops.append(Put(key, mark))
            self.outcomes[PREFIX + mark] = await self._commit([Guard(key, known)], ops)
            await asyncio.sleep(chance.uniform(0, 3))

    async def _commit(self, guards: list[Guard], ops: list[Op]) -> Outcome:
        try:
            return await self.batches.put(guards, ops, check(guards, ops))
        except UnavailableError as error:
            return type(error)


async def sweep_at_times(etcd: ModelEtcd, rest_s: float) -> None:
    """Far more often than `compact` does: nothing is proved by how long a sweep takes to come."""
    while True:
        await asyncio.sleep(etcd.chance.uniform(0, rest_s))
        etcd.sweep()


async def play(chance: Random, fates: dict[str, int]) -> tuple[ModelEtcd, dict[bytes, Outcome]]:
    etcd = ModelEtcd(chance, fates)
    batches = Batches(etcd, PREFIX, b"p/f", lambda revision: None)  # pyright: ignore[reportArgumentType] - a model
    clients = [Client(number, etcd, batches) for number in range(CLIENTS)]
    sweeps = asyncio.ensure_future(sweep_at_times(etcd, chance.choice([2.0, 60.0])))
    await asyncio.gather(*[client.run() for client in clients])
    sweeps.cancel()
    fates.clear()
    fates["answered"] = 1
    await batches.drain()
    await asyncio.sleep(LATEST_S + 1)  # what is late comes
    outcomes: dict[bytes, Outcome] = {}
    for client in clients:
        outcomes |= client.outcomes
    return etcd, outcomes


def judge(etcd: ModelEtcd, outcomes: dict[bytes, Outcome]) -> None:
    for mark, outcome in outcomes.items():
        times = etcd.done[mark]
        assert times <= 1, f"{mark!r} was done {times} times"
        if isinstance(outcome, int):
            assert (times, etcd.done_at.get(mark)) == (1, outcome), mark
        elif outcome is None or outcome is ReadOnlyError:
            assert times == 0, f"{mark!r} was done, and told to be {outcome}"


FATES = st.fixed_dictionaries(
    {
        "answered": st.integers(1, 60),
        "request lost": st.integers(0, 20),
        "answer lost": st.integers(0, 20),
        "late": st.integers(0, 20),
        "refused": st.integers(0, 10),
        "full": st.integers(0, 3),
        "full after all": st.integers(0, 3),
    }
)


@settings(max_examples=80, deadline=None)
@given(st.randoms(use_true_random=False), FATES)
def test_a_commit_happens_once_and_its_answer_is_true(
    chance: Random, fates: dict[str, int]
) -> None:
    judge(*run_virtual(play(Random(chance.random()), dict(fates))))


async def crowd(etcd: ModelEtcd, commits: list[tuple[list[Guard], list[Op]]]) -> list[Outcome]:
    batches = Batches(etcd, PREFIX, b"p/f", lambda revision: None)  # pyright: ignore[reportArgumentType] - a model
    answers = [batches.put(guards, ops, check(guards, ops)) for guards, ops in commits]
    found = await asyncio.gather(*answers, return_exceptions=True)
    await batches.drain()
    return [type(each) if isinstance(each, Exception) else each for each in found]  # pyright: ignore[reportReturnType] - as awaited


def quiet() -> ModelEtcd:
    return ModelEtcd(Random(1), {"answered": 1})


def new(number: int, ops: int = 1) -> tuple[list[Guard], list[Op]]:
    key = b"n/%d" % number
    return [Guard(key, 0)], [Put(key, b""), *[Put(b"%b/%d" % (key, i), b"") for i in range(1, ops)]]


def test_many_commits_share_few_transactions() -> None:
    etcd = quiet()
    answers = run_virtual(crowd(etcd, [new(number) for number in range(200)]))
    assert None not in answers
    assert etcd.transactions <= 5  # two of them write the fences
    assert len(set(answers)) <= 3


def test_one_lost_commit_of_many_fails_alone() -> None:
    etcd = quiet()
    etcd.keys[PREFIX + b"n/7"] = (b"", 1)
    answers = run_virtual(crowd(etcd, [new(number) for number in range(20)]))
    assert [number for number, answer in enumerate(answers) if answer is None] == [7]


def test_commits_with_a_key_in_common_do_not_share_a_transaction() -> None:
    etcd = quiet()
    first, second = [Guard(b"a", 0)], [Guard(b"b", 0), Guard(b"a", 0)]
    answers = run_virtual(crowd(etcd, [(first, [Put(b"a", b"")]), (second, [Put(b"b", b"")])]))
    assert answers[0] != answers[1]
    if answers[0] is not None and answers[1] is not None:
        assert answers[1] < answers[0]


@pytest.mark.parametrize("ops", [2, 40, MAX_OPS])
def test_no_transaction_is_larger_than_etcd_takes(ops: int) -> None:
    etcd = quiet()
    answers = run_virtual(crowd(etcd, [new(number, ops) for number in range(30)]))
    assert all(isinstance(answer, int) for answer in answers)


def test_an_etcd_that_takes_less_gets_commits_one_by_one_and_a_large_one_is_refused() -> None:
    etcd = quiet()
    etcd.max_txn_ops = 8
    answers = run_virtual(crowd(etcd, [*[new(number, 3) for number in range(9)], new(10, 20)]))
    assert all(isinstance(answer, int) for answer in answers[:-1])
    assert answers[-1] is TooBigError


def test_large_commits_leave_a_lane_to_small_ones() -> None:
    etcd = quiet()
    commits = [new(number, MAX_OPS) for number in range(20)] + [new(100)]
    answers = run_virtual(crowd(etcd, commits))
    small = answers[-1]
    assert isinstance(small, int)
    assert sum(isinstance(each, int) and each < small for each in answers[:-1]) <= 10


def test_those_that_wait_behind_an_outage_are_told_when_those_before_them_are() -> None:
    etcd = ModelEtcd(Random(1), {"request lost": 1})

    async def outage() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answers = await crowd(etcd, [new(number, MAX_OPS) for number in range(12)])
        assert set(answers) == {UnavailableError}
        return loop.time() - begun

    assert run_virtual(outage()) < 30.0
    assert not etcd.done


# -- told exactly, one network after the other

Fate = str | BaseException


class Scripted(ModelEtcd):
    """A network that does what is said, call by call; then all is answered."""

    def __init__(self, script: Sequence[Fate] = ()) -> None:
        super().__init__(Random(1), {"answered": 1})
        self.script = script
        self.kept: list[bytes] = []

    async def call(self, method: wire.Method, request: bytes, timeout_s: float = 3.0) -> Any:
        fate = self.script[0] if self.script else "answered"
        self.script = self.script[1:]
        if isinstance(fate, BaseException):
            raise fate
        if fate == "kept":
            self.kept.append(request)
        if fate == "done":
            self._answer(request)
        if fate != "answered":
            await asyncio.sleep(timeout_s)
            raise TroubleError("no answer")
        return self._answer(request)


def lanes(etcd: ModelEtcd) -> Batches:
    return Batches(etcd, PREFIX, b"p/f", lambda revision: None)  # pyright: ignore[reportArgumentType] - a model


async def ask(batches: Batches, guards: list[Guard], ops: list[Op]) -> Outcome:
    try:
        return await batches.put(guards, ops, check(guards, ops))
    except UnavailableError as error:
        return type(error)


def marked(name: bytes) -> tuple[list[Guard], list[Op]]:
    """Makes a key that was absent, which others may delete again."""
    return [Guard(b"x", 0)], [Put(b"x", b""), Put(b"mark/" + name, b"")]


def test_a_try_that_comes_when_fences_were_swept_comes_too_late() -> None:
    """The first transaction of a lane, on a member that stood still for minutes."""

    async def play() -> Scripted:
        etcd = Scripted(["kept", "answered"] * 2)
        assert isinstance(await ask(lanes(etcd), *marked(b"a")), int)
        del etcd.keys[PREFIX + b"x"]
        etcd.sweep()
        for late in etcd.kept:
            etcd._answer(late)
        return etcd

    assert run_virtual(play()).done == {PREFIX + b"mark/a": 1}


def test_a_mark_that_was_swept_is_not_taken_for_one_that_never_was() -> None:
    """It was done, its answer lost; then this process slept, and the fence was swept."""

    async def play() -> tuple[Scripted, Outcome]:
        etcd = Scripted()
        batches = lanes(etcd)
        assert await ask(batches, *marked(b"a"))
        del etcd.keys[PREFIX + b"x"]
        etcd.script = ["done", "answered"]
        asked = asyncio.ensure_future(ask(batches, *marked(b"b")))
        await asyncio.sleep(1)
        etcd.sweep()
        return etcd, await asked

    etcd, told = run_virtual(play())
    assert etcd.done[PREFIX + b"mark/b"] == 1
    assert told is UnavailableError


def test_a_fence_that_was_planted_late_hides_no_mark() -> None:
    """As above, and a try to plant it comes after the sweep."""

    async def play() -> tuple[Scripted, Outcome]:
        etcd = Scripted(["kept", "answered"])
        batches = lanes(etcd)
        assert await ask(batches, [Guard(b"y", 0)], [Put(b"y", b"")])
        etcd.script = ["done", "answered"]
        asked = asyncio.ensure_future(ask(batches, *marked(b"b")))
        await asyncio.sleep(1)
        etcd.sweep()
        etcd._answer(etcd.kept[0])
        return etcd, await asked

    etcd, told = run_virtual(play())
    assert etcd.done[PREFIX + b"mark/b"] == 1
    assert told is UnavailableError


def test_a_mark_that_was_swept_when_etcd_was_full_is_not_guessed() -> None:
    async def play() -> Outcome:
        etcd = Scripted()
        batches = lanes(etcd)
        assert await ask(batches, *marked(b"a"))
        etcd.script = [FullError("no space")]
        etcd.sweep()
        return await ask(batches, *marked(b"b"))

    assert run_virtual(play()) is UnavailableError


@pytest.mark.parametrize("trouble", [TroubleError("gone"), FullError("no space")])
def test_who_waits_for_a_fence_is_told_in_time(trouble: UnavailableError) -> None:
    """A guard has failed, an earlier try may be on its way, and then nobody answers."""

    async def play() -> Outcome:
        etcd = Scripted()
        batches = lanes(etcd)
        assert await ask(batches, *marked(b"a"))
        etcd.script = ["kept", "answered", *[trouble] * 10_000]
        async with asyncio.timeout(60):
            told = await ask(batches, *marked(b"b"))
        etcd.script = []
        assert await ask(batches, [Guard(b"y", 0)], [Put(b"y", b"")])
        return told

    assert run_virtual(play()) is UnavailableError


@pytest.mark.parametrize("refusal", [TooBigError("too large"), StoreError("not let in")])
def test_a_refusal_says_nothing_of_an_earlier_try(refusal: StoreError) -> None:
    """Members may be set differently, and users lose what they may do."""

    async def play() -> list[Outcome]:
        etcd = Scripted()
        batches = lanes(etcd)
        assert await ask(batches, *marked(b"a"))
        del etcd.keys[PREFIX + b"x"]
        etcd.script = ["done", refusal]
        other = ask(batches, [Guard(b"y", 0)], [Put(b"y", b"")])
        return list(await asyncio.gather(ask(batches, *marked(b"b")), other))

    assert run_virtual(play()) == [UnavailableError, UnavailableError]


def test_a_crowd_that_waits_for_more_is_seen_through_before_the_end() -> None:
    async def play() -> list[Outcome]:
        etcd = Scripted()
        batches = lanes(etcd)
        await asyncio.gather(*[ask(batches, *new(number)) for number in range(MANY)])
        last = [asyncio.ensure_future(ask(batches, *new(100 + number))) for number in range(2)]
        await asyncio.sleep(0)
        await batches.drain()
        await asyncio.sleep(0)
        assert all(each.done() for each in last)
        return await asyncio.gather(*last)

    assert all(isinstance(each, int) for each in run_virtual(play()))


def test_a_caller_that_leaves_harms_nobody() -> None:
    async def play() -> tuple[Scripted, list[Outcome]]:
        etcd = Scripted(["done"])
        batches = lanes(etcd)
        asked = [asyncio.ensure_future(ask(batches, *new(number))) for number in range(9)]
        await asyncio.sleep(1)
        asked[4].cancel()
        found = await asyncio.gather(*asked[:4], *asked[5:])
        return etcd, found

    etcd, found = run_virtual(play())
    assert all(isinstance(each, int) for each in found)
    assert PREFIX + b"n/4" in etcd.keys
