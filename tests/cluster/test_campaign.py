"""Servers and members of etcd are killed, stand still and come back, while everybody works.

At the end every acknowledged process is closed exactly once, nobody had what was another's, and all
nodes tell the same. The trouble comes from a seed: `make campaign SEED=7` repeats one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import audit, planted
from tests.cluster.campaign import Campaign
from tests.cluster.house import House, on_etcd, on_sqlite
from tests.cluster.trouble import Harm, harming, troubles

pytestmark = pytest.mark.e2e
PLANTED = "tests.cluster.planted"


async def survive(
    house: House,
    seed: int,
    *,
    processes: int,
    executors: int,
    lease_s: int = 20,
    rest_s: float = 0.8,
    lasts_s: float = 3.0,
    deadline_s: float = 100.0,
) -> None:
    """Run a campaign through trouble, and audit what is left."""
    campaign = Campaign(
        house.urls, seed=seed, processes=processes, executors=executors, lease_s=lease_s
    )
    harm = Harm()
    size = len(house.servers)
    streams = [
        (
            house.servers,
            troubles(
                f"{seed}/servers", size, at_once=max(1, size - 1), rest_s=rest_s, lasts_s=lasts_s
            ),
        )
    ]
    if house.members:
        plan = troubles(
            f"{seed}/members", len(house.members), at_once=1, rest_s=rest_s, lasts_s=lasts_s
        )
        streams.append((house.members, plan))
    try:
        await campaign.found()
        async with harming(harm, *streams):
            await campaign.run(deadline_s)
        assert not campaign.faults, campaign.faults[:10]
        await campaign.drain(2 * lease_s + 30)
        assert not campaign.faults, campaign.faults[:10]
        await audit.check_nodes(campaign, size)
        told = await audit.statistics(campaign)
        await house.stop()
        audit.check_stored(campaign, told, await house.dump())
    except BaseException as error:
        story = [f"SEED={seed}", *harm.diary, f"answers: {dict(campaign.answers)}", house.log]
        error.add_note("\n".join(story))
        raise
    finally:
        await campaign.aclose()
    assert harm.diary, "nothing went wrong"


async def test_one_server_on_a_file(tmp_path: Path, seed: int) -> None:
    async with on_sqlite(tmp_path) as house:
        await survive(house, seed, processes=600, executors=20, rest_s=0.4, lasts_s=0.5)


async def test_three_servers_on_three_members(tmp_path: Path, seed: int) -> None:
    async with on_etcd(tmp_path) as house:
        await survive(house, seed, processes=1_500, executors=50)


@pytest.mark.campaign
@pytest.mark.timeout(3_000)
async def test_three_servers_on_three_members_for_long(tmp_path: Path, seed: int) -> None:
    async with on_etcd(tmp_path) as house:
        await survive(house, seed, processes=20_000, executors=50, lasts_s=12.0, deadline_s=2_000.0)


async def test_campaign_finds_what_was_acknowledged_and_not_written(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(planted.VARIABLE, "forgetful")
    async with on_sqlite(tmp_path, program=PLANTED) as house:
        with pytest.raises(AssertionError, match=r"not closed|not there"):
            await survive(house, seed, processes=200, executors=5, deadline_s=10.0)


async def test_campaign_finds_what_was_given_to_two(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(planted.VARIABLE, "blind")
    async with on_etcd(tmp_path, members=1, program=PLANTED) as house:
        house.members.clear()
        with pytest.raises(AssertionError, match="was given to"):
            await survive(house, seed, processes=2_000, executors=20, deadline_s=30.0)
