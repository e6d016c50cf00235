"""Crons: COLONIES-RPC sections 2.8, 3.11 and 4.8, in virtual time."""

from __future__ import annotations

import asyncio
import json

import pytest

from colonist_protocol import cron as wire
from colonist_protocol.colony import PauseAssignments, RemoveColony
from colonist_protocol.cron import GetCron, GetCrons, RemoveCron, RunCron
from colonist_protocol.executor import RejectExecutor, RemoveExecutor
from colonist_protocol.process import CloseFailed
from colonist_protocol.times import SECOND_NS, UNSET, from_text, to_text
from colonist_protocol.user import AddUser, ChangeUserId, RemoveUser, User
from colonist_protocol.workflow import (
    CancelProcessGraph,
    GetProcessGraph,
    RemoveAllProcessGraphs,
    RemoveProcessGraph,
)
from colonist_server.repo import cron_view, keys
from tests.support.clock import virtual
from tests.support.crons import MINUTELY, add, add_of, read, run_seconds, runs
from tests.support.generators import node, stored, workflow
from tests.support.memory_store import MemoryStore
from tests.support.rooms import (
    COLONY,
    COLONY_OWNER,
    EPOCH_NS,
    OWNER,
    Bench,
    bench,
    key,
    refused,
    settle,
    until,
)

E1 = key("e1")
UMA = key("uma")


def text(after_s: float) -> str:
    return to_text(EPOCH_NS + round(after_s * 1e9))


# -- what a cron is


@virtual
async def test_a_cron_is_returned_as_it_was_given() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        spec = '{ "colonyname" :"dev", "functionspecs":[ {"nodename":"a","funcname":"f"} ]}'
        made = await server.call(add_of(spec=spec, cronexpression="0/2 * * * * *"), E1)
        assert made == {
            "cronid": made["cronid"],
            "initiatorid": E1.id,
            "initiatorname": "e1",
            "colonyname": COLONY,
            "name": "k",
            "cronexpression": "0/2 * * * * *",
            "interval": -1,
            "random": False,
            "nextrun": text(2),
            "lastrun": UNSET,
            "workflowspec": spec,
            "prevprocessgraphid": "",
            "waitforprevprocessgraph": False,
            "checkerperiod": 0,
        }
        assert await read(server, made["cronid"]) == {**made, "checkerperiod": 1000}
        assert await server.call(GetCrons(colonyname=COLONY, count=10), E1) == [made]


@virtual
async def test_pycolonies_spells_the_flag_to_wait_in_its_own_way() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        made = await server.call(add_of(waitforprevprocessgrap=True), E1)
        assert made["waitforprevprocessgraph"] is True
        assert "waitforprevprocessgrap" not in made
        made = await server.call(add_of("other", waitforprevprocessgrap=False), E1)
        assert made["waitforprevprocessgraph"] is False


@virtual
async def test_an_interval_wins_over_an_expression() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        made = await server.call(add_of(interval=7, cronexpression="nonsense"), E1)
        assert (made["interval"], made["cronexpression"]) == (7, "nonsense")


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"interval": 0}, "invalid_value", "Cron interval must be -1 (disabled) or larger than 0"),
        ({"interval": -2}, "invalid_value", "Cron interval must be -1 (disabled)"),
        ({"interval": wire.MAX_INTERVAL_S + 1}, "invalid_value", "at most"),
        ({"interval": -1}, "invalid_value", "empty cron expression string"),
        ({"cronexpression": "* * * * *"}, "invalid_value", "expected exactly 6 fields, found 5: ["),
        ({"cronexpression": "0 0 0 31 2 *"}, "invalid_value", "day 31"),
        ({"cronexpression": "x" * 257}, "invalid_value", "longer than 256"),
        ({"cronexpression": "x" * 2000, "interval": 5}, "bad_name", "longer than 1024"),
        ({"cronexpression": "TZ=Nowhere/At_All 0 0 0 * * *"}, "invalid_value", "no time zone"),
        ({"cronexpression": "TZ=Europe 0 0 0 * * *"}, "invalid_value", "no time zone"),
        ({"cronexpression": "TZ=../../etc/passwd 0 0 0 * * *"}, "invalid_value", "no time zone"),
        ({"cronexpression": "TZ=\u00e5 0 0 0 * * *"}, "invalid_value", "no time zone"),
        ({"cronexpression": MINUTELY, "random": True}, "invalid_value", "Random cron is only"),
        ({"name": ""}, "bad_name", "cron name is empty"),
        ({"name": "a:b"}, "bad_name", "cron name"),
        ({"spec": "not json"}, "not_json", "invalid JSON"),
        ({"spec": "[]"}, "wrong_type", "workflowspec"),
        ({"spec": " " * (wire.MAX_SPEC_BYTES + 1)}, "too_large", "workflowspec"),
        ({"spec": workflow(node("a", "nobody"))}, "invalid_value", "nobody"),
        ({"spec": '{"functionspecs":[]}'}, "invalid_value", ""),
    ],
)
@virtual
async def test_what_makes_no_sense_is_refused_when_it_is_added(changes, code, words) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        status, found, message = await refused(server, add_of(**changes))
        assert (status in (400, 413), found) == (True, code), message
        assert words in message
        assert not stored(store, keys.CRON, keys.CRON_NAME)


