"""Processes as they are shown on the wire (COLONIES-RPC section 3.5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, cast

import msgspec

from colonist_core.process import Closed, Live, deadline
from colonist_protocol import codec
from colonist_protocol.attribute import Attribute
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import FINAL, CloseFailed, CloseSuccessful, Process, State
from colonist_protocol.times import to_text
from colonist_server.repo.births import Submitted
from colonist_server.repo.records import AttributeRecord

NO_OUTPUT: Final = b"[]"


class Kin(NamedTuple):
    """What a process has of its workflow; that of a process without one is all empty.

    `deadline_ns`, None for what is no member, is until when it waits; `state` and `reason` are set
    where the record of the member's end is still to be written.
    """

    graph: str = ""
    parents: Sequence[str] = ()
    children: Sequence[str] = ()
    waits: bool = False
    inputs: bytes = NO_OUTPUT
    deadline_ns: int | None = None
    state: State | None = None
    reason: str = ""
    ended_ns: int = 0

    def of_record(self) -> Kin:
        """The same without an end that is still to be written."""
        return self if self.state is None else self._replace(state=None, reason="", ended_ns=0)


ALONE: Final = Kin()


def process(
    id: str,
    colony: str,
    birth: Submitted,
    live: Live,
    *,
    out: bytes = NO_OUTPUT,
    errors: Iterable[str] = (),
    attributes: Iterable[tuple[str, AttributeRecord]] = (),
    kin: Kin = ALONE,
) -> Process:
    """A process; `attributes` are those set while it ran, with their ids."""
    if kin.state is not None:
        live = msgspec.structs.replace(live, state=kin.state, changed_ns=kin.ended_ns)
    is_final = live.state in FINAL
    return Process(
        processid=id,
        initiatorid=birth.initiator_id,
        initiatorname=birth.initiator,
        assignedexecutorid=live.executor,
        isassigned=bool(live.executor),
        state=live.state,
        prioritytime=live.priority_ns,
        submissiontime=to_text(live.submitted_ns),
        starttime=to_text(live.started_ns),
        endtime=to_text(live.changed_ns if is_final else 0),
        waitdeadline=to_text(_wait_deadline(live, kin)),
        execdeadline=to_text(live.lease_end_ns if live.started_ns else 0),
        retries=live.retries,
        attributes=_attributes(id, colony, live.state, birth, attributes),
        # An encoder splices Raw in where the model has the spec.
        spec=cast("FunctionSpec", msgspec.Raw(birth.spec)),
        waitforparents=kin.waits,
        parents=list(kin.parents),
        children=list(kin.children),
        processgraphid=kin.graph,
        inputs=msgspec.Raw(kin.inputs),
        out=msgspec.Raw(out),
        errors=[*errors, kin.reason] if kin.reason else list(errors),
    )


def result(closed: Closed) -> bytes:
    """The output in the request that closed a process; `NO_OUTPUT` when there is none."""
    if closed.live.state != State.SUCCESS or not closed.payload:
        return NO_OUTPUT
    return output_text(codec.decode(closed.payload, CloseSuccessful, "stored close").out)


def reasons(closed: Closed) -> Sequence[str]:
    """Why a process failed, in its executor's words or in ours."""
    if closed.live.state != State.FAILED or not closed.payload:
        return closed.errors
    return codec.decode(closed.payload, CloseFailed, "stored close").errors


def output_text(out: msgspec.Raw) -> bytes:
    """The text of an output; a `null` counts as none."""
    text = bytes(out).strip()
    return NO_OUTPUT if text == b"null" else text


def is_empty(out: bytes) -> bool:
    """Whether an output says nothing, so that an earlier one stays."""
    return out[1:-1].strip() == b""


def attribute(id: str, target: str, colony: str, state: int, record: AttributeRecord) -> Attribute:
    """An attribute on the wire."""
    return Attribute(
        attributeid=id,
        targetid=target,
        targetcolonyname=colony,
        state=state,
        attributetype=record.kind,
        key=record.key,
        value=record.value,
    )


def _wait_deadline(live: Live, kin: Kin) -> int:
    if kin.deadline_ns is not None:
        return kin.deadline_ns if live.state == State.WAITING else 0
    if live.state == State.WAITING:
        return live.deadline_ns
    return deadline(live.submitted_ns, live.max_wait_s)


def _attributes(
    id: str,
    colony: str,
    state: int,
    birth: Submitted,
    others: Iterable[tuple[str, AttributeRecord]],
) -> list[Attribute]:
    """What was set while it ran stands in the place of an entry of `env` with the same id."""
    records = dict(birth.env)
    records.update(others)
    return [attribute(each, id, colony, state, record) for each, record in records.items()]
