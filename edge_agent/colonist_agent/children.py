"""What a function makes and looks at while it runs: processes, workflows, parents, generators.

Reads are repeated until the server has answered, and so is a write that never left this machine or
was turned away undone. A plain write whose answer was lost is **not** repeated: it has no
protection against replay, and the second one would be a second process. It raises
`OutcomeUnknownError`, and the function decides. A sealed one is repeated, with the same bytes.

Refusals raise `ServerError`, with the server's `status` and `code`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec

from colonist_agent.watch import Watch
from colonist_client.caller import OutcomeUnknownError
from colonist_client.failure import ServerError
from colonist_client.retry import Retry, advice_s
from colonist_client.transport import NotSentError
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import Process
from colonist_protocol.workflow import ProcessGraph, WorkflowSpec

T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.1
LAST_PAUSE_S: Final = 5.0

_FOR_EVER: Final = 2**62
_GROWTH: Final = 1.5
_UNDONE: Final = frozenset({"busy", "contended", "too_slow"})
_UNDONE_STATUS: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT})
_PERHAPS_DONE: Final = "unavailable"


class Children:
    """What one attempt may do beside its own work. The process is its parent in a workflow."""

    def __init__(self, process: Process, watch: Watch) -> None:
        self._process = process
        self._watch = watch
        self._client = watch.client
        if watch.client.sealer is not None:
            self._client = watch.client.patient(Retry(backoff=watch.backoff, attempts=_FOR_EVER))

    async def submit(self, spec: FunctionSpec) -> Process:
        """Submit a process; one that names no colony goes to this one.

        Raises `OutcomeUnknownError` when the answer was lost: the process may exist or not. Let it
        fail this process, or look for it first (`label` in the spec makes it easy to find).
        """
        here = self._here(spec)
        return await self._write(lambda: self._client.submit(here))

    async def submit_workflow(self, spec: WorkflowSpec) -> ProcessGraph:
        """Submit a workflow; one that names no colony goes to this one. Raises as `submit` does."""
        if not spec.colonyname:
            spec = msgspec.structs.replace(spec, colonyname=self._colony)
        return await self._write(lambda: self._client.submit_workflow(spec))

    async def add_child(
        self, spec: FunctionSpec, *, insert: bool = False, child: Process | str = ""
    ) -> Process:
        """Add a process to the workflow that waits for this one.

        `insert`: all children that this process has now wait for the new one, and no more for
        this. `child` waits for the new one too. Raises `InvalidValueError` outside of a workflow,
        and else as `submit` does; the workflow shows whether the node is there.
        """
        own = self._process
        if not own.processgraphid:
            raise InvalidValueError(f"{own.processid}: only a member of a workflow has children")
        here, child_id = self._here(spec), _id(child)
        return await self._write(
            lambda: self._client.add_child(
                own.processgraphid, own.processid, here, child_id=child_id, insert=insert
            )
        )

    async def pack(self, generator_id: str, argument: str) -> None:
        """Give a generator an argument. Raises as `submit` does."""
        await self._write(lambda: self._client.pack_generator(generator_id, argument))

    async def wait(self, process: Process | str) -> Process:
        """The process, once it is final. Raises `ServerError`, as for one that was removed.

        The own process keeps its slot meanwhile: on an agent with one slot, a process that only
        this agent can run never ends.
        """
        loop = asyncio.get_running_loop()
        found = process if isinstance(process, Process) else await self._watch.read(process)
        pause_s = FIRST_PAUSE_S
        while not found.is_final:
            asked_s, before = loop.time(), found
            found = await self._watch.read(before.processid, while_state=before.state)
            if self._watch.was_held(asked_s) or _has_changed(before, found):
                pause_s = FIRST_PAUSE_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(LAST_PAUSE_S, pause_s * _GROWTH)
        return found

    async def parents(self) -> list[Process]:
        """The parents in the workflow, each with its output."""
        return [await self._watch.read(each) for each in self._process.parents]

    async def _write(self, call: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                return await call()
            except (NotSentError, ServerError) as error:
                _check_undone(error)
                failures += 1
                wait_s = self._watch.backoff.delay_s(failures, at_least_s=advice_s(error))
                await asyncio.sleep(wait_s)

    @property
    def _colony(self) -> str:
        return self._process.spec.conditions.colonyname

    def _here(self, spec: FunctionSpec) -> FunctionSpec:
        if spec.conditions.colonyname:
            return spec
        conditions = msgspec.structs.replace(spec.conditions, colonyname=self._colony)
        return msgspec.structs.replace(spec, conditions=conditions)


def _check_undone(error: NotSentError | ServerError) -> None:
    """Return if the write had no effect and may be repeated; else raise what became of it."""
    if isinstance(error, NotSentError):
        return
    if error.code == _PERHAPS_DONE:
        raise OutcomeUnknownError(f"the server does not know the outcome: {error}") from error
    if error.code not in _UNDONE and (error.code or error.status not in _UNDONE_STATUS):
        raise error


def _has_changed(before: Process, after: Process) -> bool:
    return (before.state, before.starttime) != (after.state, after.starttime)


def _id(process: Process | str) -> str:
    return process.processid if isinstance(process, Process) else process
