"""Workflows by the published pycolonies, and as colonies-ts asks: COLONIES-RPC 6.1, 6.2, 6.3."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from model import Conditions, FuncSpec, ProcessGraph, Workflow
from pycolonies import ColoniesConnectionError

from colonist_protocol.identity import Identity
from scripts.vectors import workflows as vectors
from tests.server.house import Got, sign
from tests.server.test_pycolonies import (
    TYPE,
    Place,
    home,  # noqa: F401 - fixtures
    place,  # noqa: F401
    sdk,  # noqa: F401
)


@pytest.fixture(name="made")
def _made(place: Place) -> Place:  # noqa: F811
    return place


def node(made: Place, name: str, *parents: str, **changes: Any) -> FuncSpec:
    """A node as the SDK's own tests make it."""
    spec = made.spec(nodename=name, **changes)
    spec.conditions.dependencies = list(parents)
    return spec


def submit(made: Place, nodes: dict[str, list[str]]) -> ProcessGraph:
    specs = [node(made, name, *parents) for name, parents in nodes.items()]
    return made.sdk.submit_workflow(Workflow(colonyname=made.name, functionspecs=specs), made.key)


def run(made: Place, output: list[Any] | None = None) -> Any:
    """Run what comes next; the process as it was assigned."""
    process = made.sdk.assign(made.name, 10, made.key)
    made.sdk.close(process.processid, output or [], made.key)
    return process


def test_the_vectors_hold_what_the_sdk_writes() -> None:
    def spec(name: str, *parents: str) -> FuncSpec:
        return FuncSpec(
            nodename=name,
            conditions=Conditions(colonyname="c-1", executortype="t", dependencies=list(parents)),
            maxexectime=-1,
            maxretries=3,
            env={"test_key": "test_value2"},
        )

    sent = Workflow(colonyname="c-1", functionspecs=[spec("n0"), spec("n1", "n0")])
    assert vectors.FULL["submitworkflowspecmsg"]["spec"] == sent.model_dump(by_alias=True)
    assert vectors.FULL["addchildmsg"]["spec"] == spec("n2").model_dump()


# -- colonies_test, api_test


def test_a_workflow_of_two_is_submitted(made: Place) -> None:
    graph = submit(made, {"task1": [], "task2": ["task1"]})
    assert (graph.state, graph.colonyname) == (made.sdk.WAITING, made.name)
    assert graph.rootprocessids == graph.processids[:1]
    assert len(graph.processids) == 2
    read = made.sdk.get_processgraph(graph.processgraphid, made.key)
    assert read.processgraphid == graph.processgraphid
    assert read.processids == graph.processids
    assert [each.data["label"] for each in read.nodes] == ["task1", "task2"]
    assert [(each.source, each.target) for each in read.edges] == [tuple(graph.processids)]


