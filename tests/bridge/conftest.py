"""The two brokers that the bridge is tried against: a real mosquitto and the embedded one."""

from collections.abc import AsyncIterator

import pytest

from colonist_cli.embedded_broker import embedded_broker
from tests.bridge.rig import Place
from tests.support.broker import Broker, running_broker


@pytest.fixture
async def mosquitto() -> AsyncIterator[Broker]:
    async with running_broker() as broker:
        yield broker


@pytest.fixture(params=[pytest.param("mosquitto", marks=pytest.mark.mosquitto), "embedded"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "mosquitto":
        async with running_broker() as broker:
            yield Place(f"mqtt://127.0.0.1:{broker.port}")
        return
    async with embedded_broker() as broker:
        known: dict[str, str] = {}

        def password_of(name: str) -> str:
            if name not in known:
                is_bridge = name.startswith("gw-")
                made = broker.add_bridge(name[3:])[1] if is_bridge else broker.add_device(name)
                known[name] = made
            return known[name]

        yield Place(broker.url, password_of)


@pytest.fixture
def mosquitto_place(mosquitto: Broker) -> Place:
    return Place(f"mqtt://127.0.0.1:{mosquitto.port}")
