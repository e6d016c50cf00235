"""Our client runs the workflow of docs/howto/workflows.md on a server over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.http import HttpTransport
from colonist_protocol import codec
from colonist_protocol.process import Process, State
from colonist_protocol.workflow import WorkflowSpec
from tests.server.house import House
from tests.support.rooms import COLONY, COLONY_OWNER, key, spec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "workflows.md"
TYPES = {"agent": "ann", "worker": "wim"}


@pytest.fixture
async def clients(home: House) -> AsyncGenerator[dict[str, Client]]:
    """One client for each type of executor that the page names."""
    made: dict[str, Client] = {}
    for type, name in TYPES.items():
        made[type] = Client(HttpTransport(home.url), await home.hire(name, type))
    yield made
    for client in made.values():
        await client.aclose()


def page_spec() -> WorkflowSpec:
    text = PAGE.read_text().partition("```json\n")[2].partition("```")[0]
    return codec.decode(text.encode(), WorkflowSpec, "spec")


def python(number: int) -> str:
    """A block of Python of the page, as the body of a coroutine."""
    block = PAGE.read_text().split("```python\n")[number].partition("```")[0]
    lines = "".join(f"    {line}\n" for line in block.splitlines())
    return f"async def run(client, spec, graph, process):\n{lines}    return locals()\n"


async def typed(number: int, client: Client, **names: Any) -> dict[str, Any]:
    """Run a block of Python of the page."""
    found: dict[str, Any] = {}
    exec(python(number), found)  # noqa: S102 - it is what the page says
    given = {"spec": None, "graph": None, "process": None, **names}
    return await found["run"](client, **given)


async def run(client: Client, name: str, *out: Any) -> Process:
    process = await client.assign(COLONY, timeout_s=10)
    assert process is not None
    assert process.spec.nodename == name
    await client.close(process.processid, out)
    return process


def inputs(process: Process) -> Any:
    return json.loads(bytes(process.inputs))


async def test_the_page(clients: dict[str, Client]) -> None:
    agent, worker = clients["agent"], clients["worker"]
    wanted = page_spec()
    assert wanted.colonyname == COLONY
    seen = await typed(1, agent, spec=wanted)
    graph = seen["graph"]
    assert [each.data["label"] for each in graph.nodes] == ["read", "mean", "peak", "show"]
    assert len(graph.edges) == 4
    assert [each.processid for each in seen["members"]] == graph.processids
    await run(agent, "read", 1, 2, 3)
    mean = await run(worker, "mean", 2)
    assert inputs(mean) == [1, 2, 3]
    peak = await worker.assign(COLONY, timeout_s=10)
    assert peak is not None
    new = spec(nodename="new", executortype="agent")
    added = (await typed(2, worker, spec=new, graph=graph, process=peak))["added"]
    assert added.parents == [peak.processid]
    await worker.close(peak.processid, [3])
    assert inputs(await run(agent, "show")) == [2, 3]
    assert (await agent.workflow(graph.processgraphid)).state == State.RUNNING
    await run(agent, "new")
    done = await agent.workflow(graph.processgraphid)
    assert done.state == State.SUCCESS
    assert done.processids == [*graph.processids, added.processid]
    assert done.is_final


async def test_lists_cancel_and_removal(home: House, clients: dict[str, Client]) -> None:
    client = clients["agent"]
    first = await client.submit_workflow(page_spec())
    second = await client.submit_workflow(page_spec())
    ids = [second.processgraphid, first.processgraphid]
    assert [each.processgraphid for each in await client.workflows(COLONY)] == ids
    await client.cancel_workflow(first.processgraphid)
    with pytest.raises(ServerError) as raised:
        await client.cancel_workflow(first.processgraphid)
    assert (raised.value.status, raised.value.code) == (409, "conflict")
    listed = await client.workflows(COLONY, state=State.CANCELLED)
    assert [each.processgraphid for each in listed] == ids[1:]
    members = await client.workflow_members(COLONY, first.processgraphid, state=State.CANCELLED)
    assert [each.processid for each in members] == first.processids
    await client.remove_workflow(second.processgraphid)
    async with Client(HttpTransport(home.url), COLONY_OWNER) as owner:
        await owner.remove_all_workflows(COLONY, state=State.CANCELLED)
    assert await client.workflows(COLONY) == []


async def test_a_foreign_member_learns_nothing(home: House, clients: dict[str, Client]) -> None:
    graph = await clients["agent"].submit_workflow(page_spec())
    async with Client(HttpTransport(home.url), key("eve")) as eve:
        with pytest.raises(ServerError) as raised:
            await eve.workflow(graph.processgraphid)
        assert raised.value.status == 403
