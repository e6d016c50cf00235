"""What the client sends about generators, and what it makes of the replies."""

from __future__ import annotations

from colonist_protocol import codec
from colonist_protocol.generator import (
    MAX_LIST,
    AddGenerator,
    Generator,
    GetGenerator,
    GetGenerators,
    PackGenerator,
    RemoveGenerator,
    ResolveGenerator,
)
from colonist_protocol.workflow import WorkflowSpec
from tests.core.client.test_workflows import SPEC, Desk
from tests.support.clock import virtual

MADE = Generator(generatorid="g", colonyname="home", name="collect", trigger=3)


@virtual
async def test_a_generator_carries_its_workflow_as_a_text() -> None:
    desk = Desk(MADE)
    assert await desk.client.add_generator("home", "collect", SPEC, trigger=3, timeout_s=60) == MADE
    (asked,) = desk.asked
    assert isinstance(asked, AddGenerator)
    new = asked.generator
    assert (new.colonyname, new.name, new.trigger, new.timeout) == ("home", "collect", 3, 60)
    assert codec.decode(new.workflowspec.encode(), WorkflowSpec, "spec") == SPEC


@virtual
async def test_generators_are_read_by_id_by_name_and_all() -> None:
    desk = Desk(MADE)
    assert await desk.client.generator("g") == MADE
    assert await desk.client.generator_by_name("home", "collect") == MADE
    many = Desk([MADE])
    assert await many.client.generators("home") == [MADE]
    assert await Desk(None).client.generators("home", count=1) == []
    assert desk.asked == [
        GetGenerator(generatorid="g"),
        ResolveGenerator(colonyname="home", generatorname="collect"),
    ]
    assert many.asked == [GetGenerators(colonyname="home", count=MAX_LIST)]


@virtual
async def test_orders_about_generators() -> None:
    desk = Desk({})
    await desk.client.pack_generator("g", "1.5")
    await desk.client.remove_generator("g")
    assert desk.asked == [
        PackGenerator(generatorid="g", arg="1.5"),
        RemoveGenerator(generatorid="g"),
    ]
