"""Followers on WebSockets at one server hear of what is done at others, through kills and gaps."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest

from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_protocol.process import Process, State
from colonist_protocol.subscription import SubscribeProcess, SubscribeProcesses
from colonist_server.store.etcd.store import EtcdStore
from colonist_server.store.opening import open_store
from tests.cluster.campaign import Campaign
from tests.cluster.house import House, on_etcd
from tests.server.websocket import Line
from tests.support.rooms import COLONY, COLONY_OWNER, key, spec

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]
MANY = 30
WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State
E0 = key("e0")


@contextlib.asynccontextmanager
async def line_to(house: House, server: int) -> AsyncGenerator[Line]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{house.urls[server]}/pubsub", autoclose=False, autoping=False, max_msg_size=0
        ) as socket,
    ):
        yield Line(socket)


@contextlib.asynccontextmanager
async def at_work(folder: Path, servers: int = 2) -> AsyncGenerator[tuple[House, Campaign]]:
    async with on_etcd(folder, members=1, servers=servers) as house:
        campaign = Campaign(house.urls, seed=0, processes=0, executors=2, lease_s=60)
        await campaign.found()
        yield house, campaign
        await campaign.aclose()


def one(id: str, state: int = SUCCESS) -> SubscribeProcess:
    return SubscribeProcess(processid=id, state=state, timeout=100, colonyname=COLONY)


def all_of(state: int = -1) -> SubscribeProcesses:
    return SubscribeProcesses(colonyname=COLONY, state=state, timeout=100, executortype="")


async def work(campaign: Campaign, server: int, count: int = 1) -> list[str]:
    """Submit, assign and close so many at a server."""
    client = campaign.client("e0", server)
    done: list[str] = []
    for number in range(count):
        submitted = await client.submit(spec())
        taken = await client.assign(COLONY, timeout_s=10)
        assert taken is not None
        assert taken.processid == submitted.processid
        await client.close(taken.processid, [number])
        done.append(taken.processid)
    return done


async def heard(ear: Line, count: int) -> list[tuple[str, int]]:
    return [_short(await ear.process()) for _ in range(count)]


def _short(process: Process) -> tuple[str, int]:
    return process.processid, process.state


async def test_all_that_is_done_elsewhere_is_heard_once_in_order(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (house, campaign), line_to(house, 1) as ear:
        await ear.order(all_of(), E0)
        ids = await work(campaign, 0, MANY)
        told = await heard(ear, 3 * MANY)
        assert told == [(id, state) for id in ids for state in (WAITING, RUNNING, SUCCESS)]


async def test_a_server_that_is_killed_costs_followers_at_others_nothing(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (house, campaign), line_to(house, 1) as ear:
        client = campaign.client("e0", 0)
        id = (await client.submit(spec())).processid
        await ear.order(one(id), E0)
        await ear.order(all_of(RUNNING), E0)
        await client.assign(COLONY, timeout_s=10)
        await house.servers[0].kill()
        assert await heard(ear, 1) == [(id, RUNNING)]
        await campaign.client("e0", 1).close(id, [1])
        assert await heard(ear, 1) == [(id, SUCCESS)]
        await house.servers[0].start()
        [again] = await work(campaign, 0)
        assert await heard(ear, 1) == [(again, RUNNING)]


async def test_an_outage_of_etcd_costs_followers_nothing(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (house, campaign), line_to(house, 1) as ear:
        await ear.order(all_of(SUCCESS), E0)
        before = await work(campaign, 0, 3)
        await house.members[0].kill()
        await house.members[0].start()
        for server in house.servers:
            await server.process.until_ready()
        after = await work(campaign, 0, 3)
        assert [id for id, _ in await heard(ear, 6)] == before + after


async def test_a_server_that_missed_a_part_tells_how_it_ended(tmp_path: Path) -> None:
    """It stood still, and the store has forgotten what was meanwhile: no follower waits in vain."""
    async with at_work(tmp_path) as (house, campaign):
        client = campaign.client("e0", 0)
        id = (await client.submit(spec())).processid
        async with line_to(house, 1) as ear, line_to(house, 1) as stream:
            await ear.order(one(id), E0)
            await stream.order(all_of(), E0)
            house.servers[1].freeze()
            await house.members[0].kill()  # what it sent is not in the socket of the frozen one
            await house.members[0].start()
            await house.servers[0].process.until_ready()
            await client.assign(COLONY, timeout_s=10)
            await client.close(id, [1])
            await forget(house)
            house.servers[1].thaw()
            assert await heard(ear, 1) == [(id, SUCCESS)]
            failure = await stream.error()
            assert (failure.status, failure.code) == (503, "unavailable")
            await house.servers[1].process.until_ready()
            assert "loading the view anew" in house.servers[1].process.log
        async with line_to(house, 1) as ear:
            await ear.order(all_of(SUCCESS), E0)
            [later] = await work(campaign, 0)
            assert await heard(ear, 1) == [(later, SUCCESS)]


async def test_who_is_removed_elsewhere_is_told_no_more(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (house, campaign), line_to(house, 1) as ear:
        transport = HttpTransport(house.urls[0])
        await ear.order(all_of(), key("e1"))
        await work(campaign, 0)
        await heard(ear, 3)
        await Client(transport, COLONY_OWNER).remove_executor(COLONY, "e1")
        await work(campaign, 0)
        assert (await ear.error()).status == 403
        await transport.close()


async def forget(house: House) -> None:
    """The store remembers nothing of what was before now."""
    async with await open_store(house.store) as store:
        assert isinstance(store, EtcdStore)
        await store.compact(await store.newest())