@virtual
async def test_a_name_is_taken_once_and_free_after_the_removal() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server)
        assert await refused(server, add_of()) == (
            409,
            "exists",
            f"Cron with name <k> in Colony <{COLONY}> already exists",
        )
        results = await asyncio.gather(
            *(add(server, name="same") for _ in range(5)), return_exceptions=True
        )
        assert sum(isinstance(each, str) for each in results) == 1
        await server.call(RemoveCron(cronid=id), E1)
        again = await add(server)
        assert again != id
        status, code, message = await refused(server, GetCron(cronid=id))
        assert (status, code, message) == (404, "not_found", "Failed to get cron, cron is nil")
        for gone in (RemoveCron(cronid=id), RunCron(cronid=id)):
            assert (await refused(server, gone))[:2] == (404, "not_found")


@virtual
async def test_crons_are_listed_oldest_first_and_counted() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        assert await server.call(GetCrons(colonyname=COLONY, count=10), E1) == []
        for name in "cab":
            await add(server, name=name)
        listed = await server.call(GetCrons(colonyname=COLONY, count=2), E1)
        assert [each["name"] for each in listed] == ["c", "a"]
        for count in (-1, wire.MAX_LIST + 1):
            message = GetCrons(colonyname=COLONY, count=count)
            assert (await refused(server, message))[1] == "invalid_value"


@virtual
async def test_a_colony_has_so_many_crons_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_CRONS", 3)
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        for number in range(3):
            await add(server, name=f"k{number}")
        assert (await refused(server, add_of()))[:2] == (429, "busy")


# -- when it runs


@virtual
async def test_an_interval_runs_first_after_one_interval_and_then_on_its_grid() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        made = await server.call(add_of(interval=10), E1)
        first = from_text(made["nextrun"]) - EPOCH_NS
        assert first == pytest.approx(10 * SECOND_NS, abs=SECOND_NS // 1000)
        await until(35)
        assert run_seconds(store, made["cronid"]) == [10, 20, 30]
        shown = await read(server, made["cronid"])
        assert shown["nextrun"][:20] == text(40)[:20]
        assert shown["lastrun"][:20] == text(30)[:20]
        graph = await server.call(GetProcessGraph(processgraphid=shown["prevprocessgraphid"]), E1)
        assert (graph["initiatorid"], graph["initiatorname"]) == (E1.id, "e1")
        assert graph["submissiontime"] == shown["lastrun"]


@virtual
async def test_an_expression_runs_at_the_seconds_that_it_names() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        each = await add(server, name="each", cronexpression="0/1 * * * * *")
        minutely = await add(server, name="minutely", cronexpression="30 * * * * ?")
        every = await add(server, name="every", cronexpression="@every 1m")
        await until(125.5)
        assert run_seconds(store, each) == list(range(1, 126))
        assert run_seconds(store, minutely) == [30, 90]
        assert run_seconds(store, every) == [60, 120]


@virtual
async def test_a_random_interval_runs_once_in_each_at_its_own_moments() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        ids = [await add(server, name=f"k{number}", random=True) for number in range(3)]
        await until(100)
        # Not rounded: a moment in the last half millisecond would fall into the next interval.
        moments = [[run.submitted_ns - EPOCH_NS for run in runs(store, id)] for id in ids]
        for found in moments:
            assert [each // (10 * SECOND_NS) for each in found] == list(range(10))
        offsets = {each % (10 * SECOND_NS) for found in moments for each in found}
        assert len(offsets) > 25


@virtual
async def test_the_zone_of_an_expression_counts_and_without_one_it_is_utc() -> None:
    async with MemoryStore() as store, bench(store) as server:  # it is 2027-01-15 08:00 UTC
        await server.found("e1")
        for name, expression, hour in (
            ("utc", "0 0 12 * * *", 12),
            ("berlin", "TZ=Europe/Berlin 0 0 12 * * *", 11),
            ("kathmandu", "CRON_TZ=Asia/Kathmandu 0 45 17 * * *", 12),
        ):
            made = await server.call(add_of(name, cronexpression=expression), E1)
            assert made["nextrun"].startswith(f"2027-01-15T{hour}:00:00")


@virtual
async def test_a_paused_colony_has_its_runs() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server)
        await server.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
        await until(25)
        assert run_seconds(store, id) == [10, 20]


@virtual
async def test_a_removed_cron_runs_no_more_and_what_it_started_goes_on() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server)
        await until(11)
        await server.call(RemoveCron(cronid=id), E1)
        await until(60)
        assert run_seconds(store, id) == [10]
        assert (await server.assign("e1")).spec.funcname == "a"


