"""What is shipped for operators works as it is: configuration, ACL example, TLS."""

import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from colonist_agent.transport_mqtt import MqttTransport, running
from colonist_bridge.acl import mosquitto_acl
from colonist_client.transport import NotSentError
from colonist_protocol.envelope import pack_request
from colonist_protocol.process import GetProcess
from tests.bridge.rig import TOPICS, Place, identity, rig
from tests.bridge.test_acl import _passwords, password_of
from tests.support.broker import free_port, running_broker

SHIPPED = Path(__file__).parents[2] / "deploy" / "mosquitto"
ANNA = identity("anna")
READ = pack_request(GetProcess(processid="x" * 20_000), ANNA)
# What the test's broker has of its own.
OWN = ("listener", "persistence", "autosave", "certfile", "keyfile", "per_listener")

pytestmark = pytest.mark.mosquitto


def test_shipped_acl_is_what_the_generator_writes() -> None:
    assert (SHIPPED / "colonist.acl").read_text() == mosquitto_acl(TOPICS, ["hall-3"])


@pytest.fixture
async def shipped(tmp_path: Path) -> AsyncIterator[tuple[Place, int]]:
    """A broker with the shipped configuration, and the port where it speaks TLS."""
    (tmp_path / "acl").write_text(mosquitto_acl(TOPICS, ["edge"]))
    (tmp_path / "acl").chmod(0o600)
    _passwords(tmp_path / "passwords", [ANNA.id, "gw-edge"])
    _certificate(tmp_path)
    lines = [
        line
        for line in (SHIPPED / "colonist.conf").read_text().splitlines()
        if not line.startswith(OWN)
    ]
    port = free_port()
    made = "\n".join(lines).replace("/etc/mosquitto/colonist.", f"{tmp_path}/") + (
        f"\nlistener {port} 127.0.0.1\ncertfile {tmp_path}/crt\nkeyfile {tmp_path}/key\n"
        "use_username_as_clientid true\n"
    )
    async with running_broker(made) as broker:
        yield Place(f"mqtt://127.0.0.1:{broker.port}", password_of), port


async def test_a_bridge_and_a_device_work_under_the_shipped_configuration(
    shipped: tuple[Place, int],
) -> None:
    place, _ = shipped
    device = MqttTransport(place.url, ANNA.id, password=place.password_of(ANNA.id))
    async with rig(place), running(device) as anna:
        assert b'"error":false' in await anna.exchange(READ, wait_s=20)


async def test_the_same_over_tls_and_never_with_a_stranger(
    shipped: tuple[Place, int], tmp_path: Path
) -> None:
    place, port = shipped
    trusting = ssl.create_default_context(cafile=tmp_path / "crt")
    password = password_of(ANNA.id)
    url = f"mqtts://localhost:{port}"
    async with rig(place):
        device = MqttTransport(url, ANNA.id, password=password, tls=trusting)
        async with running(device) as anna:
            for _ in range(20):
                assert b'"error":false' in await anna.exchange(READ, wait_s=20)
        suspicious = MqttTransport(url, ANNA.id, password=password)
        async with running(suspicious) as anna:
            with pytest.raises(NotSentError):
                await anna.exchange(READ, wait_s=0.5)


def _certificate(folder: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", folder / "key", "-out", folder / "crt", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
