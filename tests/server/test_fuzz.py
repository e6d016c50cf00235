"""Any request gets a well-formed reply that is no fault of the server: against a live server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colonist_protocol import messages
from colonist_protocol.identity import Identity
from colonist_server.rpc.table import ROUTES
from tests.server.house import Got, House, house, sign
from tests.server.people import OTHER, WHO
from tests.server.test_routes import BY_TYPE
from tests.support.rooms import COLONY

CALLERS = list(WHO.values())
SHARED = settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# What would take away those who are needed by the rest aims at somebody else.
SPARED = {
    "removecolonymsg": {"colonyname": OTHER},
    "removeexecutormsg": {"executorname": "una"},
    "rejectexecutormsg": {"executorname": "rex"},
    "removeusermsg": {"name": "nobody"},
}


class Live:
    """A server with a loop of its own, for tests that are no coroutines."""

    def __init__(self, runner: asyncio.Runner, home: House) -> None:
        self.runner = runner
        self.home = home

    def post(self, body: bytes) -> Got:
        """Send a body; what came back is a reply of the protocol, and not our fault."""
        got = self.runner.run(self.home.post(body))
        assert got.status != 500, body
        assert got.code or got.status == 200
        assert got.code != "unavailable", (body, got.payload)  # the store refused what we let pass
        return got

    def check_alive(self) -> None:
        assert self.runner.run(self.home.request("GET", "/health")).status == 200


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Generator[Live]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    with asyncio.Runner() as runner:
        made = house(folder)
        home = runner.run(made.__aenter__())
        runner.run(home.populate())
        runner.run(home.employ())
        runner.run(home.weave())
        yield Live(runner, home)
        runner.run(made.__aexit__(None, None, None))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["", "*", "a:b", "../..", "\u202e", "😀" * 128, "x" * 3000, COLONY, OTHER]),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with some of it replaced, left out, added, or nested."""
    if isinstance(value, dict):
        made = {
            name: draw(changed(inner)) if draw(st.integers(0, 3)) == 0 else inner
            for name, inner in value.items()
            if draw(st.integers(0, 12)) or name == "msgtype"
        }
        if not draw(st.integers(0, 5)):
            made[draw(st.text(max_size=4))] = draw(values)
        return made
    if isinstance(value, list) and draw(st.booleans()):
        return [draw(changed(inner)) for inner in value] * draw(st.integers(0, 3))
    return draw(values)


def example(home: House, kind: str) -> Any:
    """A message that this server would take."""
    message = json.loads(msgspec.json.encode(BY_TYPE[kind].make(home)))
    return {**message, **SPARED.get(kind, {})}


@pytest.mark.parametrize("kind", ROUTES)
@settings(parent=SHARED, max_examples=60)
@given(data=st.data(), caller=st.sampled_from(CALLERS))
def test_any_change_of_a_message_is_answered(
    live: Live, kind: str, data: st.DataObject, caller: Identity
) -> None:
    message = data.draw(changed(example(live.home, kind)))
    message["msgtype"] = kind
    if kind == "assignprocessmsg" and isinstance(message.get("timeout"), int):
        message["timeout"] = min(message["timeout"], 0)  # nobody waits here
    live.post(sign(json.dumps(message).encode(), caller))


@SHARED
@given(
    payloadtype=st.sampled_from([*messages.TYPED, *messages.UNSUPPORTED, "", "x"]) | st.text(),
    payload=st.binary(max_size=40),
    caller=st.sampled_from(CALLERS),
)
def test_any_payload_under_any_type_is_answered(
    live: Live, payloadtype: str, payload: bytes, caller: Identity
) -> None:
    live.post(sign(payload, caller, kind=payloadtype))


@SHARED
@given(
    envelope=st.fixed_dictionaries(
        {},
        optional={
            "payloadtype": scalars | st.sampled_from(list(messages.TYPED)),
            "payload": scalars | st.sampled_from(["e30=", "bnVsbA=="]),
            "signature": scalars | st.text("0123456789abcdef", min_size=130, max_size=130),
            "more": values,
        },
    )
)
def test_any_envelope_is_answered(live: Live, envelope: dict[str, Any]) -> None:
    live.post(json.dumps(envelope).encode())


@SHARED
@given(st.binary(max_size=200))
def test_any_bytes_are_answered(live: Live, body: bytes) -> None:
    assert live.post(body).status == 400


@SHARED
@given(data=st.data(), at=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_any_byte_of_a_good_request_may_change(
    live: Live, data: st.DataObject, at: int, byte: int
) -> None:
    kind = data.draw(st.sampled_from(["getprocessesmsg", "submitfuncspecmsg", "getcolonymsg"]))
    body = bytearray(sign(json.dumps(example(live.home, kind)).encode(), WHO["approved"]))
    body[at % len(body)] = byte
    live.post(bytes(body))


def test_after_all_that_the_server_lives_and_counts_right(live: Live) -> None:
    live.check_alive()

    async def count() -> None:
        home = live.home
        statistics = await home.statistics()
        for state, name in enumerate(["waiting", "running", "successful", "failed", "cancelled"]):
            assert min(statistics[f"{name}processes"], 100) == len(await home.list(state))

    live.runner.run(count())
