"""The server's own key: nodes that do not take each other's stay apart; a change is seamless."""

from __future__ import annotations

import pytest

from colonist_protocol import envelope
from colonist_protocol.colony import GetColony
from colonist_protocol.errors import WrongServerError
from colonist_protocol.process import AssignProcess, CloseSuccessful, SubmitFunctionSpec
from colonist_protocol.tokens import ServerKeys
from colonist_server.store.interface import StoreError
from tests.support import sealing
from tests.support.clock import virtual
from tests.support.cluster import Cluster, cluster
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, bench, key, spec

OLD, NEW, NEWER = key("old server"), key("new server"), key("newer server")
BEFORE = ServerKeys(OLD)
READY = ServerKeys(OLD, coming=NEW)
AFTER = ServerKeys(NEW, [OLD])
LATER = ServerKeys(NEWER, [NEW, OLD])
ADA = key("ada")
READ = GetColony(colonyname=COLONY)


async def join(made: Cluster, name: str, keys: ServerKeys) -> None:
    await made.start(name, server_keys=keys)


@pytest.mark.parametrize(
    ("there", "comes"),
    [
        (BEFORE, ServerKeys(NEW)),
        (BEFORE, AFTER),  # it takes theirs, and they do not take its own
        (AFTER, BEFORE),
        (READY, ServerKeys(NEW)),
    ],
)
@virtual
async def test_nodes_that_do_not_take_each_others_key_stay_apart(
    there: ServerKeys, comes: ServerKeys
) -> None:
    async with cluster() as made:
        await join(made, "a", there)
        with pytest.raises(StoreError, match=r"do not take each other.*server\.key"):
            await join(made, "b", comes)
        assert made["a"].bench.rooms.fault() == ""


@virtual
async def test_a_key_is_changed_node_by_node() -> None:
    async with cluster() as made:
        for name in ("a", "b"):
            await join(made, name, BEFORE)
        for keys in (READY, AFTER):
            for name in ("a", "b"):
                await made.stop(name)
                await join(made, name, keys)
                assert [each.bench.rooms.fault() for each in made.members.values()] == ["", ""]


@virtual
async def test_what_was_sealed_before_a_change_stays_good_and_takes_effect_once() -> None:
    store = MemoryStore()
    async with bench(store, server_keys=BEFORE) as made:
        await made.found("ada")
        submit = sealing.of_now(made.dispatch, SubmitFunctionSpec(spec=spec()), ADA)
        first, _ = await sealing.present(made.dispatch, submit)
        late = sealing.of_now(made.dispatch, SubmitFunctionSpec(spec=spec()), ADA)
        assign = AssignProcess(colonyname=COLONY, timeout=5)
        granted, _ = await sealing.present(
            made.dispatch, sealing.of_now(made.dispatch, assign, ADA)
        )
        token = granted["attempt"]["token"]
        message = CloseSuccessful(processid=granted["processid"])
        close = sealing.of_attempt(made.dispatch, message, ADA, token, 1)
    for keys in (AFTER, LATER):
        async with bench(store, server_keys=keys) as made:
            again, _ = await sealing.present(made.dispatch, submit)
            assert again["processid"] == first["processid"]
            made_late, _ = await sealing.present(made.dispatch, late)
            assert made_late["processid"] != first["processid"]
            assert made.colony.waiting == 1
            await sealing.present(made.dispatch, close)
            assert len(made.colony.running) == 0


@virtual
async def test_who_has_pinned_a_former_key_is_led_to_the_newest() -> None:
    async with bench(MemoryStore(), server_keys=LATER) as made:
        await made.found("ada")
        epochs = made.rooms.epochs
        for pinned in (OLD, NEW, NEWER):
            given = sealing.EpochSeal(1, pinned.id, epochs.token, f"{pinned.id[:32]}", 60)
            sent = sealing.seal(READ, ADA, given)
            genuine = sent.opened((await made.dispatch.answer(sent.body)).body)
            assert (genuine.server, genuine.seal.ok) == (NEWER.id, True)


@virtual
async def test_who_has_pinned_another_server_is_told_which_one_this_is() -> None:
    async with bench(MemoryStore(), server_keys=BEFORE) as made:
        await made.found("ada")
        given = sealing.EpochSeal(1, NEW.id, made.rooms.epochs.token, "0" * 32, 60)
        body = (await made.dispatch.answer(sealing.seal(READ, ADA, given).body)).body
        told = envelope.parse_reply(body)
        assert isinstance(told, envelope.Failure)
        assert told.code == WrongServerError.code
        assert f"{OLD.id}: check the server id" in told.message


@virtual
async def test_who_knows_the_coming_key_is_answered_under_it() -> None:
    """Of nodes that are restarted one after the other the later ones sign for it too."""
    async with bench(MemoryStore(), server_keys=READY) as made:
        await made.found("ada")
        epochs = made.rooms.epochs
        given = sealing.EpochSeal(1, NEW.id, epochs.token, "0" * 32, 60)
        sent = sealing.seal(READ, ADA, given)
        body = (await made.dispatch.answer(sent.body)).body
        assert sent.opened(body).server == NEW.id
        usual = sealing.of_now(made.dispatch, READ, ADA)
        body = (await made.dispatch.answer(usual.body)).body
        assert usual.opened(body).server == OLD.id
        with pytest.raises(WrongServerError):
            usual._replace(server=NEW.id).opened(body)
