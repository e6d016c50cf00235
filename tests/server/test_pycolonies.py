"""The published pycolonies package, unmodified, as a client: COLONIES-RPC sections 6.1, 6.2."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pycolonies
import pytest
from crypto import Crypto
from model import Conditions, FuncSpec
from pycolonies import Colonies, ColoniesConnectionError, func_spec

from tests.server.house import House, house
from tests.support.rooms import OWNER

TYPE = "test-executor-type"

# Method by method: those whose messages are served, and those that are not yet (section 6.1).
SERVED = {
    "add_attribute",
    "add_child",
    "add_colony",
    "add_cron",  # test_pycolonies_cron.py
    "add_executor",
    "add_function",
    "add_generator",
    "add_log",
    "add_user",
    "approve_executor",
    "assign",
    "close",
    "del_colony",
    "del_cron",
    "fail",
    "find_process",
    "get_attribute",
    "get_colony",
    "get_cron",
    "get_crons",
    "get_executor",
    "get_executor_log",
    "get_functions_by_colony",
    "get_functions_by_executor",
    "get_generator",
    "get_generators",
    "get_process",
    "get_process_log",
    "get_processes_for_workflow",
    "get_processgraph",
    "get_processgraphs",
    "get_users",
    "list_colonies",
    "list_executors",
    "list_processes",
    "reject_executor",
    "remove_all_processes",
    "remove_all_processgraphs",
    "remove_executor",
    "remove_generator",
    "remove_process",
    "remove_processgraph",
    "remove_user",
    "run_cron",
    "set_output",
    "stats",
    "submit_func_spec",
    "submit_workflow",
    "wait",  # test_pycolonies_pubsub.py
}
NOT_YET: dict[str, tuple[Any, ...]] = {
    "create_snapshot": ("c", "label", "name"),
    "get_snapshots": ("c",),
    "get_snapshot_by_name": ("c", "name"),
    "get_snapshot_by_id": ("c", "ab" * 32),
    "get_files": ("label", "c"),
    "get_file_labels": ("c",),
    "channel_append": ("ab" * 32, "chat", 1, b"x"),
    "channel_read": ("ab" * 32, "chat", 0, 10),
    "add_blueprint_definition": ({},),
    "get_blueprint_definition": ("c", "n"),
    "get_blueprint_definitions": ("c",),
    "remove_blueprint_definition": ("c", "n"),
    "add_blueprint": ({},),
    "get_blueprint": ("c", "n"),
    "get_blueprints": ("c",),
    "update_blueprint": ({},),
    "remove_blueprint": ("c", "n"),
    "update_blueprint_status": ("c", "n", {}),
    "reconcile_blueprint": ("c", "n"),
    "get_blueprint_history": ("ab" * 32,),
}
# What needs a WebSocket, a native library or an S3 store before it asks anything.
ELSEWHERE = {
    "delete_file",
    "download_data",
    "download_file",
    "get_file",
    "subscribe_channel",
    "sync",
    "upload_data",
    "upload_file",
}


class Place(NamedTuple):
    """A colony of its own for one test, with an approved executor."""

    sdk: Colonies
    name: str
    owner: str
    executor: str
    key: str

    def spec(self, **changes: Any) -> FuncSpec:
        """What the SDK's own tests submit."""
        return FuncSpec(
            **{
                "conditions": Conditions(colonyname=self.name, executortype=TYPE),
                "maxexectime": -1,
                "maxretries": 3,
                "env": {"test_key": "test_value2"},
                **changes,
            }
        )

    def submit(self, **changes: Any) -> str:
        return self.sdk.submit_func_spec(self.spec(**changes), self.key).processid

    def hire(self) -> tuple[str, str]:
        """Another approved executor: its name and key."""
        key = Crypto().prvkey()
        name = f"e-{Crypto().id(key)[:8]}"
        self.sdk.add_executor(_executor(self.name, name, key), self.owner)
        self.sdk.approve_executor(self.name, name, self.owner)
        return name, key


