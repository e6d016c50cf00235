"""A campaign through trouble from its founding to its audit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from tests.cluster import audit
from tests.cluster.campaign import Campaign
from tests.cluster.house import House
from tests.cluster.trouble import Harm, Trouble, Victim, harming, troubles

Stream = tuple[Sequence[Victim], Iterable[Trouble]]


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
    streams: Sequence[Stream] = (),
    pace_s: float = 0.0,
    lasting_s: float = 0.0,
) -> Campaign:
    """Run a campaign through trouble, drawn from the seed or given, and audit what is left.

    With `lasting_s` people submit for so long, else until there are so many processes.
    """
    campaign = Campaign(
        house.urls,
        seed=seed,
        processes=processes,
        executors=executors,
        lease_s=lease_s,
        pace_s=pace_s,
    )
    harm = Harm()
    try:
        await campaign.found()
        if lasting_s:
            asyncio.get_running_loop().call_later(lasting_s, campaign.enough)
        async with harming(harm, *(streams or drawn(house, seed, rest_s, lasts_s))):
            await campaign.run(deadline_s)
        await finish(campaign, house, lease_s)
    except BaseException as error:
        story = [f"SEED={seed}", *harm.diary, f"answers: {dict(campaign.answers)}", house.log]
        error.add_note("\n".join(story))
        raise
    finally:
        await campaign.aclose()
    assert harm.diary, "nothing went wrong"
    return campaign


def drawn(house: House, seed: int, rest_s: float, lasts_s: float) -> list[Stream]:
    """Trouble for servers and for members, never for all servers of several."""
    size = len(house.servers)
    at_once = max(1, size - 1)
    plan = troubles(f"{seed}/servers", size, at_once=at_once, rest_s=rest_s, lasts_s=lasts_s)
    streams: list[Stream] = [(house.servers, plan)]
    if house.members:
        size = len(house.members)
        plan = troubles(f"{seed}/members", size, at_once=1, rest_s=rest_s, lasts_s=lasts_s)
        streams.append((house.members, plan))
    return streams


async def finish(campaign: Campaign, house: House, lease_s: int) -> None:
    """All is well again: everything is done, everybody tells the same, and the books are right."""
    assert not campaign.faults, campaign.faults[:10]
    await campaign.drain(2 * lease_s + 30)
    assert not campaign.faults, campaign.faults[:10]
    await audit.check_nodes(campaign, len(house.servers))
    told = await audit.statistics(campaign)
    await house.stop()
    audit.check_stored(campaign, told, await house.dump())
