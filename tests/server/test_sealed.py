"""Sealed requests: at most one effect, the same reply, nothing stale, nothing meant for others."""

from __future__ import annotations

import asyncio

from colonist_protocol.envelope import Failure
from colonist_protocol.process import AssignProcess, GetProcess, SubmitFunctionSpec
from colonist_protocol.seal import VERSION, EpochSeal
from tests.support import sealing
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, bench, key, spec

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
