"""A sealed reply names the event that its request caused: an export has that event."""

from __future__ import annotations

import pytest

from colonist_protocol.colony import ChangeColonyId, PauseAssignments, ResumeAssignments
from colonist_protocol.evidence import event_hash
from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    ChangeExecutorId,
    Executor,
    RejectExecutor,
    RemoveExecutor,
)
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import AssignProcess, CancelProcess, SubmitFunctionSpec
from colonist_protocol.user import AddUser, ChangeUserId, RemoveUser, User
from tests.server.people import World, world
from tests.support import sealing
from tests.support.audit import exported
from tests.support.clock import virtual
from tests.support.rooms import COLONY, COLONY_OWNER, TYPE, key, spec

ADA, UMA, NEW = key("ada"), key("uma"), key("new")
EXECUTOR = Executor(executorid=NEW.id, executortype=TYPE, executorname="new", colonyname=COLONY)

CHANGES: dict[str, tuple[Message, Identity]] = {
    "executor_added": (AddExecutor(executor=EXECUTOR), COLONY_OWNER),
    "executor_approved": (ApproveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER),
    "executor_rejected": (RejectExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER),
    "executor_removed": (RemoveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER),
    "executor_id_changed": (ChangeExecutorId(colonyname=COLONY, executorid=NEW.id), ADA),
    "user_added": (AddUser(user=User(colonyname=COLONY, userid=NEW.id, name="n")), COLONY_OWNER),
    "user_removed": (RemoveUser(colonyname=COLONY, name="uma"), COLONY_OWNER),
    "user_id_changed": (ChangeUserId(colonyname=COLONY, userid=NEW.id), UMA),
    "paused": (PauseAssignments(colonyname=COLONY), COLONY_OWNER),
    "resumed": (ResumeAssignments(colonyname=COLONY), COLONY_OWNER),
    "colony_id_changed": (ChangeColonyId(colonyname=COLONY, colonyid=NEW.id), COLONY_OWNER),
}


async def receipt(made: World, message: Message, by: Identity) -> str:
    """The event that a reply names."""
    _, seal = await sealing.present(made.dispatch, sealing.of_now(made.dispatch, message, by))
    assert seal.ok
    return seal.event


async def what_is(made: World, event: str, owner: Identity = COLONY_OWNER) -> tuple[str, str]:
    """What an event was, and who caused it."""
    export = await exported(made, by=owner)
    [line] = [
        line
        for entries in export.chains.values()
        for line, _ in entries
        if event_hash(line).hex() == event
    ]
    return line.what, line.who


@pytest.mark.parametrize("what", CHANGES)
@virtual
async def test_a_change_of_members_is_receipted(what: str) -> None:
    message, by = CHANGES[what]
    async with world() as made:
        await made.populate()
        event = await receipt(made, message, by)
        owner = NEW if what == "colony_id_changed" else COLONY_OWNER
        assert await what_is(made, event, owner) == (what, by.id)


@virtual
async def test_the_life_of_a_process_is_receipted() -> None:
    async with world() as made:
        await made.populate()
        found: list[tuple[str, str]] = []
        submitted = await receipt(made, SubmitFunctionSpec(spec=spec()), UMA)
        found.append(await what_is(made, submitted))
        [row] = made.rooms.view.colonies[COLONY].queue
        for message, by in (
            (AssignProcess(colonyname=COLONY, timeout=1), ADA),
            (CancelProcess(processid=row.id), UMA),
        ):
            found.append(await what_is(made, await receipt(made, message, by)))
        assert found == [("submitted", UMA.id), ("assigned", ADA.id), ("cancelled", UMA.id)]


@virtual
async def test_what_changes_nothing_has_no_receipt() -> None:
    async with world() as made:
        await made.populate()
        assert not await receipt(made, ChangeUserId(colonyname=COLONY, userid=UMA.id), UMA)