@virtual
async def test_a_removed_colony_takes_its_crons_with_it() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        await add(server)
        await server.call(RemoveColony(colonyname=COLONY), OWNER)
        await until(30)
        assert not stored(store, keys.CRON, keys.CRON_NAME, keys.WORKFLOW)
        await server.found("e1")
        assert await server.call(GetCrons(colonyname=COLONY, count=10), E1) == []


# -- by hand


@virtual
async def test_a_run_by_hand_starts_at_once_and_begins_a_new_interval() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1", "e2")
        id = await add(server)
        await until(4)
        before = await server.call(RunCron(cronid=id), key("e2"))
        assert (before["lastrun"], before["prevprocessgraphid"]) == (UNSET, "")
        shown = await read(server, id)
        assert run_seconds(store, id) == [4]
        assert shown["lastrun"][:20] == text(4)[:20]
        assert shown["nextrun"][:20] == text(14)[:20]
        graph = await server.call(GetProcessGraph(processgraphid=shown["prevprocessgraphid"]), E1)
        assert graph["initiatorname"] == "e1"
        await until(30)
        assert run_seconds(store, id) == [4, 14, 24]


@virtual
async def test_runs_by_hand_do_not_wait_and_each_is_one() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, cronexpression=MINUTELY, waitforprevprocessgraph=True)
        await asyncio.gather(*(server.call(RunCron(cronid=id), E1) for _ in range(20)))
        assert len(runs(store, id)) == 20
        assert len({run.submitted_ns for run in runs(store, id)}) == 20
        assert (await read(server, id))["nextrun"] == text(60)


@virtual
async def test_a_run_by_hand_keeps_the_request_that_asked_for_it() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server)
        await server.call(RunCron(cronid=id), E1)
        await until(11)
        by_hand, planned = runs(store, id)
        assert by_hand.digest
        assert by_hand.signature
        assert not planned.digest


# -- the one before


async def _finish(server: Bench, *, count: int = 1) -> None:
    for _ in range(count):
        await server.close("e1", (await server.assign("e1")).processid)
    await settle()


@virtual
async def test_a_run_waits_for_the_one_before_and_starts_when_that_ends() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, waitforprevprocessgraph=True)
        await until(47)
        assert run_seconds(store, id) == [10]
        assert (await read(server, id))["nextrun"][:20] == text(20)[:20]
        await _finish(server)
        assert run_seconds(store, id) == [10, 47], "once for all that was missed, and at once"
        await _finish(server)
        await until(61)
        assert run_seconds(store, id) == [10, 47, 50]


@pytest.mark.parametrize("end", ["cancel", "fail", "remove"])
@virtual
async def test_w12_any_end_of_the_one_before_is_an_end(end: str) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, waitforprevprocessgraph=True)
        await until(25)
        previous = (await read(server, id))["prevprocessgraphid"]
        if end == "cancel":
            await server.call(CancelProcessGraph(processgraphid=previous), E1)
        elif end == "remove":
            await server.call(RemoveProcessGraph(processgraphid=previous), E1)
        else:
            process = await server.assign("e1")
            await server.call(CloseFailed(processid=process.processid), E1)
        await settle()
        assert len(runs(store, id)) == (1 if end == "remove" else 2)
        assert run_seconds(store, id)[-1] == 25


