"""Holds every answer that a server in this process gives against the table of procedures."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import msgspec
import pytest

from colonist_protocol import codec, envelope, errors, messages
from colonist_protocol.envelope import Failure
from colonist_server.rpc import contract
from colonist_server.rpc.dispatch import Answer, Dispatch, Refusal
from colonist_server.rpc.table import ROUTES

ANY = {error.code for error in (*contract.UNREADABLE, *contract.UNSIGNED, *contract.ANYWHERE)}
UNSERVED = {errors.NotSupportedError.code, errors.UnknownMessageError.code}


class Watchman:
    """Looks at what `Dispatch` answers, and notes what the table does not list."""

    def __init__(self) -> None:
        self.unlisted: list[str] = []
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        answer, subscribe = Dispatch.answer, Dispatch.subscribe

        async def watched_answer(dispatch: Dispatch, body: bytes) -> Answer:
            given = await answer(dispatch, body)
            self.look(body, given.body)
            return given

        async def watched_subscribe(dispatch: Dispatch, body: bytes, *rest: Any) -> Any:
            given = await subscribe(dispatch, body, *rest)
            if isinstance(given, Refusal):
                self.look(body, given.body)
            return given

        self._patch.setattr(Dispatch, "answer", watched_answer)
        self._patch.setattr(Dispatch, "subscribe", watched_subscribe)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patch.undo()

    def look(self, body: bytes, answer: bytes) -> None:
        """Note an answer that should not have been given."""
        try:
            kind = envelope.parse_request(body).payloadtype
        except errors.ColonistError:
            kind = ""
        reply = envelope.parse_reply(answer)
        if isinstance(reply, Failure):
            if reply.code not in codes_of(kind):
                self.unlisted.append(f"{kind} was refused with {reply.code}: {reply.message}")
        elif kind not in ROUTES:
            self.unlisted.append(f"{kind} was answered")
        elif not is_of_type(reply, ROUTES[kind].reply):
            self.unlisted.append(f"{kind} was answered with {reply[:300]!r}")


def codes_of(kind: str) -> set[str]:
    """All codes that a type of message may be refused with."""
    if kind not in ROUTES:
        return ANY | UNSERVED
    return ANY | {error.code for error in ROUTES[kind].errors}


def is_of_type(reply: bytes, kind: Any) -> bool:
    """Whether a reply's JSON is a value of a type, and holds no more than that."""
    if kind is None:
        return reply == b"{}"
    try:
        value = msgspec.json.decode(reply, type=kind)
    except msgspec.ValidationError:
        return False
    return codec.scan(codec.encode(value)) == codec.scan(reply)


def core() -> set[str]:
    """The types of message that are CORE of Colonies, all of which have to be served."""
    known = {*messages.TYPED, *messages.UNSUPPORTED}
    return {kind for kind in known if messages.level(kind) == "CORE"}
