"""What a client does with replies, refusals and lost replies."""

import asyncio
import inspect
import traceback
from typing import Any

import pytest

from colonist_client.caller import OutcomeUnknownError
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff, Retry
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol import codec, envelope
from colonist_protocol.claims import AddClaim
from colonist_protocol.colony import Colony
from colonist_protocol.errors import AccessError, InvalidValueError
from colonist_protocol.executor import Executor
from colonist_protocol.function import Function
from colonist_protocol.function_spec import Conditions, FunctionSpec
from colonist_protocol.identity import Identity
from colonist_protocol.messages import TYPED
from colonist_protocol.process import State
from colonist_protocol.subscription import ON_PUBSUB
from colonist_protocol.user import User
from colonist_protocol.workflow import WorkflowSpec
from tests.support.clock import virtual
from tests.support.fake_server import FakeServer
from tests.support.transports import DirectTransport

KEY = Identity(bytes(31) + b"\x03")
SPEC = FunctionSpec(funcname="f", conditions=Conditions(colonyname="home"))
RETRY = Retry(backoff=Backoff(uniform=lambda _, high: high, base_s=1, cap_s=4), attempts=4)


def _stage(**client: Any) -> tuple[FakeServer, DirectTransport, Client]:
    server = FakeServer()
    server.approve(KEY.id)
    transport = DirectTransport(server.answer)
    return server, transport, Client(transport, KEY, **client)


@virtual
async def test_process_from_submit_to_result() -> None:
    _, _, client = _stage()
    submitted = await client.submit(SPEC)
    assert submitted.initiatorid == KEY.id
    assigned = await client.assign("home")
    assert assigned is not None
    assert (assigned.processid, assigned.state) == (submitted.processid, State.RUNNING)
    await client.add_log(assigned.processid, "a line")
    await client.add_attribute(assigned.processid, "k", "v")
    await client.close(assigned.processid, [1, "two"])
    done = await client.get(submitted.processid)
    assert done.output() == [1, "two"]
    assert [(each.key, each.value) for each in done.attributes] == [("k", "v")]


@virtual
async def test_assign_without_work_is_none_after_the_timeout() -> None:
    _, _, client = _stage()
    assert await client.assign("home", timeout_s=20) is None
    assert asyncio.get_running_loop().time() == pytest.approx(20)


@virtual
async def test_assign_may_wait_longer_than_other_calls() -> None:
    _, _, client = _stage(reply_s=5)
    assert await client.assign("home", timeout_s=120) is None


@virtual
async def test_null_for_an_empty_list_is_an_empty_list() -> None:
    _, _, client = _stage()
    assert await client.processes("home", state=State.FAILED) == []


@virtual
async def test_refusal_carries_status_code_and_message() -> None:
    _, _, client = _stage()
    with pytest.raises(ServerError) as raised:
        await client.get("unknown")
    error = raised.value
    assert (error.status, error.code) == (404, "not_found")
    assert error.message == str(error) == "Failed to get process, process not found"
    assert error.is_definite


@pytest.mark.parametrize(
    ("status", "is_definite"),
    [(400, True), (403, True), (404, True), (408, False), (429, False), (500, False), (503, False)],
)
def test_only_what_stays_refused_is_definite(status: int, is_definite: bool) -> None:
    error = ServerError(envelope.Failure(status, "no"))
    assert error.is_definite is is_definite
    assert (error.code, error.retry_after_s) == ("", 0)


@virtual
async def test_lost_reply_to_a_submit_is_said_and_not_repeated() -> None:
    server, transport, client = _stage(retry=RETRY)
    transport.drop_replies_to = {"submitfuncspecmsg"}
    with pytest.raises(OutcomeUnknownError, match="the outcome is unknown, look before"):
        await client.submit(SPEC)
    assert len(server.processes) == 1


@virtual
async def test_submit_that_never_left_says_so() -> None:
    _, transport, client = _stage()
    transport.is_down = True
    with pytest.raises(NotSentError):
        await client.submit(SPEC)


@virtual
async def test_reads_are_repeated_with_growing_pauses_then_given_up() -> None:
    _, transport, client = _stage(retry=RETRY)
    transport.is_down = True
    with pytest.raises(UnreachableError):
        await client.colonies()
    assert [time_s for time_s, _ in transport.sent] == pytest.approx([0, 1, 3, 7])


@virtual
async def test_definite_refusal_is_not_repeated() -> None:
    _, transport, client = _stage(retry=RETRY)
    with pytest.raises(ServerError):
        await client.get("unknown")
    assert len(transport.sent) == 1


@virtual
async def test_wait_ends_soon_after_the_process_and_looks_ever_more_rarely() -> None:
    server, transport, client = _stage()
    process_id = await server.add("f")

    async def end() -> None:
        await asyncio.sleep(100)
        await client.cancel(process_id)

    async with asyncio.TaskGroup() as group:
        group.create_task(end())
        done = await client.wait(process_id, timeout_s=600)
    assert done.state == State.CANCELLED
    assert 100 <= asyncio.get_running_loop().time() <= 105
    assert transport.count("getprocessmsg") < 40


