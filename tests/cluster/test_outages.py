"""What one outage does, and how soon it is over."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.http import HttpTransport
from colonist_client.transport import UnreachableError
from colonist_protocol.cron import Cron
from colonist_protocol.workflow import WorkflowSpec
from colonist_server.repo import keys
from colonist_server.repo.records import decode_leader, decode_workflow
from colonist_server.store.opening import open_store
from tests.cluster.campaign import Campaign
from tests.cluster.house import House, Server, on_etcd
from tests.cluster.survival import finish, survive
from tests.cluster.trouble import Trouble
from tests.support.rooms import COLONY, key, spec

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEADLINE_S = 30.0
FAILOVER_S = 5.0


async def leader(house: House) -> Server:
    """The server that leads, by what the store says; waits until there is one."""
    async with asyncio.timeout(DEADLINE_S), await open_store(house.store) as store:
        while True:
            item = await store.get(keys.LEADER)
            if item is not None:
                name = decode_leader(item.value).node
                return next(server for server in house.servers if server.name == name)
            await asyncio.sleep(0.05)


async def runs(house: House, cron: Cron) -> list[float]:
    """When a cron started workflows, in seconds since 1970."""
    async with await open_store(house.store) as store:
        items = (await store.range(keys.WORKFLOW)).items
    records = [decode_workflow(item.value) for item in items]
    return sorted(
        record.submitted_ns / 1e9 for record in records if record.source.hex() == cron.cronid
    )


async def runs_after(house: House, cron: Cron, moment: float, count: int) -> list[float]:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = [run for run in await runs(house, cron) if run > moment]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.1)


async def campaign_on(house: House, *, processes: int = 0, executors: int = 3) -> Campaign:
    campaign = Campaign(house.urls, seed=0, processes=processes, executors=executors, lease_s=20)
    await campaign.found()
    return campaign


async def test_crons_go_on_when_the_leader_is_killed(tmp_path: Path) -> None:
    async with on_etcd(tmp_path, members=1) as house:
        campaign = await campaign_on(house)
        every_second = WorkflowSpec(
            colonyname=COLONY, functionspecs=[spec(nodename="a", executortype="nobody")]
        )
        cron = await campaign.client("e0", 0).add_cron(COLONY, "k", every_second, interval_s=1)
        await runs_after(house, cron, 0, 2)
        killed = time.time()
        await (await leader(house)).kill()
        after = await runs_after(house, cron, killed, 4)
        assert after[0] - killed < FAILOVER_S
        await campaign.aclose()
        # The first run may be late, for all times that were missed; the others are in time.
        assert [round(run - after[1]) for run in after[1:]] == list(range(len(after) - 1))


async def test_leader_that_stands_still_for_long_does_no_harm(tmp_path: Path, seed: int) -> None:
    """It comes back and believes that it leads, that its waiters wait, that its view is right."""
    async with on_etcd(tmp_path, members=1, servers=2) as house:
        first = house.servers.index(await leader(house))
        plan = [Trouble(0.5, is_kill=False, victims=(first,), lasts_s=15.0)]
        campaign = await survive(
            house,
            seed,
            processes=1_000_000,
            executors=10,
            streams=[(house.servers, plan)],
            pace_s=0.05,
            lasting_s=20.0,
        )
        assert len(campaign.submitted) > 200


async def test_without_etcd_nothing_is_promised_and_nothing_guessed(tmp_path: Path) -> None:
    async with on_etcd(tmp_path, members=1, servers=2) as house:
        campaign = await campaign_on(house, processes=300, executors=10)
        (etcd,) = house.members
        running = asyncio.create_task(campaign.run(90))
        async with asyncio.timeout(DEADLINE_S):
            while len(campaign.closed) < 30:
                await asyncio.sleep(0.01)
        etcd.freeze()
        try:
            await until_not_ready(house)
            closed = len(campaign.closed)
            await refused(house)
            campaign.unsure += 1  # it may take effect when etcd goes on
            assert len(campaign.closed) == closed
        finally:
            etcd.thaw()
        for server in house.servers:
            await server.process.until_ready()
        await running
        await finish(campaign, house, 20)
        await campaign.aclose()


async def until_not_ready(house: House) -> None:
    """Every server says so, and names what it lacks."""
    async with asyncio.timeout(DEADLINE_S):
        for server in house.servers:
            status, reason = await server.process.ready()
            while status == 200 or "etcd" not in reason:
                assert status == 200 or not reason.endswith(": "), reason
                await asyncio.sleep(0.05)
                status, reason = await server.process.ready()
            assert status == 503


async def refused(house: House) -> None:
    """A submit and a read are refused for now, soon enough for a caller to be there still."""
    transport = HttpTransport(house.urls[0])
    client = Client(transport, key("e0"), reply_s=20.0)
    with pytest.raises((ServerError, UnreachableError)) as submitted:
        await client.submit(spec())
    with pytest.raises((ServerError, UnreachableError)) as read:
        await client.colony_statistics(COLONY)
    for raised in (submitted, read):
        assert isinstance(raised.value, ServerError), raised.value
        assert raised.value.status == 503
        assert not raised.value.is_definite
    await transport.close()
