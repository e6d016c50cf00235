"""The generated rules, asked of a real mosquitto: what gets through and what does not."""

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from colonist_bridge import acl
from colonist_client.mqtt_connection import LinkError
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.topics import Topics
from tests.bridge.rig import TOPICS, Place, identity, wire
from tests.support import parts
from tests.support.broker import running_broker

ANNA, THIEF = identity("anna").id, identity("thief").id
P = TOPICS.prefix
ACCOUNTS = (ANNA, THIEF, "gw-edge", "gw-other", "enrol")
EVERYTHING = "#"

# who writes where, and whether it gets through
WRITES = [
    (ANNA, f"{P}/{ANNA}/req", True),
    (ANNA, f"{P}/{ANNA}/state", True),
    (ANNA, f"{P}/{ANNA}/lost", True),
    (ANNA, f"{P}/{ANNA}/rep", False),
    (THIEF, f"{P}/{ANNA}/req", False),
    (THIEF, f"{P}/{ANNA}/state", False),
    (THIEF, f"{P}/{ANNA}/rep", False),
    (THIEF, f"{P}/gw/edge/state", False),
    (THIEF, "elsewhere", False),
    ("gw-edge", f"{P}/{ANNA}/rep", True),
    ("gw-edge", f"{P}/gw/edge/state", True),
    ("gw-edge", f"{P}/gw/other/state", False),
    ("gw-edge", f"{P}/{ANNA}/req", False),
    ("enrol", f"{P}/enrol/req", True),
    ("enrol", f"{P}/{ANNA}/req", False),
    ("enrol", f"{P}/gw/edge/state", False),
]
# who reads what
READS = [
    (ANNA, f"{P}/{ANNA}/rep", True),
    (ANNA, f"{P}/gw/edge/state", True),
    (THIEF, f"{P}/{ANNA}/rep", False),
    (THIEF, f"{P}/{ANNA}/req", False),
    ("gw-edge", f"{P}/{ANNA}/req", True),
    ("gw-edge", f"{P}/{ANNA}/lost", True),
    ("gw-edge", f"{P}/{ANNA}/rep", False),
    ("enrol", f"{P}/{ANNA}/rep", False),
    ("enrol", f"{P}/gw/edge/state", False),
]
KINDS = ["file", "dynamic"]

pytestmark = pytest.mark.mosquitto


def password_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:20]


@pytest.fixture
async def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """A broker under the rules. An auditor sees everything, a scribe writes everything."""
    made = _file(tmp_path) if request.param == "file" else _dynamic(tmp_path)
    async with running_broker(made) as broker:
        yield Place(f"mqtt://127.0.0.1:{broker.port}", password_of)


def _file(folder: Path) -> str:
    rules = acl.mosquitto_acl(TOPICS, ["edge", "other"])
    rules += "\nuser auditor\ntopic readwrite #\n"
    (folder / "acl").write_text(rules)
    (folder / "acl").chmod(0o600)
    _passwords(folder / "passwords", [*ACCOUNTS, "auditor"])
    return (
        f"allow_anonymous false\nuse_username_as_clientid true\n"
        f"acl_file {folder}/acl\npassword_file {folder}/passwords\n"
    )


def _passwords(file: Path, names: list[str]) -> None:
    tool = parts.program("mosquitto", "mosquitto_passwd")
    file.write_text("".join(f"{name}:{password_of(name)}\n" for name in names))
    subprocess.run([tool, "-U", file], check=True, timeout=30)
    file.chmod(0o600)


def _dynamic(folder: Path) -> str:
    plugin = _plugin()
    made = acl.dynamic_security(
        TOPICS,
        bridges=["edge", "other"],
        devices=[ANNA, THIEF],
        passwords={name: password_of(name) for name in ACCOUNTS},
        salt=os.urandom,
    )
    auditor = acl._client("auditor", password_of("auditor"), os.urandom)
    made["clients"].append(auditor)
    made["roles"].append(acl._role("auditor", acl.Access((EVERYTHING,), (EVERYTHING,))))
    (folder / "dynamic.json").write_text(acl.dynamic_security_text(made))
    return f"allow_anonymous false\nplugin {plugin}\nplugin_opt_config_file {folder}/dynamic.json\n"


def _plugin() -> Path:
    places = [Path("/usr/lib"), Path("/usr/local/lib"), parts.CACHE / "mosquitto"]
    for place in places:
        for found in place.rglob("mosquitto_dynamic_security.so"):
            return found
    pytest.skip("mosquitto is here, its dynamic-security plugin is not")


@pytest.mark.parametrize("guarded", KINDS, indirect=True)
async def test_writes_get_through_as_the_rules_say(guarded: Place) -> None:
    async with wire(guarded, "auditor", EVERYTHING) as auditor:
        for number, (name, topic, passes) in enumerate(WRITES):
            with contextlib.suppress(LinkError):
                async with wire(guarded, name) as writer:
                    await writer.connection.publish(topic, b"%d" % number)
            mark = f"end/{number}"
            await auditor.connection.publish(mark, b"")
            got = False
            while (message := await auditor.next()).topic != mark:
                got = got or message.payload == b"%d" % number
            assert got is passes, f"{name} to {topic}"


@pytest.mark.parametrize("guarded", KINDS, indirect=True)
async def test_reads_get_through_as_the_rules_say(guarded: Place) -> None:
    async with wire(guarded, "auditor") as scribe:
        for name, topic, passes in READS:
            try:
                async with wire(guarded, name, topic) as reader:
                    await scribe.connection.publish(topic, b"x")
                    async with asyncio.timeout(1.0 if passes else 0.2):
                        got = (await reader.next()).payload == b"x"
            except (LinkError, TimeoutError):
                got = False
            assert got is passes, f"{name} from {topic}"


@pytest.mark.parametrize("guarded", KINDS, indirect=True)
async def test_nobody_gets_in_without_a_password(guarded: Place) -> None:
    with pytest.raises(LinkError):
        async with wire(Place(guarded.url, lambda _name: "wrong"), ANNA):
            pass


@pytest.mark.parametrize("guarded", ["dynamic"], indirect=True)
async def test_a_device_cannot_take_anothers_client_id(guarded: Place) -> None:
    stolen = Place(guarded.url, lambda _name: password_of(THIEF))
    with pytest.raises(LinkError):
        async with wire(stolen, ANNA):
            pass


def test_dynamic_security_binds_client_id_to_user_name_and_knows_no_plain_password() -> None:
    made = acl.dynamic_security(
        TOPICS,
        bridges=["edge"],
        devices=[ANNA],
        passwords={ANNA: "secret-of-anna"},
        salt=lambda length: b"s" * length,
    )
    clients = {client["username"]: client for client in made["clients"]}
    assert clients[ANNA]["clientid"] == ANNA
    assert clients["gw-edge"]["clientid"] == "gw-edge"
    assert "clientid" not in clients["enrol"]
    assert "password" not in clients["gw-edge"]
    assert "secret-of-anna" not in json.dumps(made)


@pytest.mark.parametrize("name", ["", "Edge", "a/b", "+", "x" * 33])
def test_a_bridge_name_that_would_widen_the_rules_is_refused(name: str) -> None:
    with pytest.raises(InvalidValueError):
        acl.mosquitto_acl(Topics(), [name])


def test_a_device_that_is_no_id_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        acl.dynamic_security(Topics(), bridges=[], devices=["+"], passwords={}, salt=os.urandom)
