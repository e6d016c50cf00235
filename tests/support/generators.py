"""Generators in tests: made, packed, and what their workflows were given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from colonist_protocol.generator import AddGenerator, GetGenerator, PackGenerator
from colonist_protocol.generator import Generator as Wire
from colonist_protocol.identity import Identity
from colonist_server.repo import keys
from colonist_server.repo.records import decode_birth
from colonist_server.store.interface import Guard, Op, Revision, UnavailableError
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, TYPE, Bench, key, settle


def node(name: str, *parents: str, **more: Any) -> dict[str, Any]:
    """A function spec of a workflow."""
    conditions = {"colonyname": COLONY, "executortype": TYPE, "dependencies": list(parents)}
    return {"nodename": name, "funcname": name, "conditions": conditions, **more}


def workflow(*nodes: dict[str, Any], colony: str = COLONY) -> str:
    """The text of a workflow spec; of one node `a` if none is named."""
    return json.dumps({"colonyname": colony, "functionspecs": nodes or [node("a")]})


def add_of(name: str = "g", spec: str = "", **changes: Any) -> AddGenerator:
    """The message that makes a generator with a trigger of 3."""
    given: dict[str, Any] = {"colonyname": COLONY, "trigger": 3, **changes}
    return AddGenerator(generator=Wire(name=name, workflowspec=spec or workflow(), **given))


async def add(server: Bench, who: Identity | None = None, **changes: Any) -> str:
    """Make a generator; its id."""
    return (await server.call(add_of(**changes), who or key("e1")))["generatorid"]


async def pack(server: Bench, id: str, *args: str) -> None:
    """Pack arguments one after the other."""
    for arg in args:
        await server.call(PackGenerator(generatorid=id, arg=arg), key("e1"))


async def read(server: Bench, id: str) -> dict[str, Any]:
    """A generator as a member sees it."""
    return await server.call(GetGenerator(generatorid=id), key("e1"))


async def idle() -> None:
    """Until whatever fires has fired."""
    await settle(400)


def given(store: MemoryStore, name: str = "a") -> list[list[str]]:
    """The arguments of every stored process with that node name, as they were stored."""
    found: list[tuple[int, list[str]]] = []
    for item in store.under(keys.BIRTH):
        birth = decode_birth(item.value)
        spec = msgspec.json.decode(birth.payload)
        if spec.get("nodename") == name:
            found.append((item.created, spec["args"]))
    return [args for _, args in sorted(found)]


def stored(store: MemoryStore, *prefixes: bytes) -> list[bytes]:
    """The keys under some prefixes; under those of generators if none is named."""
    mine = prefixes or (
        keys.GENERATOR,
        keys.GENERATOR_NAME,
        keys.FIRINGS,
        keys.ARGUMENT,
        keys.FIRING,
    )
    return [item.key for prefix in mine for item in store.under(prefix)]


class DyingStore(MemoryStore):
    """The node dies once it has written down which arguments it takes."""

    is_dead = False

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        if self.is_dead:
            raise UnavailableError("dead")
        revision = await super().commit(guards, ops)
        self.is_dead = any(op[0].startswith(keys.FIRING) for op in ops)
        return revision
