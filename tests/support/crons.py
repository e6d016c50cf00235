"""Crons in tests: made, run, and which workflows they have started."""

from __future__ import annotations

from typing import Any

from colonist_protocol.cron import AddCron, GetCron
from colonist_protocol.cron import Cron as Wire
from colonist_protocol.identity import Identity
from colonist_server.repo import keys
from colonist_server.repo.records import WorkflowRecord, decode_workflow
from tests.support.generators import workflow
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, EPOCH_NS, Bench, key

MINUTELY = "0 * * * * *"


def add_of(name: str = "k", spec: str = "", **changes: Any) -> AddCron:
    """The message that makes a cron; of ten seconds where no expression is given."""
    default = -1 if "cronexpression" in changes else 10
    given = {"colonyname": COLONY, "interval": default, **changes}
    return AddCron(cron=Wire(name=name, workflowspec=spec or workflow(), **given))


async def add(server: Bench, who: Identity | None = None, **changes: Any) -> str:
    """Make a cron; its id."""
    return (await server.call(add_of(**changes), who or key("e1")))["cronid"]


async def read(server: Bench, id: str) -> dict[str, Any]:
    """A cron as a member sees it."""
    return await server.call(GetCron(cronid=id), key("e1"))


def runs(store: MemoryStore, id: str) -> list[WorkflowRecord]:
    """Every stored workflow that a cron has started, in the order of their starts."""
    records = [
        decode_workflow(item.value)
        for key, item in store._items.items()
        if key.startswith(keys.WORKFLOW)
    ]
    found = [record for record in records if record.source.hex() == id]
    return sorted(found, key=lambda record: record.submitted_ns)


def run_seconds(store: MemoryStore, id: str) -> list[float]:
    """When they were started, in seconds since the test began."""
    return [round((run.submitted_ns - EPOCH_NS) / 1e9, 3) for run in runs(store, id)]