def _executor(colony: str, name: str, key: str) -> dict[str, str]:
    return {
        "executorname": name,
        "executorid": Crypto().id(key),
        "colonyname": colony,
        "executortype": TYPE,
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    """A server in a thread of its own: the SDK blocks."""
    folder: Path = tmp_path_factory.mktemp("pycolonies")
    started: Future[House] = Future()
    stopping: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        async with house(folder) as made:
            stopping.set_result((asyncio.get_running_loop(), stop))
            started.set_result(made)
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield started.result(20)
    finally:
        loop, stop = stopping.result(20)
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)


@pytest.fixture(scope="module")
def sdk(home: House) -> Colonies:
    return Colonies(home.server.host, home.server.port, tls=False, native_crypto=False)


@pytest.fixture
def place(sdk: Colonies) -> Generator[Place]:
    owner, key = Crypto().prvkey(), Crypto().prvkey()
    name = f"python-test-{Crypto().id(owner)[:10]}"
    sdk.add_colony({"colonyid": Crypto().id(owner), "name": name}, OWNER.reveal())
    sdk.add_executor(_executor(name, "test-executor", key), owner)
    sdk.approve_executor(name, "test-executor", owner)
    yield Place(sdk, name, owner, "test-executor", key)
    if name in [colony["name"] for colony in sdk.list_colonies(OWNER.reveal())]:
        sdk.del_colony(name, OWNER.reveal())


def test_every_method_of_the_sdk_is_known_here() -> None:
    methods = {
        name
        for name, _ in inspect.getmembers(Colonies, inspect.isfunction)
        if not name.startswith("_")
    }
    assert methods == SERVED | NOT_YET.keys() | ELSEWHERE


def test_every_served_method_is_used_here() -> None:
    here = Path(__file__).parent.glob("test_pycolonies*.py")
    text = "".join(path.read_text() for path in here)
    assert {name for name in SERVED if f"sdk.{name}(" not in text} == set()


@pytest.mark.parametrize("method", NOT_YET)
def test_what_is_not_served_yet_says_so(sdk: Colonies, method: str) -> None:
    with pytest.raises(ColoniesConnectionError, match="not supported by this server"):
        getattr(sdk, method)(*NOT_YET[method], OWNER.reveal())


# -- colonies_test


def test_a_colony_is_added_listed_read_and_deleted(sdk: Colonies) -> None:
    owner = Crypto().prvkey()
    wanted = {"colonyid": Crypto().id(owner), "name": f"colony {Crypto().id(owner)[:8]}"}
    server = OWNER.reveal()
    assert sdk.add_colony(wanted, server) == wanted
    with pytest.raises(ColoniesConnectionError, match="already exists"):
        sdk.add_colony(wanted, server)
    assert wanted in sdk.list_colonies(server)
    sdk.del_colony(wanted["name"], server)
    assert wanted not in sdk.list_colonies(server)
    with pytest.raises(ColoniesConnectionError, match="not found"):
        sdk.del_colony(wanted["name"], server)


def test_a_colony_is_read_by_its_members(place: Place) -> None:
    assert place.sdk.get_colony(place.name, place.key)["name"] == place.name


def test_an_executor_is_added_approved_listed_rejected_and_removed(place: Place) -> None:
    sdk = place.sdk
    key = Crypto().prvkey()
    wanted = _executor(place.name, "another", key)
    assert sdk.add_executor(wanted, place.owner)["executorid"] == wanted["executorid"]
    with pytest.raises(ColoniesConnectionError, match="already exists"):
        sdk.add_executor(wanted, place.owner)
    listed = sdk.list_executors(place.name, place.key)
    assert (listed[0]["state"], listed[0]["executorname"]) == (1, place.executor)
    read = sdk.get_executor(place.name, listed[0]["executorname"], place.key)
    assert read["executorid"] == listed[0]["executorid"]
    sdk.remove_executor(place.name, "another", place.owner)
    sdk.reject_executor(place.name, place.executor, place.owner)
    with pytest.raises(ColoniesConnectionError, match="Access denied"):
        sdk.list_executors(place.name, place.key)


def test_a_process_is_submitted_and_assigned_at_once(place: Place) -> None:
    submitted = place.sdk.submit_func_spec(place.spec(), place.key)
    assert submitted.state == place.sdk.WAITING == 0
    assert submitted.spec.env == {"test_key": "test_value2"}
    assigned = place.sdk.assign(place.name, 10, place.key)
    assert (assigned.processid, assigned.state) == (submitted.processid, 1)
    assert assigned.assignedexecutorid == Crypto().id(place.key)
    assert place.sdk.get_process(submitted.processid, place.key).processid == submitted.processid


