#!/usr/bin/env python3
"""Write docs/reference/rpc.md out of the table of remote procedures and the types of messages.

    .venv/bin/python scripts/make_rpc_reference.py

A test says that the page is fresh.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from colonist_core.access import Access
from colonist_protocol import messages
from colonist_protocol.message import Message
from colonist_server.rpc.contract import ANYWHERE, UNREADABLE, UNSIGNED, Errors
from colonist_server.rpc.table import API, ROUTES, Route

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "rpc.md"

HEAD = """\
<!-- Made by scripts/make_rpc_reference.py out of colonist_server/rpc/table.py and the messages. -->

# Remote procedures

Each is a signed message to `POST /api`. What is served on the WebSocket `GET /pubsub` says so.
How it travels is in [wire.md](wire.md), what refusals mean in [errors.md](errors.md).
A member that is missing or `null` has its default; one without a default is required.
Whoever may not call is answered 403 `access_denied`, for a colony that is not there as well.
CORE and EXT are the levels of Colonies; *ours* is what Colonies does not know.

| who | means |
|---|---|
"""

WHO: Final = {
    Access.ANYONE: "no signature is needed",
    Access.SERVER_OWNER: "the id that the server was started with, or that it was changed to",
    Access.COLONY_OWNER: (
        "the id that the colony was founded with, or changed to; not a member by that"
    ),
    Access.MEMBER: "an approved executor, or a user, of the colony",
    Access.NEWCOMER: "a member, or an executor that waits for approval",
    Access.EXECUTOR: "an approved executor of the colony; of a process: its assignee",
    Access.USER: "a user of the colony",
    Access.CLAIM: (
        "the key that a good proof of a claim of the colony names; sealed requests only"
    ),
    Access.OBJECT: "who may see the object; for others it is not there (404 `not_found`)",
}

LABEL: Final = {access: access.value for access in Access} | {
    Access.NEWCOMER: "member or newcomer",
    Access.MEMBER: "member",
    Access.EXECUTOR: "executor",
    Access.OBJECT: "whoever may see it",
}
CARRIED: Final = "any JSON"


def page() -> str:
    """The text of the page."""
    return "".join(
        [HEAD, *_who(), *_everywhere(), *_index(), *_details(), *_types(), *_unsupported()]
    )


def _who() -> list[str]:
    return [f"| {LABEL[access]} | {WHO[access]} |\n" for access in Access]


def _everywhere() -> list[str]:
    return [
        "\nBesides its own errors, any message may meet these:\n\n",
        f"- that cannot be read: {_codes(UNREADABLE)}\n",
        f"- whose signature proves nothing, where one is needed: {_codes(UNSIGNED)}\n",
        f"- whatever it asks for: {_codes(ANYWHERE)}\n",
    ]


def _codes(errors: Errors) -> str:
    return ", ".join(f"`{error.code}`" for error in errors)


def _index() -> list[str]:
    head = "\n## All\n\n| message | level | who | reply | what |\n|---|---|---|---|---|\n"
    rows = [
        f"| [`{kind}`](#{kind}) | {messages.level(kind)} | {LABEL[route.access]} "
        f"| {_reply(route)} | {_summary(route)} |\n"
        for kind, route in ROUTES.items()
    ]
    return [head, *rows]


def _reply(route: Route[Any]) -> str:
    """What the JSON of the reply is."""
    if route.reply is None:
        return "`{}`"
    shown = _type(inspect.type_info(route.reply))
    return shown if route.door == API else f"{shown}, one frame for each change"


def _summary(route: Route[Any]) -> str:
    """Without what concerns our own code only."""
    return re.sub(r" Raises .*", "", route.summary)


def _details() -> list[str]:
    return [line for kind, route in ROUTES.items() for line in _detail(kind, route)]


def _detail(kind: str, route: Route[Any]) -> list[str]:
    fields = _fields(route.kind)
    door = "" if route.door == API else f" Served on the WebSocket `GET {route.door}`."
    head = (
        f"\n## {kind}\n\n{_summary(route)} Who: {LABEL[route.access]}.{door}\n\n"
        f"Level: {messages.level(kind)}. Reply: {_reply(route)}. "
        f"Errors of its own: {_codes(route.errors) or 'none'}.\n"
    )
    if not fields:
        return [head, "\nNo members.\n"]
    return [head, "\n| member | type | default |\n|---|---|---|\n", *map(_row, fields)]


def _types() -> list[str]:
    """The objects that messages hold."""
    lines = ["\n# Objects\n"]
    for kind in _nested():
        lines.append(f"\n## {_name(kind)}\n\n{(kind.__doc__ or '').strip().splitlines()[0]}\n")
        lines.append("\n| member | type | default |\n|---|---|---|\n")
        lines.extend(map(_row, _fields(kind)))
    return lines


def _unsupported() -> list[str]:
    head = (
        "\n# Not served yet\n\nThese are known, and answered 501 `not_supported` to anyone "
        "whose signature is good.\n\n| message | level |\n|---|---|\n"
    )
    names = sorted(messages.UNSUPPORTED)
    return [head, *(f"| `{name}` | {messages.level(name)} |\n" for name in names)]


@cache
def _nested() -> list[type[msgspec.Struct]]:
    """All structs inside of messages and replies, in the order in which they are met."""
    replies = [each for route in ROUTES.values() for each in _replied(route)]
    found: dict[type[msgspec.Struct], None] = {}
    waiting: list[type[msgspec.Struct]] = [route.kind for route in ROUTES.values()]
    while waiting:
        kind = waiting.pop(0)
        inner = [each for field in _fields(kind) for each in _structs(field.type)]
        waiting.extend(each for each in inner if each not in found)
        found.update(dict.fromkeys(inner))
        if not waiting:
            waiting = [each for each in replies if each not in found]
            found.update(dict.fromkeys(waiting))
    return list(found)


def _name(kind: type[msgspec.Struct]) -> str:
    """The heading of a message or an object; with its module where another has the same name."""
    if issubclass(kind, Message):
        return kind.msgtype()
    same = [each for each in _nested() if each.__name__ == kind.__name__]
    return kind.__name__ if len(same) == 1 else f"{kind.__module__.split('.')[-1]}.{kind.__name__}"


def _replied(route: Route[Any]) -> list[type[msgspec.Struct]]:
    """The structs of a reply, but for messages: those have a part of their own."""
    found = [] if route.reply is None else _structs(inspect.type_info(route.reply))
    return [each for each in found if not issubclass(each, Message)]


def _structs(kind: inspect.Type) -> list[type[msgspec.Struct]]:
    match kind:
        case inspect.StructType(cls=cls):
            return [cls]
        case inspect.UnionType(types=types):
            return [each for inner in types for each in _structs(inner)]
        case inspect.ListType(item_type=inner) | inspect.DictType(value_type=inner):
            return _structs(inner)
        case _:
            return []


def _fields(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    found = inspect.type_info(kind)
    return found.fields if isinstance(found, inspect.StructType) else ()


def _row(field: inspect.Field) -> str:
    return f"| `{field.encode_name}` | {_type(field.type)} | {_default(field)} |\n"


def _default(field: inspect.Field) -> str:
    value: Any = field.default
    if value is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return "required"
    if value is msgspec.UNSET:
        return "left out"
    if isinstance(value, msgspec.Struct):
        return "all defaults"
    text = bytes(value).decode() if isinstance(value, msgspec.Raw) else json.dumps(value)
    return f"`{text}`"


def _type(kind: inspect.Type) -> str:
    match kind:
        case inspect.StructType(cls=cls):
            name = _name(cls)
            return f"[{name}](#{name.lower().replace('.', '')})"
        case inspect.UnionType(types=types):
            return " or ".join(_type(each) for each in types if _is_shown(each))
        case inspect.ListType(item_type=inner):
            return f"list of {_type(inner)}"
        case inspect.DictType(value_type=inner):
            return f"object of {_type(inner)}"
        case inspect.RawType():
            return CARRIED
        case _:
            return {"StrType": "text", "IntType": "integer", "BoolType": "flag"}.get(
                type(kind).__name__, "number"
            )


def _is_shown(kind: inspect.Type) -> bool:
    return not isinstance(kind, (inspect.NoneType, inspect.CustomType)) and (
        type(kind).__name__ != "UnsetType"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
