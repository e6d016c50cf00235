"""The embedded broker lets in its accounts only, each with its own topics."""

import asyncio

import pytest

from colonist_bridge.acl import Access
from colonist_cli.embedded_broker import Snapshots, embedded_broker
from colonist_cli.embedded_rules import Accounts, covers
from colonist_client.mqtt_connection import LinkError
from tests.bridge.rig import TOPICS, Place, identity, wire

ANNA, THIEF = identity("anna").id, identity("thief").id


@pytest.mark.parametrize(
    ("rule", "wanted", "is_covered"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/b", "a", False),
        ("a/b", "a/b/c", False),
        ("a/b", "a/+", False),
        ("a/b", "#", False),
        ("a/+", "a/b", True),
        ("a/+", "a/+", True),
        ("a/+", "a/#", False),
        ("a/+", "+/b", False),
        ("a/+/#", "a/b/c/d", True),
        ("a/+/#", "a/+/#", True),
        ("a/+/#", "a/#", False),
        ("a/#", "b/c", False),
    ],
)
def test_a_rule_covers_a_filter_only_if_it_has_all_its_topics(
    rule: str, wanted: str, is_covered: bool
) -> None:
    assert covers(rule, wanted) is is_covered


@pytest.mark.parametrize(
    ("client_id", "name", "password", "is_in"),
    [
        ("a", "a", "right", True),
        ("a", "a", "wrong", False),
        ("b", "a", "right", False),
        ("a", "b", "right", False),
        ("a", None, None, False),
        (None, None, None, False),
        ("a", "a", None, False),
    ],
)
def test_who_gets_in(
    client_id: str | None, name: str | None, password: str | None, is_in: bool
) -> None:
    accounts = Accounts()
    accounts.add("a", "right", Access((), ()))
    assert accounts.may_connect(client_id, name, password) is is_in
    assert "right" not in repr(accounts)


async def test_strangers_and_wrong_passwords_do_not_get_in() -> None:
    async with embedded_broker() as broker:
        broker.add_device(ANNA)
        for name in (ANNA, THIEF):
            with pytest.raises(LinkError):
                async with wire(Place(broker.url, lambda _name: "wrong"), name):
                    pass


async def test_a_device_reads_and_writes_its_own_topics_only() -> None:
    async with embedded_broker() as broker:
        passwords = {id: broker.add_device(id) for id in (ANNA, THIEF)}
        _, passwords["gw-edge"] = broker.add_bridge("edge")
        place = Place(broker.url, passwords.__getitem__)
        async with (
            wire(place, "gw-edge", TOPICS.every_device("req")) as bridge,
            wire(place, ANNA, TOPICS.device(ANNA, "rep")) as anna,
        ):
            with pytest.raises(LinkError):
                async with wire(place, THIEF, TOPICS.device(ANNA, "rep")):
                    pass
            async with wire(place, THIEF) as thief:
                await thief.connection.publish(TOPICS.device(ANNA, "req"), b"forged")
                await thief.connection.publish(TOPICS.device(ANNA, "rep"), b"forged")
                await thief.connection.publish(TOPICS.device(THIEF, "req"), b"own")
            assert (await bridge.next()).payload == b"own"
            await bridge.connection.publish(TOPICS.device(ANNA, "rep"), b"reply")
            assert (await anna.next()).payload == b"reply"


async def test_passwords_are_new_at_each_start() -> None:
    seen: set[str] = set()
    for _ in range(2):
        async with embedded_broker() as broker:
            seen |= {broker.add_device(ANNA), broker.add_bridge("edge")[1]}
    assert len(seen) == 4


async def test_the_port_is_free_again_after_the_end() -> None:
    async with embedded_broker() as broker:
        port = broker.port
        with pytest.raises(LinkError):
            async with wire(Place(broker.url), "nobody"):
                pass
    async with embedded_broker(port=port) as broker:
        assert broker.url == f"mqtt://127.0.0.1:{port}"
    with pytest.raises(OSError, match=str(port)):
        await asyncio.open_connection("127.0.0.1", port)


def test_subscriptions_may_change_while_messages_are_handed_out() -> None:
    table = Snapshots({"a": [], "b": []})
    for topic, waiting in table.items():
        table[f"{topic}/c"] = waiting
    for topic in table:
        del table[topic]
    assert not table