@virtual
async def test_the_output_of_the_leaves_before_is_the_input_of_the_roots() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        await add(server)
        await until(11)
        await server.close("e1", (await server.assign("e1")).processid, b'[1, "two"]')
        await until(21)
        assert json.loads(bytes((await server.assign("e1")).inputs)) == [1, "two"]


@virtual
async def test_what_a_run_was_given_does_not_change() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        await add(server)
        await until(11)
        first = await server.assign("e1")
        await until(21)
        second = await server.assign("e1")
        assert bytes(second.inputs) == b"[]", "the run before goes on"
        await server.close("e1", first.processid, b'["late"]')
        await server.close("e1", second.processid, b'["second"]')
        assert bytes((await server.get("e1", second.processid)).inputs) == b"[]"
        await until(31)
        needed = RemoveProcessGraph(processgraphid=second.processgraphid)
        assert (await refused(server, needed))[:2] == (409, "conflict")
        await server.call(RemoveAllProcessGraphs(colonyname=COLONY, state=2), COLONY_OWNER)
        third = await server.assign("e1")
        assert bytes(third.inputs) == b'["second"]'
        await server.close("e1", third.processid)
        await settle()
        await server.call(needed, E1)


# -- what cannot start


@virtual
async def test_a_cron_whose_creator_is_removed_is_disabled_with_the_reason() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        user = User(colonyname=COLONY, userid=UMA.id, name="uma")
        await server.call(AddUser(user=user), COLONY_OWNER)
        id = await add(server, UMA)
        await until(11)
        await server.call(RemoveUser(colonyname=COLONY, name="uma"), COLONY_OWNER)
        await until(25)
        assert run_seconds(store, id) == [10]
        shown = await read(server, id)
        assert shown["disabledreason"] == "its creator uma is no member any more"
        listed = await server.call(GetCrons(colonyname=COLONY, count=1), E1)
        assert listed[0]["disabledreason"] == shown["disabledreason"]
        assert (await refused(server, RunCron(cronid=id)))[:2] == (409, "conflict")
        await server.call(AddUser(user=user), COLONY_OWNER)
        await server.call(RunCron(cronid=id), E1)
        assert "disabledreason" not in await read(server, id)
        await until(36)
        assert run_seconds(store, id) == [10, 25, 35]


@virtual
async def test_a_cron_goes_on_when_its_creator_has_another_key() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        user = User(colonyname=COLONY, userid=UMA.id, name="uma")
        await server.call(AddUser(user=user), COLONY_OWNER)
        id = await add(server, UMA)
        new = key("uma's new key")
        await server.call(ChangeUserId(colonyname=COLONY, userid=new.id), UMA)
        await until(11)
        assert [run.initiator_id for run in runs(store, id)] == [new.id]


@virtual
async def test_a_cron_of_an_executor_that_was_not_heard_goes_on_others_do_not() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1", "quiet", "quiet and gone", "gone", "bad")
        ids = {
            name: await add(server, key(name), name=name)
            for name in ("quiet", "quiet and gone", "gone", "bad")
        }
        for name in ("quiet", "quiet and gone"):  # as who watches presence does
            await server.rooms.members.remove_executor(server.colony, name)
        for message in (
            RemoveExecutor(colonyname=COLONY, executorname="quiet and gone"),
            RemoveExecutor(colonyname=COLONY, executorname="gone"),
            RejectExecutor(colonyname=COLONY, executorname="bad"),
        ):
            await server.call(message, COLONY_OWNER)
        await until(15)
        assert [len(runs(store, id)) for id in ids.values()] == [1, 0, 0, 0]
        for name in ("quiet and gone", "gone", "bad"):
            assert "disabledreason" in await read(server, ids[name])


@virtual
async def test_a_zone_that_this_node_does_not_know_disables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server, cronexpression="TZ=Europe/Berlin 0 * * * * *")
        monkeypatch.setattr(cron_view, "ZoneInfo", _no_zone)
        async with bench(store) as server:
            await until(61)
            assert "no time zone" in (await read(server, id))["disabledreason"]
            assert not runs(store, id)
            status, code, _ = await refused(server, RunCron(cronid=id))
            assert (status, code) == (400, "invalid_value")


def _no_zone(name: str) -> None:
    raise KeyError(name)
