"""What is to be run, and where it may run: COLONIES-RPC section 3.4."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from colonist_protocol import codec, units
from colonist_protocol.errors import InvalidValueError, WrongTypeError
from colonist_protocol.message import EMPTY_LIST, EMPTY_OBJECT, Int, carried
from colonist_protocol.names import check_text, is_text

PRIORITY_LIMIT: Final = 50_000
MAX_EXECUTOR_NAMES: Final = 32
MAX_ENV: Final = 100
RENEWALS_LIMIT: Final = 1_000_000
ACCEPT: Final = "accept"
REJECT: Final = "reject"
"""What becomes of a late success (`lateresult`)."""
ALLOW: Final = "allow"
NEVER: Final = "never"
"""Whether two attempts may run at once (`overlap`)."""

_NO_FILESYSTEM: Final = msgspec.Raw(b'{"mount":"","snapshots":null,"dirs":null}')
_FILESYSTEM: Final = codec.members(bytes(_NO_FILESYSTEM))
_NULL: Final = msgspec.Raw(b"null")
# As the SDKs write it: nothing to fill in.
_LIST: Final = rb"(?:null|\[[^]]*\])"
_WHOLE: Final = re.compile(
    rb'\{"mount": ?"[^"]*", ?"snapshots": ?%b, ?"dirs": ?%b\}' % (_LIST, _LIST)
)


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """Kept and returned; never matched."""

    name: str = ""
    mem: str = ""
    count: Int = 0
    nodecount: Int = 0


class Conditions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Which executor may run a process (section 4.2)."""

    colonyname: str = ""
    executornames: list[str] | None = None
    executortype: str = ""
    locationname: str | msgspec.UnsetType = msgspec.UNSET
    dependencies: list[str] = []
    nodes: Int = 0
    cpu: str = ""
    processes: Int = 0
    processespernode: Int = 0
    mem: str = ""
    storage: str = ""
    gpu: Gpu = Gpu()
    walltime: Int = 0


class FunctionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A function call and its limits. `args`, `kwargs` and `fs` are kept as they were written.

    Ours: `lateresult`, whether a success counts that comes when the process was given to another;
    `overlap`, whether two may run it at once; `maxrenewals`, how often one may prolong its lease.
    """

    nodename: str = ""
    funcname: str = ""
    args: msgspec.Raw = EMPTY_LIST
    kwargs: msgspec.Raw = EMPTY_OBJECT
    priority: Int = 0
    maxwaittime: Int = 0
    maxexectime: Int = 0
    maxretries: Int = 0
    conditions: Conditions = Conditions()
    label: str = ""
    fs: msgspec.Raw = _NO_FILESYSTEM
    env: dict[str, str] = {}
    channels: list[str] | msgspec.UnsetType = msgspec.UNSET
    lateresult: str | msgspec.UnsetType = msgspec.UNSET
    overlap: str | msgspec.UnsetType = msgspec.UNSET
    maxrenewals: Int | msgspec.UnsetType = msgspec.UNSET

    def arguments(self) -> list[Any]:
        """The positional arguments."""
        return codec.scan(bytes(self.args)) or []

    def keywords(self) -> dict[str, Any]:
        """The keyword arguments."""
        return codec.scan(bytes(self.kwargs)) or {}


def normal_form(spec: FunctionSpec) -> FunctionSpec:
    """The spec as every reply shows it: checked, nulls filled in, amounts in their normal form.

    Raises `InvalidValueError`, `WrongTypeError`.
    """
    if not -PRIORITY_LIMIT <= spec.priority <= PRIORITY_LIMIT:
        raise InvalidValueError(
            "Failed to submit function spec, "
            f"priority outside range [-{PRIORITY_LIMIT}, {PRIORITY_LIMIT}]"
        )
    _check_texts(spec)
    _check_attempts(spec)
    return msgspec.structs.replace(
        spec,
        args=carried(spec.args, b"[", "args"),
        kwargs=carried(spec.kwargs, b"{", "kwargs"),
        fs=_filesystem(spec.fs),
        channels=spec.channels or msgspec.UNSET,
        conditions=_normal_conditions(spec.conditions),
    )


def _normal_conditions(conditions: Conditions) -> Conditions:
    names = conditions.executornames
    if names and len(names) > MAX_EXECUTOR_NAMES:
        raise InvalidValueError(f"more than {MAX_EXECUTOR_NAMES} executornames")
    gpu = conditions.gpu
    return msgspec.structs.replace(
        conditions,
        executornames=names or None,
        locationname=conditions.locationname or msgspec.UNSET,
        cpu=units.cpu_text(units.parse_cpu(conditions.cpu)),
        mem=units.memory_text(units.parse_memory(conditions.mem)),
        storage=units.memory_text(units.parse_memory(conditions.storage)),
        gpu=msgspec.structs.replace(gpu, mem=units.memory_text(units.parse_memory(gpu.mem)))
        if gpu.mem
        else gpu,
    )


def _check_texts(spec: FunctionSpec) -> None:
    if len(spec.env) > MAX_ENV:
        raise InvalidValueError(f"more than {MAX_ENV} env entries")
    conditions = spec.conditions
    texts = [spec.nodename, spec.funcname, spec.label, conditions.executortype]
    if conditions.locationname:
        texts.append(conditions.locationname)
    if conditions.executornames:
        texts += conditions.executornames
    if not is_text("".join(texts)):  # together they are short and clean nearly always: one look
        for text in texts:
            check_text(text, "one of nodename, funcname, label, executortype, locationname, names")


def _check_attempts(spec: FunctionSpec) -> None:
    """What a spec says of its attempts; nearly none does."""
    if spec.lateresult is not msgspec.UNSET and spec.lateresult not in (ACCEPT, REJECT):
        raise InvalidValueError(f'lateresult is not "{ACCEPT}" or "{REJECT}"')
    if spec.overlap is not msgspec.UNSET:
        if spec.overlap not in (ALLOW, NEVER):
            raise InvalidValueError(f'overlap is not "{ALLOW}" or "{NEVER}"')
        if spec.overlap == NEVER and spec.maxexectime <= 0:
            raise InvalidValueError(
                f'overlap "{NEVER}" needs a maxexectime: without a lease nobody knows when to stop'
            )
    if spec.maxrenewals is not msgspec.UNSET and not 0 <= spec.maxrenewals <= RENEWALS_LIMIT:
        raise InvalidValueError(f"maxrenewals is not 0 to {RENEWALS_LIMIT}")


def _filesystem(value: msgspec.Raw) -> msgspec.Raw:
    """As it was sent, with the three members that pycolonies wants (section 3.17)."""
    if value is _NO_FILESYSTEM:
        return value
    whole = carried(value, b"{", "fs")
    if _WHOLE.fullmatch(bytes(whole)):
        return whole
    found = codec.members(bytes(whole))
    if found.get("mount") == _NULL:
        del found["mount"]
    merged = _FILESYSTEM | found
    if not bytes(merged["mount"]).startswith(b'"'):
        raise WrongTypeError("fs.mount is not a string")
    for name in ("snapshots", "dirs"):
        if not bytes(merged[name]).startswith((b"[", b"n")):
            raise WrongTypeError(f"fs.{name} is not an array")
    return whole if len(merged) == len(found) else msgspec.Raw(codec.encode(merged))
