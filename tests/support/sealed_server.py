"""A server in memory that takes sealed requests only, and keeps their law; and a hostile network.

It counts how often each submit took effect: the truth that a client's word is compared with.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol import codec, digests, envelope
from colonist_protocol.envelope import Envelope
from colonist_protocol.errors import (
    AccessError,
    ColonistError,
    EpochStaleError,
    TooOldError,
    WrongServerError,
)
from colonist_protocol.identity import Identity
from colonist_protocol.process import GetProcess, SubmitFunctionSpec
from colonist_protocol.seal import EpochSeal, ReplySeal, read_request_seal
from colonist_protocol.tokens import ServerKeys, last_minute, read_epoch

LIFE_MINUTES = 7 * 24 * 60


class SealedServer:
    """One minute at a time. Submits are told apart by their `funcname`; reads show the counts."""

    def __init__(self, key: Identity, known: str) -> None:
        self.keys = ServerKeys(key)
        self.known = known
        self.n = 1_000
        self.era = 1
        self.effects: Counter[str] = Counter()
        self.refuses: ColonistError | None = None
        self._records: dict[str, tuple[int, bytes]] = {}

    @property
    def token(self) -> str:
        return self.keys.current.epoch_token(self.n, f"{self.era:08x}")

    def rotate(self, new: Identity, former: Identity) -> None:
        """The server has a new key; it keeps the old one."""
        self.keys = ServerKeys(new, (former,))

    def restore(self) -> None:
        """As after a restore of the newest backup: another era."""
        self.era += 1

    def answer(self, body: bytes) -> bytes:
        """The reply to one request."""
        try:
            request = envelope.parse_request(body)
            seal, text = read_request_seal(request.seal, request.payloadtype)
            if seal.to not in self.keys.ids:
                raise WrongServerError("another server")
            signed = envelope.authenticate(request, text)
            if signed.caller != self.known:
                raise AccessError("Access denied")
        except ColonistError as error:
            return envelope.pack_failure(error)
        re = digests.tagged_digest(digests.REQUEST, request.payload, request.seal).hex()
        assert isinstance(seal, EpochSeal)
        try:
            payload, ok = self._perform(request, seal, re), True
        except ColonistError as error:
            payload, ok = envelope.failure_json(error), False
        return self.seal(request.payloadtype, payload, to=signed.caller, re=re, ok=ok)

    def seal(
        self, kind: str, payload: bytes, *, to: str, re: str, ok: bool, index: int = 0
    ) -> bytes:
        """A reply under this server's key."""
        given = ReplySeal(1, to, re, index, ok, self.token, 0)
        unsigned = envelope.sealed_reply(kind, payload, given)
        return unsigned.signed(self.keys.current.identity, self.keys.via)

    def _perform(self, request: Envelope, seal: EpochSeal, re: str) -> bytes:
        if self.refuses is not None:
            raise self.refuses
        if request.payloadtype == GetProcess.msgtype():
            self._check(seal)
            asked = envelope.open_message(request, GetProcess)
            return codec.encode({"count": self.effects[asked.processid]})
        record = self._records.get(re)
        if record is not None and record[0] >= self.n:
            return record[1]
        self._check(seal)
        spec = envelope.open_message(request, SubmitFunctionSpec).spec
        self.effects[spec.funcname] += 1
        reply = codec.encode({"count": self.effects[spec.funcname]})
        token = read_epoch(seal.epoch)
        assert token is not None
        self._records[re] = (last_minute(token, seal.ttl) + LIFE_MINUTES, reply)
        return reply

    def _check(self, seal: EpochSeal) -> None:
        token = read_epoch(seal.epoch)
        if token is None or not self.keys.made_epoch(token):
            raise EpochStaleError("not of now")
        if self.n > last_minute(token, seal.ttl) + LIFE_MINUTES:
            raise TooOldError("nobody remembers")
        is_own = token.era == f"{self.era:08x}"
        if not is_own or not token.n <= self.n <= last_minute(token, seal.ttl):
            raise EpochStaleError("not of now")


class HostileNetwork:
    """A transport with a middle-box on it that sees, keeps, changes and invents.

    `plan` holds what it does with the next exchanges, in order; after that it is honest.
    """

    way = "hostile"

    def __init__(self, server: SealedServer, evil: Identity) -> None:
        self.server = server
        self.plan: list[str] = []
        self.sent: list[bytes] = []
        self.replies: list[bytes] = []
        self._evil = evil
        self._tricks: dict[str, Callable[[bytes], bytes]] = {
            "honest": self._honest,
            "lose_reply": self._lose_reply,
            "twice": lambda body: (self._honest(body), self._honest(body))[1],
            "replay_reply": lambda _: (self.replies or [b"{}"])[0],
            "newest_reply": lambda _: (self.replies or [b"{}"])[-1],
            "forge": self._forge,
            "plain_refusal": lambda _: envelope.pack_failure(AccessError("not you")),
            "plain_success": lambda _: envelope.pack_reply("submitfuncspecmsg", b'{"count":99}'),
            "strip_seal": self._strip,
            "flip": self._flip,
            "other_index": self._other_index,
            "another_request": self._another_request,
            "stale_unsigned": lambda _: envelope.pack_failure(EpochStaleError("seal anew")),
            "garbage": lambda _: b"<html>",
            "old_requests_too": self._old_requests_too,
        }

    @property
    def tricks(self) -> list[str]:
        """What `plan` may hold, besides `lose_request` and `not_sent`."""
        return [*self._tricks, "lose_request", "not_sent"]

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        """One exchange, as planned."""
        del wait_s
        await asyncio.sleep(0)
        trick = self.plan.pop(0) if self.plan else "honest"
        if trick == "not_sent":
            raise NotSentError("no connection")
        self.sent.append(body)
        if trick == "lose_request":
            raise UnreachableError("no reply")
        return self._tricks[trick](body)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _honest(self, body: bytes) -> bytes:
        reply = self.server.answer(body)
        self.replies.append(reply)
        return reply

    def _lose_reply(self, body: bytes) -> bytes:
        self._honest(body)
        raise UnreachableError("the reply was lost")

    def _forge(self, body: bytes) -> bytes:
        honest = SealedServer(self._evil, self.server.known)
        return honest.seal(
            "submitfuncspecmsg", b'{"count":99}', to=honest.known, re=_re(body), ok=True
        )

    def _strip(self, body: bytes) -> bytes:
        tree = codec.scan(self._honest(body))
        return codec.encode({k: tree[k] for k in ("payloadtype", "payload", "error")})

    def _flip(self, body: bytes) -> bytes:
        tree: dict[str, Any] = dict(codec.scan(self._honest(body)))
        tree["payload"] = codec.to_base64(b'{"count":99}')
        return codec.encode(tree)

    def _other_index(self, body: bytes) -> bytes:
        self._honest(body)
        known = self.server.known
        payload = b'{"count":99}'
        return self.server.seal("x", payload, to=known, re=_re(body), ok=True, index=1)

    def _another_request(self, body: bytes) -> bytes:
        self._honest(body)
        known = self.server.known
        return self.server.seal("x", b'{"count":99}', to=known, re="ab" * 32, ok=True)

    def _old_requests_too(self, body: bytes) -> bytes:
        for old in self.sent[:-1]:
            self.server.answer(old)
        return self._honest(body)


def _re(body: bytes) -> str:
    sent = envelope.parse_request(body)
    return digests.tagged_digest(digests.REQUEST, sent.payload, sent.seal).hex()
