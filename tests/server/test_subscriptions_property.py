"""Whatever happens in whatever order: each subscriber sees what came after it, in order, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from colonist_protocol.process import CancelProcess, ReleaseProcess, State
from tests.server.following import Ear, LaggingStore, follow, stream
from tests.server.people import World, world
from tests.support.clock import run_virtual
from tests.support.rooms import TYPE, key, settle

WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State
FINAL = {SUCCESS, FAILED, CANCELLED}

STEP = st.tuples(
    st.sampled_from(
        ["submit", "assign", "close", "release", "cancel", "expire", "follow", "stream", "leave"]
    ),
    st.integers(0, 7),
    st.sampled_from([-1, *State]),
    st.sampled_from(["", TYPE, "other"]),
    st.booleans(),
)


@dataclass
class Expected:
    """A subscriber and what it should have seen."""

    ear: Ear
    state: int
    type: str = ""
    process: str = ""
    events: list[tuple[str, int]] = field(default_factory=list)
    is_over: bool = False


@dataclass
class Model:
    """What happened, as it should be seen."""

    states: dict[str, int] = field(default_factory=dict)
    listeners: list[Expected] = field(default_factory=list)

    def happened(self, id: str, state: int) -> None:
        self.states[id] = state
        for one in self.listeners:
            if one.is_over or (one.process and one.process != id):
                continue
            if one.process and state in FINAL:
                one.is_over = True
                one.events.append((id, state))
            elif one.state in (-1, state) and (one.process or one.type in ("", TYPE)):
                one.events.append((id, state))

    def of(self, state: int) -> list[str]:
        return [id for id, now in self.states.items() if now == state]


async def _play(steps: list[Any], lag: int) -> None:
    async with LaggingStore(lag) as store, world(store) as made:
        await made.found("ada")
        await made.enrol("uma")
        model = Model()
        for what, number, state, type, is_settled in steps:
            await _step(made, model, what, number, (state, type))
            if is_settled:
                await settle(5)
        await settle((lag + 5) * (len(steps) + 20))
        for one in model.listeners:
            assert one.ear.pairs == one.events


async def _step(made: World, model: Model, what: str, number: int, wanted: tuple[int, str]) -> None:
    if what in ("submit", "assign", "close", "release", "cancel", "expire"):
        await _happen(made, model, what, number)
    elif what == "stream":
        state, type = wanted
        ear = await stream(made, state, type, 10_000)
        model.listeners.append(Expected(ear, state, type))
    elif what == "follow" and model.states:
        await _follow(made, model, list(model.states)[number % len(model.states)], wanted[0])
    elif what == "leave" and model.listeners:
        one = model.listeners[number % len(model.listeners)]
        await settle(1000)  # what is on its way may arrive
        assert one.ear.subscription is not None
        made.rooms.subscriptions.cancel(one.ear.subscription)
        one.is_over = True


async def _follow(made: World, model: Model, id: str, state: int) -> None:
    one = Expected(await follow(made, id, state, 10_000), state, process=id)
    now = model.states[id]
    if now in FINAL or state in (-1, now):
        one.events.append((id, now))
    one.is_over = now in FINAL
    model.listeners.append(one)


async def _happen(made: World, model: Model, what: str, number: int) -> None:
    waiting, running = model.of(WAITING), model.of(RUNNING)
    if what == "submit":
        shown = await made.submit("uma", maxexectime=1000 + number, maxretries=number % 2)
        model.happened(shown.processid, WAITING)
    elif what == "assign" and waiting:
        model.happened((await made.assign("ada", -1)).processid, RUNNING)
    elif what == "cancel" and waiting + running:
        id = (waiting + running)[number % len(waiting + running)]
        await made.call(CancelProcess(processid=id), key("uma"))
        model.happened(id, CANCELLED)
    elif running and what in END:
        await END[what](made, model, running[number % len(running)])


async def _close(made: World, model: Model, id: str) -> None:
    await made.close("ada", id)
    model.happened(id, SUCCESS)


async def _release(made: World, model: Model, id: str) -> None:
    await made.call(ReleaseProcess(processid=id), key("ada"))
    model.happened(id, WAITING)


async def _expire(made: World, model: Model, id: str) -> None:
    """As if the deadline had come."""
    row = made.rooms.view.rows[bytes.fromhex(id)]
    live = row.live()
    await made.rooms.processes.expire(row, live.deadline_ns)
    model.happened(id, FAILED if live.retries >= live.max_retries else WAITING)


END = {"close": _close, "release": _release, "expire": _expire}


@settings(max_examples=250, deadline=None)
@given(st.lists(STEP, min_size=5, max_size=60), st.sampled_from([10, 3, 0]))
def test_each_subscriber_sees_what_came_after_it_in_order(steps: list[Any], lag: int) -> None:
    run_virtual(_play(steps, lag))