@virtual
async def test_wait_passes_over_outages_and_ends_in_time() -> None:
    server, transport, client = _stage()
    process_id = await server.add("f")
    transport.is_down = True
    with pytest.raises(TimeoutError):
        await client.wait(process_id, timeout_s=60)
    assert asyncio.get_running_loop().time() == pytest.approx(60)


@virtual
async def test_wait_for_a_process_that_is_not_there_fails_at_once() -> None:
    _, _, client = _stage()
    with pytest.raises(ServerError):
        await client.wait("unknown", timeout_s=60)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"{}",
        b"[]",
        b'{"payloadtype":"x","payload":"%","error":false}',
        b'{"payloadtype":"x","payload":"e30=","error":false}',
        b'{"payloadtype":"x","payload":"bnVsbA==","error":false}',
        b'{"payloadtype":"error","payload":"e30=","error":true}',
    ],
)
@virtual
async def test_answer_that_is_no_reply_is_no_answer(reply: bytes) -> None:
    async def nonsense(_: bytes) -> bytes:
        return reply

    client = Client(DirectTransport(nonsense), KEY)
    with pytest.raises(UnreachableError, match=r"cannot be read|not what the protocol says"):
        await client.get("p")


@virtual
async def test_client_without_a_key_asks_only_what_needs_none() -> None:
    server = FakeServer()
    client = Client(DirectTransport(server.answer), None)
    assert (await client.version()).buildversion == "fake"
    with pytest.raises(InvalidValueError, match="this client has no key"):
        await client.colonies()


@virtual
async def test_key_is_in_no_text() -> None:
    async def refuse(_: bytes) -> bytes:
        return envelope.pack_failure(AccessError("Access denied"))

    client = Client(DirectTransport(refuse), KEY)
    with pytest.raises(ServerError) as raised:
        await client.submit(SPEC)
    shown = "".join(traceback.format_exception(raised.value)) + repr(client) + repr(client.identity)
    assert KEY.reveal() not in shown
    assert KEY.id in shown


@virtual
async def test_every_typed_message_can_be_sent() -> None:
    seen: set[str] = set()

    async def note(body: bytes) -> bytes:
        seen.add(envelope.parse_request(body).payloadtype)
        return envelope.pack_failure(AccessError("Access denied"))

    client = Client(DirectTransport(note), KEY)
    for name in dir(client):
        method: Any = getattr(client, name)
        if name.startswith("_") or name in NOT_CALLS or not callable(method):
            continue
        given = ARGUMENTS.get(name, ("a", "b")[: _positional(method)])
        called: Any = method(*given, **KEYWORDS.get(name, {}))
        with pytest.raises(ServerError):
            await (anext(called) if inspect.isasyncgen(called) else called)
    assert seen == set(TYPED) - ON_PUBSUB - {"enrolmsg"}


NOT_CALLS = {
    "aclose",
    "asking",
    "assigned",
    "deliver",
    "enrol",  # sealed only: tests/server/test_client_enrolment.py
    "order",
    "pack",
    "patient",
    "read",
    "read_list",
    "send",
    "wait",
    "write",
}


def _positional(method: Any) -> int:
    code = method.__func__.__code__
    return code.co_argcount - 1 - len(method.__func__.__defaults__ or ())


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "add_claim": (AddClaim(),),
    "submit": (SPEC,),
    "set_output": ("p", []),
    "add_colony": (Colony(colonyid="a", name="b"),),
    "add_user": (User(colonyname="a", userid="b", name="c"),),
    "add_executor": (Executor(executorid="a", executortype="b", executorname="c", colonyname="d"),),
    "add_function": (Function(executorname="a", colonyname="b", funcname="c"),),
    "add_log": ("p", "m"),
    "add_attribute": ("p", "k", "v"),
    "add_executor_log": ("c", "e", "m"),
    "submit_workflow": (WorkflowSpec(colonyname="a"),),
    "add_child": ("w", "p", SPEC),
    "add_generator": ("c", "g", WorkflowSpec(colonyname="c")),
    "add_cron": ("c", "k", WorkflowSpec(colonyname="c")),
}
KEYWORDS: dict[str, dict[str, Any]] = {
    "history": {"seconds": 60},
    "remove_all": {"state": -1},
    "add_generator": {"trigger": 3},
}


def test_packed_twice_is_the_same_bytes() -> None:
    client = Client(DirectTransport(_unused), KEY)
    message = TYPED["getprocessmsg"]
    first = client.pack(message()).body
    assert first == client.pack(message()).body
    assert codec.scan(first)["payloadtype"] == "getprocessmsg"


async def _unused(_: bytes) -> bytes:
    raise AssertionError


@virtual
async def test_what_a_server_asks_to_wait_is_waited() -> None:
    times: list[float] = []

    async def busy(_: bytes) -> bytes:
        times.append(asyncio.get_running_loop().time())
        payload = codec.to_base64(codec.encode(envelope.Failure(503, "busy", "busy", 20)))
        return codec.encode(envelope.ReplyEnvelope("error", payload, error=True))

    client = Client(DirectTransport(busy), KEY, retry=RETRY)
    with pytest.raises(ServerError):
        await client.get("p")
    assert times == pytest.approx([0, 21, 43, 67])