def test_it_runs_in_order_and_outputs_become_inputs(made: Place) -> None:
    graph = submit(made, {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
    first = run(made, ["from a", 1])
    assert first.spec.nodename == "a"
    assert made.sdk.get_processgraph(graph.processgraphid, made.key).state == made.sdk.RUNNING
    second, third = run(made, ["b"]), run(made, ["c"])
    assert [second.spec.nodename, third.spec.nodename] == ["b", "c"]
    assert second.input == third.input == ["from a", 1]
    last = run(made)
    assert (last.spec.nodename, last.input) == ("d", ["b", "c"])
    assert last.parents == [second.processid, third.processid]
    done = made.sdk.get_processgraph(graph.processgraphid, made.key)
    assert done.state == made.sdk.SUCCESSFUL
    assert done.endtime >= done.starttime >= done.submissiontime


def test_members_are_listed_and_found_by_node(made: Place) -> None:
    graph = submit(made, {"a": [], "b": ["a"]})
    listed = made.sdk.get_processes_for_workflow(graph.processgraphid, made.name, made.key)
    assert [each["processid"] for each in listed] == graph.processids
    assert {each["processgraphid"] for each in listed} == {graph.processgraphid}
    assert [each["waitforparents"] for each in listed] == [False, True]
    assert (
        len(made.sdk.get_processes_for_workflow(graph.processgraphid, made.name, made.key, 1)) == 1
    )
    found = made.sdk.find_process("b", graph.processids, made.key)
    assert found.processid == graph.processids[1]


def test_a_failed_node_fails_the_workflow_when_all_has_ended(made: Place) -> None:
    graph = submit(made, {"bad": [], "good": [], "after": ["bad"]})
    bad = made.sdk.assign(made.name, 10, made.key)
    made.sdk.fail(bad.processid, ["too hot"], made.key)
    after = made.sdk.get_process(graph.processids[2], made.key)
    assert after.state == made.sdk.FAILED
    assert bad.processid in after.errors[0]
    assert made.sdk.get_processgraph(graph.processgraphid, made.key).state == made.sdk.RUNNING
    run(made, ["kept"])
    assert made.sdk.get_processgraph(graph.processgraphid, made.key).state == made.sdk.FAILED
    assert made.sdk.get_process(graph.processids[1], made.key).output == ["kept"]


def test_workflows_are_listed_with_and_without_a_state(made: Place) -> None:
    assert made.sdk.get_processgraphs(made.name, 10, made.key) == []
    first = submit(made, {"a": []})
    run(made)
    second = submit(made, {"a": [], "b": ["a"]})
    run(made)
    third = submit(made, {"a": []})
    ids = [each.processgraphid for each in (first, second, third)]

    def listed(*, count: int = 10, state: int | None = None) -> list[str]:
        found = made.sdk.get_processgraphs(made.name, count, made.key, state)
        return [ProcessGraph(**each).processgraphid for each in found]

    assert listed() == ids[::-1]
    assert listed(count=2) == [ids[2], ids[1]]
    assert [
        listed(state=state) for state in (made.sdk.WAITING, made.sdk.RUNNING, made.sdk.SUCCESSFUL)
    ] == [
        [ids[2]],
        [ids[1]],
        [ids[0]],
    ]
    assert listed(state=made.sdk.FAILED) == []
    with pytest.raises(ColoniesConnectionError, match="larger than MaxCount"):
        made.sdk.get_processgraphs(made.name, 101, made.key)


def test_a_workflow_is_removed_unless_it_runs(made: Place) -> None:
    waiting = submit(made, {"a": [], "b": ["a"]})
    made.sdk.remove_processgraph(waiting.processgraphid, made.key)
    with pytest.raises(ColoniesConnectionError, match="no such workflow"):
        made.sdk.get_processgraph(waiting.processgraphid, made.key)
    for id in waiting.processids:
        with pytest.raises(ColoniesConnectionError):
            made.sdk.get_process(id, made.key)
    running = submit(made, {"a": []})
    process = made.sdk.assign(made.name, 10, made.key)
    with pytest.raises(ColoniesConnectionError, match="cannot remove a running processgraph"):
        made.sdk.remove_processgraph(running.processgraphid, made.key)
    made.sdk.close(process.processid, [], made.key)
    made.sdk.remove_processgraph(running.processgraphid, made.key)
    assert made.sdk.get_processgraphs(made.name, 10, made.key) == []


def test_all_workflows_are_removed_by_the_owner_but_those_that_run(made: Place) -> None:
    for _ in range(2):
        submit(made, {"a": []})
    run(made)
    running = submit(made, {"x": []})
    assert made.sdk.assign(made.name, 10, made.key).spec.nodename == "a"
    busy, idle = made.sdk.get_processgraphs(made.name, 10, made.key, made.sdk.RUNNING), running
    with pytest.raises(ColoniesConnectionError, match="Access denied"):
        made.sdk.remove_all_processgraphs(made.name, made.key)
    with pytest.raises(ColoniesConnectionError, match="not possible to remove running"):
        made.sdk.remove_all_processgraphs(made.name, made.owner, made.sdk.RUNNING)
    made.sdk.remove_all_processgraphs(made.name, made.owner, made.sdk.SUCCESSFUL)
    left = {each["processgraphid"] for each in made.sdk.get_processgraphs(made.name, 10, made.key)}
    assert left == {busy[0]["processgraphid"], idle.processgraphid}
    made.sdk.remove_all_processgraphs(made.name, made.owner)
    [kept] = made.sdk.get_processgraphs(made.name, 10, made.key)
    assert kept["processgraphid"] == busy[0]["processgraphid"]


def test_a_member_is_neither_cancelled_nor_removed_alone(made: Place) -> None:
    graph = submit(made, {"a": []})
    with pytest.raises(ColoniesConnectionError):
        made.sdk.remove_process(graph.processids[0], made.key)
    assert made.sdk.get_process(graph.processids[0], made.key).state == made.sdk.WAITING


# -- children


def test_a_child_inserted_takes_over_the_children(made: Place) -> None:
    graph = submit(made, {"a": [], "b": ["a"], "c": ["a"]})
    parent = made.sdk.assign(made.name, 10, made.key)
    new = made.sdk.add_child(
        graph.processgraphid, parent.processid, "", made.spec(), "new", True, made.key
    )
    assert (new["spec"]["nodename"], new["parents"]) == ("new", [parent.processid])
    assert new["waitforparents"] is True
    assert sorted(new["children"]) == sorted(graph.processids[1:])
    assert made.sdk.get_process(parent.processid, made.key).children == [new["processid"]]
    shown = made.sdk.get_processgraph(graph.processgraphid, made.key)
    assert shown.processids == [*graph.processids, new["processid"]]
    made.sdk.close(parent.processid, ["a"], made.key)
    assert run(made, ["new"]).processid == new["processid"]
    assert run(made).input == run(made).input == ["new"]


def test_a_child_becomes_a_leaf_or_comes_between(made: Place) -> None:
    graph = submit(made, {"a": [], "b": ["a"]})
    parent = made.sdk.assign(made.name, 10, made.key)
    after = graph.processids[1]
    leaf = made.sdk.add_child(
        graph.processgraphid, parent.processid, "", made.spec(), "leaf", False, made.key
    )
    between = made.sdk.add_child(
        graph.processgraphid, parent.processid, after, made.spec(), "between", False, made.key
    )
    assert (leaf["children"], between["children"]) == ([], [after])
    assert made.sdk.get_process(after, made.key).parents == [parent.processid, between["processid"]]
    made.sdk.close(parent.processid, ["a"], made.key)
    assert [run(made, [1]).spec.nodename for _ in range(3)] == ["leaf", "between", "b"]
    assert made.sdk.get_process(after, made.key).input == ["a", 1]
    assert made.sdk.get_processgraph(graph.processgraphid, made.key).state == made.sdk.SUCCESSFUL


def test_a_child_is_refused_below_what_the_caller_does_not_run(made: Place) -> None:
    graph = submit(made, {"a": [], "b": ["a"]})
    _, other = made.hire()

    def add(parent: str, key: str) -> None:
        made.sdk.add_child(graph.processgraphid, parent, "", made.spec(), "c", False, key)

    with pytest.raises(ColoniesConnectionError, match="is not running"):
        add(graph.processids[0], made.key)
    made.sdk.assign(made.name, 10, made.key)
    with pytest.raises(ColoniesConnectionError):
        add(graph.processids[0], other)
    with pytest.raises(ColoniesConnectionError, match="does not belong to a processgraph"):
        add(made.submit(), made.key)
    assert made.sdk.get_processgraph(graph.processgraphid, made.key).processids == graph.processids


# -- refusals


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ({}, "no functionspecs"),
        ({"": []}, "Nodename is missing"),
        ({"a": [], "b": ["x"]}, "invalid dependencies"),
        ({"a": ["b"], "b": ["a"]}, "a waits for b waits for a"),
    ],
)
def test_bad_workflows_are_refused_whole(
    made: Place, nodes: dict[str, list[str]], text: str
) -> None:
    with pytest.raises(ColoniesConnectionError, match=text):
        submit(made, nodes)
    assert made.sdk.get_processgraphs(made.name, 10, made.key) == []
    assert made.sdk.list_processes(made.name, 10, 0, made.key) == []


