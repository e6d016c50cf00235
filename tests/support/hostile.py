"""A gateway that nobody should trust, between real clients and real servers; and what it gets done.

It carries every message, more than once if it likes, loses replies and shows others instead; it
keeps all that it saw, and presents it again, changed or not, to any server, in any way, for ever.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from colonist_client.caller import Caller
from colonist_client.client import Client
from colonist_client.retry import Backoff, Retry
from colonist_client.sealer import Pin, Sealer
from colonist_client.transport import UnreachableError
from colonist_core.process import What
from colonist_protocol import codec, digests, envelope
from colonist_protocol.envelope import Envelope
from colonist_protocol.errors import ColonistError
from colonist_protocol.identity import ORDER, Identity
from colonist_protocol.tokens import ServerKeys
from colonist_server.repo import keys
from colonist_server.repo.records import decode_live
from colonist_server.rpc.dispatch import Dispatch
from colonist_server.store.interface import Guard, Op, Put, Revision
from tests.server.people import World, crashing, world
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, key
from tests.support.stores import OF_NODES

TEN_YEARS_S = 10 * 365 * 86_400.0
KEPT = 4_000
"""Captured messages that are remembered; beyond, one is dropped at random."""

_HOUSE = (*OF_NODES, keys.FUNCTION, b"m/")


class EffectStore(MemoryStore):
    """Counts the commits that change anything for anybody."""

    def __init__(self) -> None:
        super().__init__()
        self.effects = 0

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        revision = await super().commit(guards, ops)
        if revision is not None and not all(_is_bookkeeping(op) for op in ops):
            self.effects += 1
        return revision


def _is_bookkeeping(op: Op) -> bool:
    """Of the house; or the note that a grant was shown again, which stays the grant it was."""
    if isinstance(op, Put) and op.key.startswith(keys.LIVE):
        events = decode_live(op.value).events
        return bool(events) and events[-1].what == What.REDELIVERED
    return op[0].startswith(_HOUSE)


class Site:
    """A server with a key of its own, to be started again and again on its store."""

    def __init__(self, name: str) -> None:
        self.keys = ServerKeys(key(f"server {name}"))
        self.store = EffectStore()
        self.made: World

    @property
    def dispatch(self) -> Dispatch:
        return self.made.dispatch

    @asynccontextmanager
    async def running(self, *, dies: bool) -> AsyncGenerator[World]:
        """A server at work on the store, until it is stopped, or dies."""
        way = crashing if dies else world
        async with way(self.store, server_keys=self.keys) as made:
            self.made = made
            yield made


class Captured(NamedTuple):
    """A request as it went by."""

    body: bytes
    site: Site
    caller: Identity
    re: str


class Gateway:
    """What it saw, what it tried, what it got done that nobody asked for."""

    def __init__(self, sites: Sequence[Site], rng: random.Random) -> None:
        self.sites = sites
        self.rng = rng
        self.captured: list[Captured] = []
        self.replies: list[bytes] = []
        self.tried: Counter[str] = Counter()
        self.accepted: list[str] = []
        self.believed: list[str] = []
        self._thief = key("the gateway")

    # -- carrying

    async def carry(self, body: bytes, site: Site, caller: Identity) -> bytes:
        """Present a genuine message, more or less as it should."""
        rng = self.rng
        self._keep(Captured(body, site, caller, _digest_of(body)))
        times = rng.choice((1, 1, 1, 2, 3))
        answers = await asyncio.gather(*(site.dispatch.answer(body) for _ in range(times)))
        reply = rng.choice(answers).body
        fate = rng.random()
        if fate < 0.1:
            raise UnreachableError("the reply was lost")
        if fate < 0.2 and self.replies:
            return rng.choice(self.replies)  # of another request, or an older one
        if fate < 0.25:
            return _flipped(rng, reply)
        self.replies.append(reply)
        return reply

    def _keep(self, one: Captured) -> None:
        if len(self.captured) >= KEPT:
            self.captured[self.rng.randrange(KEPT)] = one
        else:
            self.captured.append(one)

    # -- attacking

    async def attack(self) -> None:
        """Present one captured message, as it was or changed, somewhere."""
        rng = self.rng
        one = rng.choice(self.captured)
        name = rng.choice(list(ATTACKS))
        site = one.site if rng.random() < 0.8 else rng.choice(self.sites)
        body = ATTACKS[name](self, one)
        before = [each.store.effects for each in self.sites]
        if rng.random() < 0.1:
            name += " on /pubsub"
            answer = await self._subscribe(site, body)
        else:
            answer = (await site.dispatch.answer(body)).body
        self.tried[name] += 1
        if [each.store.effects for each in self.sites] != before:
            self.accepted.append(f"{name}: {one.body!r} as {body!r}")
        if b'"seal"' in answer and not _is_same(body, one.body):
            self._check_not_believed(name, one, answer)

    async def _subscribe(self, site: Site, body: bytes) -> bytes:
        class Nobody:
            """A sink for events that must not come."""

            def __getattr__(self, name: str) -> Any:
                raise AssertionError(f"an event was about to be sent: {name}")

        found = await site.dispatch.subscribe(body, Nobody(), lambda who: None)  # type: ignore[arg-type] # no event comes
        told = getattr(found, "body", None)
        return told if isinstance(told, bytes) else b""

    def _check_not_believed(self, name: str, one: Captured, answer: bytes) -> None:
        try:
            envelope.open_sealed_reply(
                answer, server=one.site.keys.id, caller=one.caller.id, re=one.re
            )
        except ColonistError:
            return
        self.believed.append(f"{name}: {one.body!r}")

    # -- what it may do to a message

    def another(self) -> Envelope:
        """Some other captured message."""
        return envelope.parse_request(self.rng.choice(self.captured).body)

    def stolen(self, sent: Envelope) -> Envelope:
        """The same bytes, signed by somebody else."""
        text = digests.tagged_text(digests.REQUEST, sent.payload, sent.seal)
        return _with(sent, signature=self._thief.sign(text))


def _packed(sent: Envelope) -> bytes:
    return codec.encode(sent)


def _with(sent: Envelope, **members: Any) -> Envelope:
    now = {name: getattr(sent, name) for name in Envelope.__struct_fields__}
    return Envelope(**{**now, **members})


def _digest_of(body: bytes) -> str:
    sent = envelope.parse_request(body)
    return digests.tagged_digest(digests.REQUEST, sent.payload, sent.seal).hex()


def _is_same(body: bytes, genuine: bytes) -> bool:
    """Whether it is the genuine request, however it is spelled."""
    try:
        return envelope.parse_request(body) == envelope.parse_request(genuine)
    except ColonistError:
        return False


def _flipped(rng: random.Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _json(text: str) -> dict[str, Any]:
    return json.loads(codec.from_base64(text))


def _text(members: dict[str, Any]) -> str:
    return codec.to_base64(codec.encode(members))


def _opened(one: Captured) -> Envelope:
    return envelope.parse_request(one.body)


def _again(gate: Gateway, one: Captured) -> bytes:
    return one.body


def _respelled(gate: Gateway, one: Captured) -> bytes:
    members = list(json.loads(one.body).items())
    gate.rng.shuffle(members)
    return json.dumps(dict(members), indent=gate.rng.choice((None, 1))).encode()


def _truncated(gate: Gateway, one: Captured) -> bytes:
    return one.body[: gate.rng.randrange(len(one.body))]


def _bit_flipped(gate: Gateway, one: Captured) -> bytes:
    return _flipped(gate.rng, one.body)


def _flipped_inside(gate: Gateway, one: Captured) -> bytes:
    sent = _opened(one)
    part = gate.rng.choice(("payload", "seal"))
    data = codec.from_base64(getattr(sent, part))
    return _packed(_with(sent, **{part: codec.to_base64(_flipped(gate.rng, data))}))


def _another_type(gate: Gateway, one: Captured) -> bytes:
    kinds = [gate.another().payloadtype, "getserverinfomsg", "versionmsg", "removecolonymsg"]
    return _packed(_with(_opened(one), payloadtype=gate.rng.choice(kinds)))


def _another_payload(gate: Gateway, one: Captured) -> bytes:
    other = gate.another()
    return _packed(_with(_opened(one), payload=other.payload, payloadtype=other.payloadtype))


def _another_seal(gate: Gateway, one: Captured) -> bytes:
    return _packed(_with(_opened(one), seal=gate.another().seal))


def _another_signature(gate: Gateway, one: Captured) -> bytes:
    return _packed(_with(_opened(one), signature=gate.another().signature))


def _another_colony(gate: Gateway, one: Captured) -> bytes:
    sent = _opened(one)
    text = codec.from_base64(sent.payload).replace(f'"{COLONY}"'.encode(), b'"other"')
    return _packed(_with(sent, payload=codec.to_base64(text)))


def _without_seal(gate: Gateway, one: Captured) -> bytes:
    return _packed(_with(_opened(one), seal=""))


def _indexed(gate: Gateway, one: Captured) -> bytes:
    return _packed(_with(_opened(one), index=gate.rng.choice((1, 2, 7, 2**32, -1))))


def _another_spelling_of_the_signature(gate: Gateway, one: Captured) -> bytes:
    sent = _opened(one)
    text = sent.signature
    high = (ORDER - int(text[64:128], 16)).to_bytes(32, "big").hex()
    other_v = "00" if text.endswith("01") else "01"
    ways = [
        text.upper(),
        text[:128] + f"{int(text[128:], 16) + 27:02x}",
        text[:64] + high + other_v,
        text[:128] + other_v,
        text + "00",
        "0x" + text,
    ]
    return _packed(_with(sent, signature=gate.rng.choice(ways)))


def _fresher(gate: Gateway, one: Captured) -> bytes:
    """A longer life, the newest token, another id, another audience."""
    sent = _opened(one)
    seal = _json(sent.seal)
    site = gate.rng.choice(gate.sites)
    changes: list[dict[str, Any]] = [
        {"ttl": 604_800},
        {"epoch": site.made.rooms.epochs.token},
        {"epoch": ""},
        {"id": f"{gate.rng.getrandbits(128):032x}"},
        {"to": site.keys.id},
        {"seq": gate.rng.getrandbits(32)},
        {"v": 2},
    ]
    change = gate.rng.choice(changes)
    return _packed(_with(sent, seal=_text({**seal, **change})))


def _stolen(gate: Gateway, one: Captured) -> bytes:
    return _packed(gate.stolen(_opened(one)))


ATTACKS: dict[str, Callable[[Gateway, Captured], bytes]] = {
    "replayed": _again,
    "respelled": _respelled,
    "truncated": _truncated,
    "bit-flipped": _bit_flipped,
    "bit-flipped inside": _flipped_inside,
    "as another message": _another_type,
    "with another payload": _another_payload,
    "with another seal": _another_seal,
    "with another signature": _another_signature,
    "for another colony": _another_colony,
    "without its seal": _without_seal,
    "with an index": _indexed,
    "with another spelling of its signature": _another_spelling_of_the_signature,
    "made fresher": _fresher,
    "signed by another": _stolen,
}


class Way:
    """A client's transport through the gateway."""

    way = "gateway"

    def __init__(self, gateway: Gateway, site: Site, caller: Identity) -> None:
        self._gateway = gateway
        self._site = site
        self._caller = caller

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        return await self._gateway.carry(body, self._site, self._caller)

    async def close(self) -> None:
        """Nothing is held."""


def device(gateway: Gateway, site: Site, name: str, clock: Callable[[], float]) -> Client:
    """A client that has pinned the server and has nothing but this clock."""
    identity = key(name)
    rng = gateway.rng
    retry = Retry(backoff=Backoff(uniform=rng.uniform, base_s=0.01, cap_s=0.05), attempts=40)
    pin = Pin(site.keys.id)
    made = Client(Way(gateway, site, identity), identity, retry=retry, pin=pin)
    caller: Caller = made
    caller.sealer = Sealer(pin, identity, clock, rng.randbytes)
    return made


def clocks() -> list[Callable[[], float]]:
    """Of devices: at 1970, ten years ahead, and drifting this way and that."""
    now = asyncio.get_running_loop().time
    return [
        now,
        lambda: now() + TEN_YEARS_S,
        lambda: now() * 1.1,
        lambda: now() * 0.9 + TEN_YEARS_S,
    ]
