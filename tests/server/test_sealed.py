"""Sealed requests: at most one effect, the same reply, nothing stale, nothing meant for others."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from colonist_protocol import codec, envelope
from colonist_protocol.envelope import Failure
from colonist_protocol.process import (
    AssignProcess,
    CloseSuccessful,
    GetProcess,
    StandingOrder,
    SubmitFunctionSpec,
)
from colonist_protocol.seal import VERSION, EpochSeal
from tests.support import sealing
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, Bench, bench, key, spec
from tests.support.stores import CountingStore

ADA, UMA = key("ada"), key("uma")


@virtual
async def test_a_submit_takes_effect_once_however_often_it_comes() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        sent = sealing.of_now(made.dispatch, SubmitFunctionSpec(spec=spec()), ADA)
        answers = await asyncio.gather(*(sealing.present(made.dispatch, sent) for _ in range(5)))
        answers.append(await sealing.present(made.dispatch, sent))
        assert len({shown["processid"] for shown, _ in answers}) == 1
        assert made.colony.waiting == 1


@virtual
async def test_an_assign_takes_effect_once_and_shows_the_same_process() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        for _ in range(3):
            await made.submit("ada")
        sent = sealing.of_now(made.dispatch, AssignProcess(colonyname=COLONY, timeout=5), ADA)
        answers = await asyncio.gather(*(sealing.present(made.dispatch, sent) for _ in range(5)))
        answers.append(await sealing.present(made.dispatch, sent))
        assert len({shown["processid"] for shown, _ in answers}) == 1
        assert len(made.colony.running) == 1


@virtual
async def test_parked_twice_an_assign_is_granted_one_process() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        sent = sealing.of_now(made.dispatch, AssignProcess(colonyname=COLONY, timeout=50), ADA)
        parked = [asyncio.create_task(sealing.present(made.dispatch, sent)) for _ in range(2)]
        await asyncio.sleep(1)
        await made.submit("ada")
        await made.submit("ada")
        answers = [await task for task in parked]
        assert len({shown["processid"] for shown, _ in answers}) == 1
        assert len(made.colony.running) == 1


@virtual
async def test_a_request_is_fresh_for_its_ttl_and_no_longer() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        process = await made.submit("ada")
        read = sealing.of_now(made.dispatch, GetProcess(processid=process.processid), ADA, ttl=60)
        late = sealing.of_now(made.dispatch, SubmitFunctionSpec(spec=spec()), ADA, ttl=60)
        assert (await sealing.present(made.dispatch, read))[1].ok
        await asyncio.sleep(130)
        for sent in (read, late):
            reply, seal = await sealing.present(made.dispatch, sent)
            assert isinstance(reply, Failure)
            assert reply.code == "epoch_stale"
            assert seal.epoch == made.rooms.epochs.token
        assert made.colony.waiting == 1


@virtual
async def test_what_is_sealed_for_another_server_is_refused() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        epochs = made.rooms.epochs
        given = EpochSeal(VERSION, key("another").id, epochs.token, "0" * 32, 60)
        sent = sealing.seal(SubmitFunctionSpec(spec=spec()), ADA, given)
        answer = await made.dispatch.answer(sent.body)
        assert (answer.status, made.colony.waiting) == (403, 0)


def _standing(made: Bench, count: int, ahead: int = 1) -> sealing.Sealed:
    terms = StandingOrder(count=count, ahead=ahead)
    message = AssignProcess(colonyname=COLONY, timeout=5, standing=terms)
    return sealing.of_now(made.dispatch, message, ADA, ttl=3600)


async def _grant(made: Bench, sent: sealing.Sealed, index: int) -> Any:
    body = envelope.with_index(sent.body, index)
    answer = await made.dispatch.answer(body)
    genuine = sent.opened(answer.body, index=index)
    return genuine.reply if isinstance(genuine.reply, Failure) else codec.scan(genuine.reply)


@virtual
async def test_a_standing_assign_is_granted_once_for_each_index_in_order() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        for _ in range(4):
            await made.submit("ada")
        sent = _standing(made, count=3, ahead=8)
        assert (await _grant(made, sent, 1)).code == "conflict"
        first = await _grant(made, sent, 0)
        again = await asyncio.gather(*(_grant(made, sent, 0) for _ in range(3)))
        assert {each["processid"] for each in again} == {first["processid"]}
        rest = [await _grant(made, sent, index) for index in (1, 2)]
        assert len({each["processid"] for each in (first, *rest)}) == 3
        assert (await _grant(made, sent, 3)).code == "invalid_value"
        assert len(made.colony.running) == 3


@virtual
async def test_nobody_hoards_work_in_the_name_of_a_silent_device() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        for _ in range(4):
            await made.submit("ada")
        sent = _standing(made, count=100, ahead=2)
        granted = [await _grant(made, sent, index) for index in (0, 1)]
        busy = await _grant(made, sent, 2)
        assert (busy.code, busy.retry_after_s) == ("busy", 1.0)
        assert (await _grant(made, sent, 1))["processid"] == granted[1]["processid"]
        assert len(made.colony.running) == 2


@virtual
async def test_sealed_work_costs_a_commit_a_request_and_no_read() -> None:
    store = CountingStore()
    async with bench(store) as made:
        await made.found("ada")
        order = _standing(made, count=100)
        for index in range(3):
            store.asked.clear()
            sent = sealing.of_now(made.dispatch, SubmitFunctionSpec(spec=spec()), ADA)
            await sealing.present(made.dispatch, sent)
            granted = await _grant(made, order, index)
            result = CloseSuccessful(processid=granted["processid"], out=msgspec.Raw(b"[1]"))
            token = granted["attempt"]["token"]
            await sealing.present(
                made.dispatch, sealing.of_attempt(made.dispatch, result, ADA, token, 1)
            )
            assert store.asked == ["commit"] * 3


@virtual
async def test_a_grant_is_told_again_after_the_ttl_and_no_new_one_made() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada")
        for _ in range(2):
            await made.submit("ada")
        sent = _standing(made, count=100, ahead=2)
        first = await _grant(made, sent, 0)
        await asyncio.sleep(3600 + 120)
        assert (await _grant(made, sent, 0))["processid"] == first["processid"]
        assert (await _grant(made, sent, 1)).code == "epoch_stale"


@virtual
async def test_what_a_small_device_cannot_take_goes_to_others_and_its_reply_fits() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada", "ann")
        large = await made.submit("ada", kwargs=msgspec.Raw(b'{"a":"%b"}' % (b"a" * 9_000)))
        small = await made.submit("ada", label="small")
        order = AssignProcess(colonyname=COLONY, timeout=5, maxreply=8_000)
        sent = sealing.of_now(made.dispatch, order, ADA)
        answer = await made.dispatch.answer(sent.body)
        assert len(answer.body) <= 8_000
        assert (await sealing.present(made.dispatch, sent))[0]["processid"] == small.processid
        parked = asyncio.create_task(
            sealing.present(made.dispatch, sealing.of_now(made.dispatch, order, ADA))
        )
        await asyncio.sleep(1)
        assert (await made.assign("ann")).processid == large.processid
        fitting = await made.submit("ada", label="fits")
        assert (await parked)[0]["processid"] == fitting.processid


@virtual
async def test_a_large_process_passes_by_a_parked_device_that_cannot_take_it() -> None:
    async with bench(MemoryStore()) as made:
        await made.found("ada", "ann")
        order = AssignProcess(colonyname=COLONY, timeout=50, maxreply=8_000)
        small = asyncio.create_task(
            sealing.present(made.dispatch, sealing.of_now(made.dispatch, order, ADA))
        )
        await asyncio.sleep(1)
        any_size = asyncio.create_task(made.assign("ann", 50))
        await asyncio.sleep(1)
        large = await made.submit("ada", kwargs=msgspec.Raw(b'{"a":"%b"}' % (b"a" * 9_000)))
        assert (await any_size).processid == large.processid
        fitting = await made.submit("ada")
        assert (await small)[0]["processid"] == fitting.processid
