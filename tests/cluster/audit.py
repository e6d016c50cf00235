"""After a campaign: what everybody was told, compared with what there is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from colonist_client.client import Client
from colonist_protocol import codec
from colonist_protocol.process import MAX_LIST, Process, State
from colonist_protocol.server import Statistics
from colonist_server.repo import keys
from colonist_server.repo.records import decode_closed
from tests.cluster.campaign import Campaign, is_busy
from tests.support.books import check_books
from tests.support.rooms import COLONY

SAMPLE = 50


@dataclass(frozen=True)
class Picture:
    """What a node tells of everything, in its own words."""

    statistics: Statistics
    newest: list[bytes]
    sample: list[bytes]


async def look(client: Client, ids: list[str]) -> Picture:
    """Ask one node."""
    newest = await client.processes(COLONY, state=State.SUCCESS, count=MAX_LIST)
    return Picture(
        statistics=await client.colony_statistics(COLONY),
        newest=[codec.encode(process) for process in newest],
        sample=[codec.encode(await client.get(id)) for id in ids],
    )


async def check_nodes(campaign: Campaign, nodes: int) -> None:
    """All nodes tell the same, and it is what the executors were told."""
    ids = campaign.submitted[:: max(1, len(campaign.submitted) // SAMPLE)]
    name = campaign.names[0]
    pictures = [await look(campaign.client(name, node), ids) for node in range(nodes)]
    for one, other in combinations(pictures, 2):
        assert one == other
    (statistics,) = {codec.encode(picture.statistics) for picture in pictures}
    told = codec.decode(statistics, Statistics, "statistics")
    assert not is_busy(told)
    for id in ids:
        process = await campaign.client(name, 0).get(id)
        _check_one(campaign, process)


def _check_one(campaign: Campaign, process: Process) -> None:
    id = process.processid
    assert process.state == State.SUCCESS, id
    assert process.output() == [campaign.closed[id]], id


async def statistics(campaign: Campaign) -> Statistics:
    return await campaign.client(campaign.names[0], 0).colony_statistics(COLONY)


def check_stored(campaign: Campaign, told: Statistics, stored: dict[bytes, bytes]) -> None:
    """Every acknowledged process is there and closed once, as its executor was told."""
    check_books(stored)
    ends = {
        name[2:].hex(): decode_closed(value)
        for name, value in stored.items()
        if name.startswith(keys.CLOSED)
    }
    missing = set(campaign.submitted) - ends.keys()
    assert not missing, f"{len(missing)} acknowledged are not there or not closed: {missing}"
    more = ends.keys() - set(campaign.submitted)
    assert len(more) <= campaign.unsure, f"{len(more)} more, {campaign.unsure} unsure"
    assert len(set(campaign.submitted)) == len(campaign.submitted)
    states = Counter(closed.live.state for closed in ends.values())
    assert set(states) == {State.SUCCESS}
    assert told.successfulprocesses == len(ends)
    assert told.failedprocesses == told.cancelledprocesses == 0
    heads = sum(1 for name in stored if name.startswith(keys.WORKFLOW))
    assert told.successfulworkflows == heads
    for id, closed in ends.items():
        result = codec.scan(closed.payload)
        assert _out(result) == [campaign.closed.get(id, _out(result)[0])], id
        attempts = [grant.token for grant in campaign.grants.get(id, [])]
        assert _out(result)[0] in attempts, f"{id}: nobody was told to do what is its result"


def _out(result: Any) -> list[Any]:
    assert isinstance(result, dict)
    out = result["out"]
    assert isinstance(out, list)
    return out
