"""Calls about processes: COLONIES-RPC section 2.6."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from colonist_client.caller import Caller, decoded
from colonist_client.failure import ServerError
from colonist_client.retry import is_transient
from colonist_client.sealer import Request
from colonist_client.transport import UnreachableError
from colonist_protocol import codec, process
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import Process, State

HELD_S: Final = 50
"""How long a server may hold a look: proxies cut what is silent for a minute."""
FIRST_POLL_S: Final = 0.2
LAST_POLL_S: Final = 5.0
GRANTS: Final = process.MAX_STANDING
"""So many are asked for by one signature."""

_GROWTH: Final = 1.5


class ProcessCalls(Caller):
    """Submit, run and look at processes."""

    async def submit(self, spec: FunctionSpec) -> Process:
        """Submit one process; a lost reply raises `OutcomeUnknownError`.

        A plain submit is never repeated.
        """
        return await self.write(process.SubmitFunctionSpec(spec=spec), Process)

    async def assign(
        self, colony: str, *, timeout_s: int = 30, cpu: str = "", memory: str = ""
    ) -> Process | None:
        """Ask for work and wait up to `timeout_s` (negative: not at all); None when there is none.

        Raises `ServerError` 408 or 503 with code `paused` while the colony is paused.
        """
        request = self.asking(colony, timeout_s=timeout_s, cpu=cpu, memory=memory)
        return await self.assigned(request)

    def asking(
        self,
        colony: str,
        *,
        timeout_s: int = 30,
        cpu: str = "",
        memory: str = "",
        ahead: int = 0,
    ) -> Request:
        """A packed assign, for `assigned`.

        With `ahead`, a client that seals makes a standing one: `advance` it after each grant. So
        many grants are made before anything sealed was said of them.
        """
        message = process.AssignProcess(
            colonyname=colony, timeout=timeout_s, availablecpu=cpu, availablemem=memory
        )
        if ahead and self.sealer is not None:
            terms = process.StandingOrder(count=GRANTS, ahead=min(ahead, process.MAX_AHEAD))
            message.standing = terms
        return self.pack(message)

    async def assigned(self, request: Request) -> Process | None:
        """What a packed assign is answered. Presented again, it is answered with the same grant."""
        message = request.message
        wait_s = message.timeout if isinstance(message, process.AssignProcess) else 0
        try:
            reply = await self.send(request, wait_s=max(0, wait_s))
        except ServerError as error:
            if is_no_process(error):
                return None
            raise
        granted = decoded(reply, Process, message)
        self.attempts.begin(granted)
        return granted

    async def get(
        self, process_id: str, *, while_state: int | None = None, timeout_s: int = 0
    ) -> Process:
        """Read one process.

        With `while_state` a Colonist server holds the answer for up to `timeout_s` while the
        process is in that state and in the same attempt; the reference server answers at once.
        """
        if while_state is None:
            return await self.read(process.GetProcess(processid=process_id), Process)
        message = process.GetProcess(processid=process_id, waitwhile=while_state, timeout=timeout_s)
        return await self.read(message, Process, wait_s=max(0, timeout_s))

    async def processes(
        self,
        colony: str,
        *,
        state: int = State.WAITING,
        count: int = process.MAX_LIST,
        executor_type: str = "",
        label: str = "",
        initiator: str = "",
        executor_id: str = "",
    ) -> list[Process]:
        """List processes in a state: the next to run first, or the newest ended first.

        `executor_id`: only those that are assigned to it.
        """
        message = process.GetProcesses(
            colonyname=colony,
            count=count,
            state=state,
            executortype=executor_type,
            label=label,
            initiator=initiator,
            executorid=executor_id or msgspec.UNSET,
        )
        return await self.read_list(message, Process)

    async def history(
        self, colony: str, *, seconds: int, state: int = State.SUCCESS, executor_id: str = ""
    ) -> list[Process]:
        """Processes in a state that were submitted within the last `seconds`."""
        message = process.GetProcessHistory(
            colonyname=colony, executorid=executor_id, seconds=seconds, state=state
        )
        return await self.read_list(message, Process)

    async def close(self, process_id: str, out: Sequence[Any] = ()) -> None:
        """Close a process as successful with its result; the assignee only."""
        await self.order(process.CloseSuccessful(processid=process_id, out=raw(out)))
        self.attempts.forget(process_id)

    async def fail(self, process_id: str, errors: Sequence[str] = ()) -> None:
        """Close a process as failed with the reasons; the assignee only."""
        await self.order(process.CloseFailed(processid=process_id, errors=list(errors)))
        self.attempts.forget(process_id)

    async def set_output(self, process_id: str, out: Sequence[Any]) -> None:
        """Replace the output of a running process; the assignee only."""
        await self.order(process.SetOutput(processid=process_id, out=raw(out)))

    async def cancel(self, process_id: str) -> None:
        """End a process that is not final."""
        await self.order(process.CancelProcess(processid=process_id))

    async def release(self, process_id: str) -> None:
        """Give a process back unfinished, to be run by somebody else; the assignee only."""
        await self.order(process.ReleaseProcess(processid=process_id))
        self.attempts.forget(process_id)

    async def renew(self, process_id: str, *, count: int = 0) -> process.Attempt:
        """Prolong a sealed attempt to `count` periods after its first; 0 asks what is left."""
        return await self.write(process.Renew(processid=process_id, count=count), process.Attempt)

    async def remove(self, process_id: str) -> None:
        """Remove a process that is not running."""
        await self.order(process.RemoveProcess(processid=process_id))

    async def remove_all(self, colony: str, *, state: int) -> None:
        """Remove all processes in a state; -1: in every state but running. Colony owner only."""
        await self.order(process.RemoveAllProcesses(colonyname=colony, state=state))

    async def wait(self, process_id: str, *, timeout_s: float) -> Process:
        """Look at a process until it is final. Raises `TimeoutError`.

        The server holds each look until there is something new. One that does not is asked often
        at first, then every `LAST_POLL_S`. Passes over failures that may pass.
        """
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(timeout_s):
            state: int | None = None
            pause_s = FIRST_POLL_S
            while True:
                began = now()
                found = await self._glance(process_id, state)
                if found is not None and found.is_final:
                    return found
                if found is not None and found.state != state:
                    state, pause_s = found.state, FIRST_POLL_S
                elif now() - began < HELD_S / 2:
                    await asyncio.sleep(pause_s)
                    pause_s = min(LAST_POLL_S, pause_s * _GROWTH)

    async def _glance(self, process_id: str, state: int | None) -> Process | None:
        try:
            return await self.get(process_id, while_state=state, timeout_s=HELD_S)
        except (ServerError, UnreachableError) as error:
            if is_transient(error):
                return None
            raise


def is_no_process(error: ServerError) -> bool:
    """Whether an assign ended without work. A server other than ours sends no code."""
    return error.status == HTTPStatus.NOT_FOUND and error.code in ("", "no_process")


def raw(values: Sequence[Any]) -> msgspec.Raw:
    """Values as the JSON array that travels."""
    return msgspec.Raw(codec.encode(list(values)))
