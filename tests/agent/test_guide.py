"""The parts of the agent's guide that need a server with workflows run as they stand there."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colonist_agent.function import Registry
from colonist_client.client import Client
from colonist_protocol import codec
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.workflow import WorkflowSpec
from tests.agent.workshop import workshop
from tests.support.rooms import COLONY, key, spec
from tests.support.transports import DirectTransport

GUIDE = Path(__file__).parents[2] / "docs/howto/write-an-agent.md"
HEADINGS = ("## Submit work from a function", "## In a workflow")


def _registry() -> Registry:
    """What the blocks below these headings register, one after the other."""
    scope: dict[str, Any] = {"__name__": "guide"}
    for heading in HEADINGS:
        part = GUIDE.read_text().split(f"{heading}\n")[1]
        found = re.search(r"```python\n(.*?)```", part, re.DOTALL)
        assert found is not None
        exec(compile(found[1], str(GUIDE), "exec"), scope)  # noqa: S102
    registry = scope["registry"]
    assert isinstance(registry, Registry)
    return registry


def _call(function: str, *args: Any, **changes: Any) -> FunctionSpec:
    raw = msgspec.Raw(codec.encode(list(args)))
    return spec(funcname=function, args=raw, executortype="device", **changes)


@pytest.mark.parametrize(
    ("function", "argument", "out"), [("sum_of_squares", 4, 14), ("square_in_a_thread", 7, 49)]
)
async def test_function_of_the_guide_submits_work(function: str, argument: int, out: int) -> None:
    async with workshop() as shop:
        await shop.bench.hire("ada", type="device")
        ada = shop.hand("ada", slots=2, registry=_registry())
        boss = Client(DirectTransport(shop.answer), key("boss"))
        async with ada.running():
            submitted = await boss.submit(_call(function, argument))
            done = await boss.wait(submitted.processid, timeout_s=30)
        assert (done.output(), done.errors) == ([out], [])


async def test_workflow_of_the_guide_grows() -> None:
    async with workshop() as shop:
        await shop.bench.hire("ada", type="device")
        ada = shop.hand("ada", registry=_registry())
        boss = Client(DirectTransport(shop.answer), key("boss"))
        nodes = [
            _call("measure", nodename="measure"),
            _call("report", nodename="report", dependencies=["measure"]),
        ]
        async with ada.running():
            graph = await boss.submit_workflow(WorkflowSpec(colonyname=COLONY, functionspecs=nodes))
            done = await boss.wait(graph.processids[1], timeout_s=30)
        assert (done.output(), done.errors) == (["convert: [68.0]"], [])
