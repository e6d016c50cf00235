"""The published pycolonies package, unmodified, waits on `/pubsub`: COLONIES-RPC section 1.8."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import Future

import pytest
from crypto import Crypto
from model import Process
from pycolonies import Colonies, ColoniesConnectionError

from tests.server.house import House
from tests.server.test_pycolonies import (
    Place,
    home,  # noqa: F401 - fixtures
    place,  # noqa: F401
    sdk,  # noqa: F401
)

FAR_S = 100
SOON_S = 20


@pytest.fixture(name="made")
def _made(place: Place) -> Place:  # noqa: F811
    return place


@pytest.fixture(name="house")
def _house(home: House) -> House:  # noqa: F811
    return home


def _waiting(made: Place, house: House, process: Process, timeout: int = FAR_S) -> Future[Process]:
    """A call of `wait` that the server holds by now."""
    result: Future[Process] = Future()
    before = house.rooms.subscriptions.count

    def run() -> None:
        own = Colonies(made.sdk.host, made.sdk.port, tls=False, native_crypto=False)
        try:
            result.set_result(own.wait(process, timeout, made.key))
        except Exception as error:  # noqa: BLE001 - for whoever asks
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    until = time.monotonic() + SOON_S
    while house.rooms.subscriptions.count == before and not result.done():
        assert time.monotonic() < until
        made.sdk.list_processes(made.name, 1, 0, made.key)
    return result


def test_wait_returns_the_result(made: Place, house: House) -> None:
    process = made.sdk.submit_func_spec(made.spec(), made.key)
    done = _waiting(made, house, process)
    assigned = made.sdk.assign(made.name, 10, made.key)
    assert not done.done()
    made.sdk.close(assigned.processid, ["out", "come"], made.key)
    shown = done.result(SOON_S)
    assert (shown.processid, shown.state, shown.output) == (
        process.processid,
        2,
        ["out", "come"],
    )


def test_wait_returns_promptly_when_the_process_fails(made: Place, house: House) -> None:
    process = made.sdk.submit_func_spec(made.spec(), made.key)
    done = _waiting(made, house, process)
    made.sdk.assign(made.name, 10, made.key)
    made.sdk.fail(process.processid, ["too hot"], made.key)
    shown = done.result(SOON_S)
    assert (shown.state, shown.errors) == (3, ["too hot"])


def test_wait_for_what_has_ended_returns_at_once(made: Place) -> None:
    process = made.sdk.submit_func_spec(made.spec(), made.key)
    made.sdk.assign(made.name, 10, made.key)
    made.sdk.close(process.processid, ["x"], made.key)
    assert made.sdk.wait(process, FAR_S, made.key).output == ["x"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wait_ends_with_its_time(made: Place) -> None:
    """The library under the SDK leaves the socket to the collector when the server closes first."""
    process = made.sdk.submit_func_spec(made.spec(), made.key)
    start = time.monotonic()
    assert made.sdk.wait(process, 1, made.key).state == 0
    assert 0.9 <= time.monotonic() - start < SOON_S
    gc.collect()


def test_wait_tells_who_may_not(made: Place) -> None:
    process = made.sdk.submit_func_spec(made.spec(), made.key)
    with pytest.raises(ColoniesConnectionError, match="Access denied"):
        made.sdk.wait(process, FAR_S, Crypto().prvkey())


def test_wait_uses_the_colonys_other_ways_too(made: Place, house: House) -> None:
    """Many who wait for the same process all get it."""
    process = made.sdk.submit_func_spec(made.spec(), made.key)
    waiting = [_waiting(made, house, process) for _ in range(10)]
    made.sdk.assign(made.name, 10, made.key)
    made.sdk.close(process.processid, ["x"], made.key)
    assert [each.result(SOON_S).output for each in waiting] == [["x"]] * 10


def test_channels_are_not_served_and_say_so(made: Place) -> None:
    process = made.sdk.submit_func_spec(made.spec(), made.key)
    with pytest.raises(Exception, match="not supported"):
        made.sdk.subscribe_channel(process.processid, "chat", made.key)