def test_a_workflow_that_is_not_there_is_not_found(made: Place) -> None:
    for call in (
        lambda: made.sdk.get_processes_for_workflow("ab" * 32, made.name, made.key),
        lambda: made.sdk.get_processgraph("ab" * 32, made.key),
        lambda: made.sdk.remove_processgraph("ab" * 32, made.key),
    ):
        with pytest.raises(ColoniesConnectionError):
            call()


def test_a_colony_is_deleted_whatever_runs_in_it(made: Place) -> None:
    submit(made, {"a": [], "b": ["a"]})
    made.sdk.assign(made.name, 10, made.key)
    # The fixture deletes the colony.


# -- colonies-ts, section 6.3, by raw messages


def ask(made: Place, message: dict[str, Any], key: str) -> Any:
    """Post what a browser would; the reply's JSON. The SDK blocks, so this may too."""
    body = sign(json.dumps(message, separators=(",", ":")).encode(), Identity.from_hex(key))
    url = f"http://{made.sdk.host}:{made.sdk.port}/api"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=20) as reply:
        return Got(reply.status, dict(reply.headers), reply.read()).payload


def test_what_the_typescript_client_expects(made: Place) -> None:
    def task(name: str, *parents: str) -> dict[str, Any]:
        return {
            "nodename": name,
            "funcname": name,
            "conditions": {
                "colonyname": made.name,
                "executortype": TYPE,
                "dependencies": list(parents),
            },
            "maxwaittime": 60,
            "maxexectime": 60,
        }

    spec = {"colonyname": made.name, "functionspecs": [task("task1"), task("task2", "task1")]}
    graph = ask(made, {"msgtype": "submitworkflowspecmsg", "spec": spec}, made.key)
    id = graph["processgraphid"]
    read = ask(made, {"msgtype": "getprocessgraphmsg", "processgraphid": id}, made.key)
    assert read["processgraphid"] == id
    listing = {"msgtype": "getprocessgraphsmsg", "colonyname": made.name, "count": 100}
    assert [each["processgraphid"] for each in ask(made, listing, made.key)] == [id]
    assert ask(made, {"msgtype": "removeprocessgraphmsg", "processgraphid": id}, made.key) == {}
    assert ask(made, listing, made.key) == []
