"""What the client sends about crons, and what it makes of the replies."""

from __future__ import annotations

from colonist_protocol import codec
from colonist_protocol.cron import (
    MAX_LIST,
    OFF,
    AddCron,
    Cron,
    GetCron,
    GetCrons,
    RemoveCron,
    RunCron,
)
from colonist_protocol.workflow import WorkflowSpec
from tests.core.client.test_workflows import SPEC, Desk
from tests.support.clock import virtual

MADE = Cron(cronid="k", colonyname="home", name="nightly", interval=OFF)


@virtual
async def test_a_cron_carries_its_workflow_as_a_text() -> None:
    desk = Desk(MADE)
    made = await desk.client.add_cron("home", "nightly", SPEC, expression="@daily", waits=True)
    assert made == MADE
    await desk.client.add_cron("home", "often", SPEC, interval_s=5, is_random=True)
    first, second = desk.asked
    assert isinstance(first, AddCron)
    new = first.cron
    assert (new.colonyname, new.name, new.cronexpression) == ("home", "nightly", "@daily")
    assert (new.interval, new.random, new.waits) == (OFF, False, True)
    assert codec.decode(new.workflowspec.encode(), WorkflowSpec, "spec") == SPEC
    assert isinstance(second, AddCron)
    new = second.cron
    assert (new.interval, new.random, new.waits, new.cronexpression) == (5, True, False, "")


@virtual
async def test_crons_are_read_by_id_and_all() -> None:
    desk = Desk(MADE)
    assert await desk.client.cron("k") == MADE
    many = Desk([MADE])
    assert await many.client.crons("home") == [MADE]
    assert await Desk(None).client.crons("home", count=1) == []
    assert desk.asked == [GetCron(cronid="k")]
    assert many.asked == [GetCrons(colonyname="home", count=MAX_LIST)]


@virtual
async def test_orders_about_crons() -> None:
    desk = Desk(MADE)
    assert await desk.client.run_cron("k") == MADE
    await desk.client.remove_cron("k")
    assert desk.asked == [RunCron(cronid="k"), RemoveCron(cronid="k")]
