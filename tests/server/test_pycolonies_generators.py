"""The published pycolonies package, unmodified, makes generators: COLONIES-RPC section 6.1.

It has no method for packing; its own envelope carries that too.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from pycolonies import ColoniesConnectionError, func_spec

from tests.server.test_pycolonies import (
    TYPE,
    Place,
    home,  # noqa: F401 - fixtures
    place,  # noqa: F401
    sdk,  # noqa: F401
)

RPC = "_Colonies__rpc"


@pytest.fixture(name="made")
def _made(place: Place) -> Place:  # noqa: F811
    return place


def _generator(made: Place, name: str = "g", trigger: int = 2) -> dict[str, Any]:
    spec = func_spec(
        func="sum", args=["old"], colonyname=made.name, executortype=TYPE, maxexectime=10
    )
    nodes = [{**spec.model_dump(by_alias=True), "nodename": "sum"}]
    workflow = json.dumps({"colonyname": made.name, "functionspecs": nodes})
    return {
        "colonyname": made.name,
        "name": name,
        "workflowspec": workflow,
        "trigger": trigger,
        "timeout": -1,
    }


def _pack(made: Place, id: str, arg: str) -> None:
    call = getattr(made.sdk, RPC)
    call({"msgtype": "packgeneratormsg", "generatorid": id, "arg": arg}, made.key)


def test_a_generator_is_added_read_listed_and_removed(made: Place) -> None:
    wanted = _generator(made)
    added = made.sdk.add_generator(wanted, made.key)
    assert {name: added[name] for name in wanted} == wanted
    assert made.sdk.get_generator(added["generatorid"], made.key) == added
    assert made.sdk.get_generators(made.name, made.key) == [added]
    made.sdk.remove_generator(added["generatorid"], made.key)
    assert made.sdk.get_generators(made.name, made.key) == []
    with pytest.raises(ColoniesConnectionError, match="generator is nil"):
        made.sdk.get_generator(added["generatorid"], made.key)


def test_a_generator_starts_a_workflow_that_an_executor_runs(made: Place) -> None:
    id = made.sdk.add_generator(_generator(made), made.key)["generatorid"]
    for arg in ("1", "2", "3"):
        _pack(made, id, arg)
    process = made.sdk.assign(made.name, 10, made.key)
    assert (process.spec.funcname, process.spec.args, process.spec.kwargs) == (
        "sum",
        ["1", "2"],
        {},
    )
    made.sdk.close(process.processid, [3], made.key)
    left = made.sdk.get_generator(id, made.key)
    assert left["queuesize"] == 1
    assert left["lastrun"] > left["firstpack"]


def test_a_trigger_of_zero_is_refused(made: Place) -> None:
    with pytest.raises(ColoniesConnectionError, match="trigger must be 1 to"):
        made.sdk.add_generator(_generator(made, trigger=0), made.key)