def test_an_assign_without_work_raises(place: Place) -> None:
    with pytest.raises(ColoniesConnectionError, match="No process available"):
        place.sdk.assign(place.name, -1, place.key)
    with pytest.raises(ColoniesConnectionError, match="timeout cannot be zero"):
        place.sdk.assign(place.name, 0, place.key)


def test_a_parked_assign_gets_what_is_submitted(home: House, place: Place) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(place.sdk.assign, place.name, 60, place.key)
        while not home.rooms.hand_over.parked():
            place.sdk.stats(place.name, place.key)
        id = place.submit()
        assert waiting.result(20).processid == id


def test_lists_and_statistics_after_four_processes(place: Place) -> None:
    sdk = place.sdk
    ids = [place.submit() for _ in range(4)]
    assert len(sdk.list_processes(place.name, 2, sdk.WAITING, place.key)) == 2
    for _ in range(3):
        sdk.assign(place.name, 10, place.key)
    sdk.close(ids[0], [], place.key)
    sdk.fail(ids[1], [], place.key)
    lists = [sdk.list_processes(place.name, 2, state, place.key) for state in range(4)]
    assert [[each["processid"] for each in found] for found in lists] == [
        [ids[3]],
        [ids[2]],
        [ids[0]],
        [ids[1]],
    ]
    stats = sdk.stats(place.name, place.key)
    names = ("waiting", "running", "successful", "failed")
    assert [stats[f"{name}processes"] for name in names] == [1, 1, 1, 1]
    assert sdk.get_process(ids[1], place.key).errors == []


def test_a_removed_process_is_gone(place: Place) -> None:
    id = place.submit()
    place.sdk.remove_process(id, place.key)
    with pytest.raises(ColoniesConnectionError):
        place.sdk.get_process(id, place.key)


def test_all_processes_are_removed_by_the_owner(place: Place) -> None:
    for _ in range(3):
        place.submit()
    with pytest.raises(ColoniesConnectionError, match="Access denied"):
        place.sdk.remove_all_processes(place.name, place.key)
    place.sdk.remove_all_processes(place.name, place.owner)
    assert place.sdk.list_processes(place.name, 10, 0, place.key) == []


def test_output_is_set_and_results_come_back(place: Place) -> None:
    id = place.submit()
    place.sdk.assign(place.name, 10, place.key)
    place.sdk.set_output(id, ["output1", "output2"], place.key)
    assert place.sdk.get_process(id, place.key).output == ["output1", "output2"]
    place.sdk.close(id, ["done", 1, 2.5], place.key)
    process = place.sdk.get_process(id, place.key)
    assert (process.state, process.output) == (place.sdk.SUCCESSFUL, ["done", 1, 2.5])
    with pytest.raises(ColoniesConnectionError, match="Tried to set successful process as failed"):
        place.sdk.fail(id, ["no"], place.key)


def test_failures_come_back(place: Place) -> None:
    id = place.submit()
    place.sdk.assign(place.name, 10, place.key)
    place.sdk.fail(id, ["too hot", "too cold"], place.key)
    process = place.sdk.get_process(id, place.key)
    assert (process.state, process.errors) == (place.sdk.FAILED, ["too hot", "too cold"])


def test_attributes_are_added_and_read(place: Place) -> None:
    id = place.submit()
    place.sdk.assign(place.name, 10, place.key)
    added = place.sdk.add_attribute(id, "key", "value", place.key)
    read = place.sdk.get_attribute(added["attributeid"], place.key)
    assert read == added
    assert (read["key"], read["value"]) == ("key", "value")
    found = {each.key: each.value for each in place.sdk.get_process(id, place.key).attributes}
    assert found == {"test_key": "test_value2", "key": "value"}
    place.sdk.close(id, ["done"], place.key)


