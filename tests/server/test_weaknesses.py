"""The weaknesses of COLONIES-RPC section 5 are absent, each by its number: 5.2, 5.5 and the page.

Security (5.1), work (5.3), cost (5.4), and what workflows, generators, crons and subscriptions
have, are in files of their own beside this one. What belongs to messages that are not served is
answered with `not_supported`; docs/explain/compatibility.md lists it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colonist_protocol import codec, messages
from colonist_protocol.colony import (
    AddColony,
    Colony,
    GetColonies,
    GetColonyStatistics,
    GetPauseStatus,
    PauseAssignments,
    RemoveColony,
)
from colonist_protocol.envelope import Failure, pack_request, parse_reply
from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    Executor,
    GetExecutor,
    GetExecutors,
    RejectExecutor,
    RemoveExecutor,
)
from colonist_protocol.function import GetFunctions, RemoveFunction
from colonist_protocol.log import AddExecutorLog, GetLogs, SearchLogs
from colonist_protocol.message import Message
from colonist_protocol.process import (
    CancelProcess,
    CloseFailed,
    CloseSuccessful,
    GetProcess,
    GetProcesses,
    GetProcessHistory,
    RemoveAllProcesses,
    RemoveProcess,
    SetOutput,
    State,
)
from colonist_protocol.server import GetStatistics
from colonist_protocol.times import UNSET
from colonist_protocol.user import AddUser, GetUser, GetUserById, GetUsers, RemoveUser, User
from tests.server.house import House
from tests.server.people import (
    STRANGER,
    attribute_of,
    function_of,
    world,
)
from tests.support.clock import virtual
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, TYPE, key

ADA, UMA = key("ada"), key("uma")
COMPATIBILITY = Path(__file__).parents[2] / "docs" / "explain" / "compatibility.md"

# By weakness: the messages that have it, none of which is served.
NOT_SERVED = {
    "G7": ["channelappendmsg"],
}


@pytest.mark.parametrize("weakness", NOT_SERVED)
@virtual
async def test_what_is_not_served_cannot_be_weak(weakness: str) -> None:
    async with world() as made:
        await made.populate()
        before = await made.dump()
        for kind in NOT_SERVED[weakness]:
            assert kind in messages.UNSUPPORTED
            for identity in (ADA, COLONY_OWNER, OWNER):
                message = msgspec.defstruct("Bare", [], bases=(Message,), tag=kind)
                reply = parse_reply((await made.answer(message(), identity)).body)
                assert isinstance(reply, Failure)
                assert (reply.status, reply.code) == (501, "not_supported")
        assert await made.dump() == before


def test_the_page_on_compatibility_lists_every_weakness_and_why() -> None:
    text = COMPATIBILITY.read_text()
    numbers = [
        *(f"S{number}" for number in range(1, 17)),
        *(f"P{number}" for number in range(1, 10)),
        *(f"W{number}" for number in range(1, 25)),
        *(f"G{number}" for number in range(1, 10)),
    ]
    assert [number for number in numbers if f"| {number} |" not in text] == []


# -- 5.2 what crashed or poisoned


async def test_P3_null_is_refused_like_any_other_nonsense(home: House) -> None:
    for body in (b"null", b'{"payloadtype":"addcolonymsg","payload":"bnVsbA==","signature":""}'):
        got = await home.post(body)
        assert got.status in (400, 403)
        assert got.payload["message"]
    text = codec.to_base64(b"null")
    signed = {
        "payloadtype": "addcolonymsg",
        "payload": text,
        "signature": OWNER.sign(text.encode()),
    }
    assert (await home.post(json.dumps(signed).encode())).code == "wrong_type"


@virtual
async def test_P4_a_colon_in_a_name_is_refused_and_lists_go_on() -> None:
    async with world() as made:
        await made.populate()
        executor = Executor(
            executorid=STRANGER.id, executortype=TYPE, executorname="a:b", colonyname=COLONY
        )
        refused = await made.refuse(AddExecutor(executor=executor), COLONY_OWNER)
        assert refused.failure.code == "bad_name"
        names = {each["executorname"] for each in await made.call(_executors(), ADA)}
        assert names == {"ada", "ben", "una", "pat", "rex"}
        assert (await made.call(GetStatistics(), OWNER))["executors"] == 6


def _executors() -> GetExecutors:
    return GetExecutors(colonyname=COLONY)


@virtual
async def test_P8_a_colony_made_anew_is_not_paused() -> None:
    async with world() as made:
        await made.populate()
        await made.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        await made.found("ada")
        status = await made.call(GetPauseStatus(colonyname=COLONY), ADA)
        assert status["ispaused"] is False
        await made.submit("ada")
        await made.assign("ada")


# -- 5.5 blemishes


@virtual
async def test_55_what_is_not_there_is_404_and_what_is_there_already_is_409() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        await made.call(RemoveProcess(processid=made.waiting), UMA)
        missing: list[tuple[Any, Any]] = [
            (RemoveColony(colonyname="none"), OWNER),
            (GetUser(colonyname=COLONY, name="none"), ADA),
            (GetUserById(colonyname=COLONY, userid=STRANGER.id), ADA),
            (RemoveUser(colonyname=COLONY, name="none"), COLONY_OWNER),
            (GetExecutor(colonyname=COLONY, executorname="none"), ADA),
            (ApproveExecutor(colonyname=COLONY, executorname="none"), COLONY_OWNER),
            (RejectExecutor(colonyname=COLONY, executorname="none"), COLONY_OWNER),
            (RemoveExecutor(colonyname=COLONY, executorname="none"), COLONY_OWNER),
            (RemoveFunction(functionid="none"), ADA),
            (GetLogs(colonyname=COLONY, executorname="none", count=1), ADA),
            (GetLogs(colonyname=COLONY, processid=made.waiting, count=1), ADA),
            (function_of("none"), ADA),
        ]
        missing += [
            (kind(processid=made.waiting), ADA)
            for kind in (GetProcess, RemoveProcess, CancelProcess, CloseFailed, CloseSuccessful)
        ]
        for message, identity in missing:
            refused = await made.refuse(message, identity)
            assert (refused.failure.status, refused.failure.code) == (404, "not_found"), message
        there = [
            (AddColony(colony=Colony(colonyid=STRANGER.id, name=COLONY)), OWNER),
            (AddUser(user=User(colonyname=COLONY, userid=STRANGER.id, name="uma")), COLONY_OWNER),
        ]
        for message, identity in there:
            refused = await made.refuse(message, identity)
            assert (refused.failure.status, refused.failure.code) == (409, "exists"), message


async def test_55_a_refusal_has_a_body(home: House) -> None:
    for message in (
        GetColonyStatistics(colonyname=COLONY),
        GetProcessHistory(colonyname=COLONY, seconds=1),
    ):
        got = await home.post(pack_request(message, STRANGER))
        assert (got.status, got.code) == (403, "access_denied")


@virtual
async def test_55_an_empty_list_is_a_list() -> None:
    async with world() as made:
        assert await made.call(GetColonies(), OWNER) == []
        await made.found("ada")
        for message in (
            GetUsers(colonyname=COLONY),
            GetFunctions(colonyname=COLONY),
            GetProcesses(colonyname=COLONY, count=9),
            GetProcessHistory(colonyname=COLONY, seconds=9),
            GetLogs(colonyname=COLONY, executorname="ada", count=9),
            SearchLogs(colonyname=COLONY, text="a", days=1, count=9),
        ):
            assert await made.call(message, ADA) == []


@virtual
async def test_55_unset_times_are_the_year_one_in_utc() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        process = await made.call(GetProcess(processid=id), UMA)
        unset = ("starttime", "endtime", "waitdeadline", "execdeadline")
        assert [process[name] for name in unset] == [UNSET] * 4
        executor = await made.call(GetExecutor(colonyname=COLONY, executorname="pat"), ADA)
        assert executor["lastheardfromtime"] == UNSET


@virtual
async def test_55_removing_all_leaves_what_runs() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        await made.call(RemoveAllProcesses(colonyname=COLONY, state=-1), COLONY_OWNER)
        assert await made.list(State.RUNNING) == [made.running]


@virtual
async def test_55_refusals_speak_of_what_was_asked() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        texts = {
            "log": AddExecutorLog(colonyname=COLONY, executorname="ben", message="m"),
            "output": SetOutput(processid=made.succeeded, out=msgspec.Raw(b"[1]")),
            "attribute": attribute_of(made.succeeded),
            "user": GetUser(colonyname=COLONY, name="none"),
        }
        for word, message in texts.items():
            assert word in str(await made.refuse(message, ADA))
