"""Everything that devices say goes through a gateway that presents it again, and changed.

What it presents has no effect and is answered by nothing that a device would believe; what the
devices want is done, once each, whatever their clocks say.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import TypeVar

import pytest

from colonist_client.client import Client
from colonist_protocol.process import State
from colonist_protocol.user import User
from colonist_server.backup.origin import StoreOrigin
from colonist_server.backup.restore import restore
from tests.server.people import OTHER
from tests.support.clock import run_virtual
from tests.support.hostile import EffectStore, Gateway, Site, clocks, device
from tests.support.rooms import COLONY, spec

T = TypeVar("T")

ROUNDS = 6
"""Lives of the servers: killed, stopped, restored from a backup in turn."""


class Crew:
    """Devices and people of one colony of one site; what they do has one effect each."""

    def __init__(self, gateway: Gateway, site: Site, colony: str, names: list[str]) -> None:
        ticking = clocks()
        gateway.rng.shuffle(ticking)
        self._clients = {
            name: device(gateway, site, name, clock)
            for name, clock in zip(names, ticking, strict=False)
        }
        self._gateway, self._site, self._colony = gateway, site, colony
        self._worker, self._person, self._owner = names
        self._number = 0
        self.done = 0

    def _as(self, who: str) -> Client:
        return self._clients[who]

    async def work(self) -> None:
        """One process from its submission to its end, and what people do besides."""
        person, worker, owner = (
            self._as(each) for each in (self._person, self._worker, self._owner)
        )
        process = await self._once(person.submit(spec(colonyname=self._colony)))
        granted = await self._once(worker.assign(self._colony, timeout_s=1))
        assert granted is not None
        await self._once(worker.add_log(granted.processid, "at work"))
        await self._once(worker.set_output(granted.processid, [1]))
        if self._gateway.rng.random() < 0.5:
            await self._once(worker.close(granted.processid, ["done"]))
        else:
            await self._once(worker.fail(granted.processid, ["broken"]))
        shown = await person.get(process.processid)
        assert shown.state in (State.SUCCESS, State.FAILED)
        second = await self._once(person.submit(spec(colonyname=self._colony)))
        await self._once(person.cancel(second.processid))
        await self._once(person.remove(second.processid))
        self._number += 1
        name = f"user {self._number}"
        id = f"{self._gateway.rng.getrandbits(256):064x}"
        await self._once(owner.add_user(User(colonyname=self._colony, userid=id, name=name)))
        await self._once(owner.remove_user(self._colony, name))

    async def _once(self, work: Awaitable[T]) -> T:
        """What has one effect, however often the gateway presents it."""
        before = self._site.store.effects
        found = await work
        assert self._site.store.effects == before + 1
        self.done += 1
        return found


async def _populate(site: Site) -> None:
    async with site.running(dies=False) as made:
        await made.populate()


async def _restored(site: Site) -> None:
    """The site goes on with what a backup has of it."""
    other = EffectStore()
    await restore(StoreOrigin(site.store), other)
    other.effects = site.store.effects
    site.store = other


async def _round(gateway: Gateway, crews: list[Crew], attacks: int, *, dies: bool) -> None:
    """One life of the servers."""
    async with AsyncExitStack() as stack:
        for site in gateway.sites:
            await stack.enter_async_context(site.running(dies=dies))
        for crew in crews:
            await crew.work()
        for step in range(attacks):
            await gateway.attack()
            if step % 500 == 0:
                await asyncio.sleep(20)  # minutes go by
        for crew in crews:
            await crew.work()


async def _story(seed: int, attacks: int) -> Gateway:
    rng = random.Random(seed)
    sites = [Site("one"), Site("two")]
    for site in sites:
        await _populate(site)
    gateway = Gateway(sites, rng)
    crews = [
        Crew(gateway, site, colony, names)
        for site in sites
        for colony, names in (
            (COLONY, ["ada", "uma", "colony owner"]),
            (OTHER, ["eve", "ulf", "other owner"]),
        )
    ]
    for number in range(ROUNDS):
        await _round(gateway, crews, attacks // ROUNDS + 1, dies=number % 2 == 0)
        if number % 3 == 2:
            for site in sites:
                await _restored(site)
    assert sum(crew.done for crew in crews) == len(crews) * ROUNDS * 2 * 10
    return gateway


def _check(gateway: Gateway, attacks: int) -> None:
    assert sum(gateway.tried.values()) >= attacks
    assert gateway.accepted == []
    assert gateway.believed == []


def test_nothing_of_what_a_hostile_gateway_presents_is_accepted(seed: int) -> None:
    gateway = run_virtual(_story(seed, 1_500))
    _check(gateway, 1_500)


@pytest.mark.campaign
def test_a_hundred_thousand_messages_of_a_hostile_gateway(seed: int) -> None:
    gateway = run_virtual(_story(seed, 100_000))
    _check(gateway, 100_000)