def test_functions_are_announced_and_listed(place: Place) -> None:
    sdk = place.sdk
    assert sdk.get_functions_by_colony(place.name, place.key) == []
    assert sdk.add_function(place.name, place.executor, "f", place.key)["funcname"] == "f"
    [by_colony] = sdk.get_functions_by_colony(place.name, place.key)
    [by_executor] = sdk.get_functions_by_executor(place.name, place.executor, place.key)
    assert by_colony == by_executor
    assert by_colony["funcname"] == "f"


def test_logs_are_written_and_read(place: Place) -> None:
    id = place.submit()
    place.sdk.assign(place.name, 10, place.key)
    place.sdk.add_log(id, "hej", place.key)
    [of_process] = place.sdk.get_process_log(place.name, id, 100, -1, place.key)
    [of_executor] = place.sdk.get_executor_log(place.name, place.executor, 100, -1, place.key)
    assert of_process == of_executor
    assert of_process["message"] == "hej"
    assert place.sdk.get_process_log(place.name, id, 100, of_process["timestamp"], place.key) == []


def test_users_are_the_owners_business(place: Place) -> None:
    sdk = place.sdk
    key = Crypto().prvkey()
    user = {
        "colonyname": place.name,
        "userid": Crypto().id(key),
        "name": "uma",
        "email": "uma@example.com",
        "phone": "1",
    }
    for refused in (
        lambda: sdk.get_users(place.name, OWNER.reveal()),
        lambda: sdk.add_user(user, OWNER.reveal()),
        lambda: sdk.add_user(user, place.key),
    ):
        with pytest.raises(ColoniesConnectionError, match="Access denied"):
            refused()
    assert sdk.add_user(user, place.owner) == user
    assert sdk.get_users(place.name, key) == [user]
    assert sdk.submit_func_spec(place.spec(), key).initiatorname == "uma"
    sdk.remove_user(place.name, "uma", place.owner)
    with pytest.raises(ColoniesConnectionError, match="Access denied"):
        sdk.get_users(place.name, key)


def test_a_process_is_found_by_its_node(place: Place) -> None:
    ids = [place.submit(nodename=name) for name in ("a", "b")]
    assert place.sdk.find_process("b", ids, place.key).processid == ids[1]
    assert place.sdk.find_process("c", ids, place.key) is None


# -- api_test and func_spec


def test_the_life_of_a_spec_made_by_the_helper(place: Place) -> None:
    spec = func_spec(
        func="cli",
        args=["a", 1],
        colonyname=place.name,
        executortype=TYPE,
        executorname=place.executor,
        maxexectime=60,
        maxwaittime=60,
        maxretries=0,
        kwargs={"k": "v"},
    )
    submitted = place.sdk.submit_func_spec(spec, place.key)
    assert submitted.spec.args == ["a", 1]
    assert submitted.spec.conditions.executornames == [place.executor]
    assert submitted.waitdeadline > submitted.submissiontime
    [listed] = place.sdk.list_processes(place.name, 10, 0, place.key)
    assert listed["processid"] == submitted.processid
    place.sdk.remove_process(submitted.processid, place.key)


def greet(name: str) -> str:
    return f"hello {name}"


def test_a_python_function_travels_as_source(place: Place) -> None:
    spec = func_spec(func=greet, args=["you"], colonyname=place.name, executortype=TYPE)
    place.sdk.submit_func_spec(spec, place.key)
    got = place.sdk.assign(place.name, 10, place.key)
    assert got.spec.funcname == "greet"
    assert got.spec.env["args_spec"] == "name"
    assert {each.key for each in got.attributes} == {"args_spec", "code"}


def test_a_spec_for_one_executor_goes_to_that_one(place: Place) -> None:
    name, key = place.hire()
    spec = func_spec(func="f", args=[], colonyname=place.name, executortype=TYPE, executorname=name)
    id = place.sdk.submit_func_spec(spec, place.key).processid
    with pytest.raises(ColoniesConnectionError, match="No process available"):
        place.sdk.assign(place.name, -1, place.key)
    assert place.sdk.assign(place.name, 10, key).processid == id


def test_a_server_that_is_not_there_is_an_error_of_the_connection() -> None:
    with pytest.raises(ColoniesConnectionError):
        Colonies("127.0.0.1", 1).list_colonies(OWNER.reveal())


def test_the_sdk_is_the_published_one() -> None:
    assert "site-packages" in pycolonies.__file__
