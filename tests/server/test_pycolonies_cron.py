"""The published pycolonies package, unmodified, makes crons: COLONIES-RPC sections 6.1 and 6.2."""

from __future__ import annotations

import pytest
from model import Workflow
from pycolonies import ColoniesConnectionError

from colonist_protocol.times import UNSET
from tests.server.test_pycolonies import (
    Place,
    home,  # noqa: F401 - fixtures
    place,  # noqa: F401
    sdk,  # noqa: F401
)

EACH_SECOND = "0/1 * * * * *"
YEARLY = "0 0 0 1 1 *"


@pytest.fixture(name="made")
def _made(place: Place) -> Place:  # noqa: F811
    return place


def _workflow(made: Place) -> Workflow:
    first, second = made.spec(nodename="a"), made.spec(nodename="b")
    second.conditions.dependencies = ["a"]
    return Workflow(colonyname=made.name, functionspecs=[first, second])


def test_crons_are_added_read_listed_and_removed_while_they_run(made: Place) -> None:
    """What the SDK's own test does."""
    added = [
        made.sdk.add_cron(name, EACH_SECOND, True, _workflow(made), made.name, made.key)
        for name in ("cron-1", "cron-2")
    ]
    for cron, name in zip(added, ("cron-1", "cron-2"), strict=True):
        assert (cron["name"], cron["cronexpression"], cron["interval"]) == (name, EACH_SECOND, -1)
        assert cron["waitforprevprocessgraph"] is True, "in the SDK's own spelling"
        assert made.sdk.get_cron(cron["cronid"], made.key)["name"] == name
    assert len(made.sdk.get_crons(made.name, 100, made.key)) == 2
    assert made.sdk.del_cron(added[0]["cronid"], made.key) == {}
    (left,) = made.sdk.get_crons(made.name, 100, made.key)
    assert left["cronid"] == added[1]["cronid"]
    made.sdk.del_cron(left["cronid"], made.key)


def test_a_cron_runs_its_workflow(made: Place) -> None:
    cron = made.sdk.add_cron("c", EACH_SECOND, True, _workflow(made), made.name, made.key)
    first = made.sdk.assign(made.name, 10, made.key)
    assert first.spec.nodename == "a"
    graph = made.sdk.get_processgraph(first.processgraphid, made.key)
    assert graph.initiatorname == made.executor
    assert made.sdk.get_cron(cron["cronid"], made.key)["prevprocessgraphid"] == graph.processgraphid
    made.sdk.close(first.processid, ["out"], made.key)
    second = made.sdk.assign(made.name, 10, made.key)
    assert (second.spec.nodename, second.input) == ("b", ["out"])
    made.sdk.close(second.processid, ["last"], made.key)
    following = made.sdk.assign(made.name, 10, made.key)
    assert (following.spec.nodename, following.input) == ("a", ["last"])
    assert following.processgraphid != graph.processgraphid
    made.sdk.del_cron(cron["cronid"], made.key)


def test_a_cron_is_run_by_hand(made: Place) -> None:
    cron = made.sdk.add_cron("c", YEARLY, False, _workflow(made), made.name, made.key)
    assert cron["waitforprevprocessgraph"] is False
    before = made.sdk.run_cron(cron["cronid"], made.key)
    assert (before["cronid"], before["lastrun"]) == (cron["cronid"], UNSET)
    assert made.sdk.assign(made.name, 10, made.key).spec.nodename == "a"
    assert made.sdk.get_cron(cron["cronid"], made.key)["lastrun"] != UNSET


def test_what_the_server_refuses_is_told(made: Place) -> None:
    for expression, why in (
        ("* * * * *", "expected exactly 6 fields, found 5"),
        ("", "empty cron"),
    ):
        with pytest.raises(ColoniesConnectionError, match=why):
            made.sdk.add_cron("c", expression, False, _workflow(made), made.name, made.key)
    made.sdk.add_cron("c", YEARLY, False, _workflow(made), made.name, made.key)
    with pytest.raises(ColoniesConnectionError, match="Cron with name <c> in Colony"):
        made.sdk.add_cron("c", YEARLY, False, _workflow(made), made.name, made.key)
    with pytest.raises(ColoniesConnectionError):
        made.sdk.get_cron("ab" * 32, made.key)
    assert made.sdk.get_crons(made.name, 0, made.key) == []
