"""Workflows and generators in files of JSON: read, checked, and completed from the settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from colonist_cli.arguments import read_bytes
from colonist_cli.exits import CliError, Exit
from colonist_protocol import codec
from colonist_protocol.errors import ColonistError
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.workflow import WorkflowSpec

MAX_BYTES: Final = 9 * 1024 * 1024
"""As much as a server takes in one request."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the settings say where the file does not; `flag` is the colony of the command line."""

    colony: str
    type: str
    flag: str = ""


class GeneratorFile(msgspec.Struct, frozen=True, kw_only=True):
    """A generator in a file; `workflowspec` may be a workflow, or a text that holds its JSON."""

    name: str = ""
    colonyname: str = ""
    trigger: int = 0
    timeout: int = 0
    workflowspec: msgspec.Raw = msgspec.Raw(b"")


def colony_in(path: str, data: bytes) -> str:
    """The colony that a workflow names, or "". Raises `CliError`."""
    return _spec(path, data).colonyname


def workflow(path: str, data: bytes, around: Around) -> WorkflowSpec:
    """A workflow spec, or a list of function specs. Raises `CliError` with one line."""
    spec = _spec(path, data)
    if around.flag and spec.colonyname not in ("", around.flag):
        raise CliError(Exit.USAGE, f"{path} is for the colony {spec.colonyname!r}, not --colony")
    colony = spec.colonyname or around.colony
    if not spec.functionspecs:
        raise CliError(Exit.USAGE, f"{path}: a workflow without function specs")
    nodes = [_completed(path, each, colony, around.type) for each in spec.functionspecs]
    return WorkflowSpec(colonyname=colony, functionspecs=nodes)


def generator(path: str, data: bytes) -> GeneratorFile:
    """A generator, with its workflow still as JSON. Raises `CliError`."""
    found = _decoded(path, data, GeneratorFile)
    _refuse_unknown(path, data, GeneratorFile)
    text = bytes(found.workflowspec)
    if not text.startswith(b'"'):
        return found
    inner = _decoded(path, text, str).encode()
    return msgspec.structs.replace(found, workflowspec=msgspec.Raw(inner))


def read(path: str) -> bytes:
    """A file, `-`: stdin. Raises `CliError`."""
    return read_bytes(path, MAX_BYTES)


def _spec(path: str, data: bytes) -> WorkflowSpec:
    if data.lstrip()[:1] == b"[":
        specs = _decoded(path, data, list[FunctionSpec])
        parts: Iterable[bytes] = map(bytes, _decoded(path, data, list[msgspec.Raw]))
        spec = WorkflowSpec(functionspecs=specs)
    else:
        spec = _decoded(path, data, WorkflowSpec)
        _refuse_unknown(path, data, WorkflowSpec)
        listed = codec.members(data).get("functionspecs", msgspec.Raw(b"[]"))
        parts = map(bytes, _decoded(path, bytes(listed), list[msgspec.Raw]))
    for part in parts:
        _refuse_unknown(path, part, FunctionSpec)
    return spec


def _decoded(path: str, data: bytes, kind: type[T]) -> T:
    try:
        codec.scan(data)
        return codec.decode(data, kind, path)
    except ColonistError as error:
        raise CliError(Exit.USAGE, f"{path}: {error}") from None


def _refuse_unknown(path: str, data: bytes, kind: Any) -> None:
    """A misspelt member would be dropped without a word."""
    known = {item.encode_name for item in msgspec.structs.fields(kind)}
    if unknown := codec.members(data).keys() - known:
        raise CliError(Exit.USAGE, f"{path}: there is no {', '.join(sorted(unknown))}")


def _completed(path: str, spec: FunctionSpec, colony: str, type: str) -> FunctionSpec:
    found = spec.conditions
    chosen = found.executortype or type
    if not chosen:
        name = spec.nodename or spec.funcname
        raise CliError(Exit.USAGE, f"{path}: for which type of executor is {name[:80]!r}?")
    conditions = msgspec.structs.replace(
        found, colonyname=found.colonyname or colony, executortype=chosen
    )
    return msgspec.structs.replace(spec, conditions=conditions)
