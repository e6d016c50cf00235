"""A small honest server in memory: speaks the envelope and holds one colony's queue.

It keeps time by the running loop, so it works in virtual time. `answer` takes a request's body and
returns a reply's; `serve` puts it behind HTTP.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
from aiohttp import web

from colonist_protocol import codec, envelope
from colonist_protocol.attribute import AddAttribute, Attribute
from colonist_protocol.colony import GetPauseStatus, PauseAssignments, PauseStatus
from colonist_protocol.errors import (
    AccessError,
    AssignPausedTimeoutError,
    ColonistError,
    NoProcessError,
    NotFoundError,
    UnknownMessageError,
)
from colonist_protocol.executor import Executor, ExecutorState, GetExecutorById
from colonist_protocol.function import AddFunction, Function, GetFunctions
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.log import AddLog
from colonist_protocol.message import Message
from colonist_protocol.messages import TYPED, UNSIGNED
from colonist_protocol.process import (
    AssignProcess,
    CancelProcess,
    CloseFailed,
    CloseSuccessful,
    GetProcess,
    GetProcesses,
    Process,
    SetOutput,
    State,
    SubmitFunctionSpec,
)
from colonist_protocol.server import Version, VersionReply
from colonist_protocol.times import UNSET, to_text


class FakeServer:
    """One colony, `home`. Executors are those in `executors`; everybody may submit."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.executors: dict[str, Executor] = {}
        self.functions: list[Function] = []
        self.logs: dict[str, list[str]] = {}
        self.seen: list[str] = []
        self.is_paused = False
        self._done: dict[bytes, bytes] = {}
        self._ids = itertools.count(1)
        self._changed = asyncio.Condition()
        self._handlers: dict[type[Message], Callable[[str, Any], Any]] = {
            Version: lambda *_: VersionReply(buildversion="fake", buildtime=""),
            SubmitFunctionSpec: self._submit,
            AssignProcess: self._assign,
            GetProcess: lambda _, message: self._find(message.processid),
            GetProcesses: self._list,
            CloseSuccessful: self._close,
            CloseFailed: self._fail,
            CancelProcess: self._cancel,
            SetOutput: self._set_output,
            AddLog: self._log,
            AddAttribute: self._attribute,
            GetExecutorById: lambda _, message: self._executor(message.executorid),
            AddFunction: self._add_function,
            GetFunctions: lambda *_: self.functions,
            PauseAssignments: lambda *_: self._pause(),
            GetPauseStatus: lambda *_: PauseStatus(colonyname="home", ispaused=self.is_paused),
        }

    def approve(self, executor_id: str, name: str = "worker") -> None:
        """Let an executor in."""
        self.executors[executor_id] = Executor(
            executorid=executor_id,
            executortype="device",
            executorname=name,
            colonyname="home",
            state=ExecutorState.APPROVED,
        )

    async def answer(self, body: bytes) -> bytes:
        """The reply to a request; a close that was answered is answered the same again."""
        try:
            request = envelope.parse_request(body)
            self.seen.append(request.payloadtype)
            if body in self._done:
                return self._done[body]
            reply = envelope.pack_reply(request.payloadtype, await self._reply(request))
        except ColonistError as error:
            return envelope.pack_failure(error)
        if request.payloadtype.startswith(("close", "setoutput")):
            self._done[body] = reply
        return reply

    async def add(self, function: str, *args: Any, **fields: Any) -> str:
        """Submit from inside; the id."""
        spec = FunctionSpec(funcname=function, args=msgspec.Raw(codec.encode(list(args))), **fields)
        return (await self._submit("submitter", SubmitFunctionSpec(spec=spec))).processid

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with self._changed:
            await self._changed.wait_for(is_so)

    async def until_final(self, process_id: str) -> Process:
        """Wait until a process has ended; the process."""
        await self.until(lambda: self.processes[process_id].is_final)
        return self.processes[process_id]

    async def requeue(self, process_id: str) -> None:
        """Take a process back, as after a lease."""
        await self._put(process_id, state=State.WAITING, isassigned=False, assignedexecutorid="")

    async def _reply(self, request: envelope.Envelope) -> bytes:
        kind = TYPED.get(request.payloadtype)
        handler = self._handlers.get(kind) if kind else None
        if kind is None or handler is None:
            raise UnknownMessageError(f"invalid rpcMsg.PayloadType: {request.payloadtype}")
        caller = "" if kind.msgtype() in UNSIGNED else envelope.authenticate(request).caller
        result = handler(caller, envelope.open_message(request, kind))
        if asyncio.iscoroutine(result):
            result = await result
        return codec.encode({} if result is None else result)

    async def _submit(self, caller: str, message: SubmitFunctionSpec) -> Process:
        number = next(self._ids)
        process_id = f"{number:064x}"
        self.processes[process_id] = Process(
            processid=process_id,
            initiatorid=caller,
            initiatorname="",
            assignedexecutorid="",
            isassigned=False,
            state=State.WAITING,
            prioritytime=number,
            submissiontime=self._now(),
            spec=message.spec,
        )
        await self._notify()
        return self.processes[process_id]

    async def _assign(self, caller: str, message: AssignProcess) -> Process:
        self._approved(caller)
        try:
            async with asyncio.timeout(max(0, message.timeout)), self._changed:
                await self._changed.wait_for(lambda: self._first() is not None)
        except TimeoutError:
            if self.is_paused:
                raise AssignPausedTimeoutError("Assignment timeout: paused") from None
            raise NoProcessError("No process available for assignment") from None
        found = self._first()
        assert found is not None
        await self._put(
            found.processid,
            state=State.RUNNING,
            isassigned=True,
            assignedexecutorid=caller,
            starttime=self._now(),
        )
        return self.processes[found.processid]

    async def _close(self, caller: str, message: CloseSuccessful) -> None:
        self._running(caller, message.processid)
        await self._put(message.processid, state=State.SUCCESS, out=message.out)

    async def _fail(self, caller: str, message: CloseFailed) -> None:
        self._running(caller, message.processid)
        await self._put(message.processid, state=State.FAILED, errors=message.errors)

    async def _cancel(self, _: str, message: CancelProcess) -> None:
        self._find(message.processid)
        await self._put(message.processid, state=State.CANCELLED)

    async def _set_output(self, caller: str, message: SetOutput) -> None:
        self._running(caller, message.processid)
        await self._put(message.processid, out=message.out)

    async def _log(self, caller: str, message: AddLog) -> None:
        self._running(caller, message.processid)
        self.logs.setdefault(message.processid, []).extend(message.message.split("\n"))
        await self._notify()

    async def _attribute(self, caller: str, message: AddAttribute) -> Attribute:
        found = self._running(caller, message.attribute.targetid)
        await self._put(found.processid, attributes=[*found.attributes, message.attribute])
        return message.attribute

    async def _add_function(self, caller: str, message: AddFunction) -> Function:
        self._approved(caller)
        self.functions.append(message.function)
        await self._notify()
        return message.function

    def _list(self, _: str, message: GetProcesses) -> list[Process] | msgspec.Raw:
        found = [each for each in self.processes.values() if each.state == message.state]
        return found[: message.count] or msgspec.Raw(b"null")  # as the reference answers

    def _pause(self) -> None:
        self.is_paused = True

    def _first(self) -> Process | None:
        waiting = (each for each in self.processes.values() if each.state == State.WAITING)
        return None if self.is_paused else next(waiting, None)

    def _find(self, process_id: str) -> Process:
        if process_id not in self.processes:
            raise NotFoundError("Failed to get process, process not found")
        return self.processes[process_id]

    def _running(self, caller: str, process_id: str) -> Process:
        found = self._find(process_id)
        if found.state != State.RUNNING or found.assignedexecutorid != caller:
            raise AccessError("Access denied, process is not assigned")
        return found

    def _approved(self, caller: str) -> None:
        if caller not in self.executors:
            raise AccessError("Access denied, not an approved executor")

    def _executor(self, executor_id: str) -> Executor:
        if executor_id not in self.executors:
            raise NotFoundError("Failed to get executor by ID, executor is nil")
        return self.executors[executor_id]

    async def _put(self, process_id: str, **changes: Any) -> None:
        self.processes[process_id] = msgspec.structs.replace(self.processes[process_id], **changes)
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    @staticmethod
    def _now() -> str:
        now_s = asyncio.get_running_loop().time()
        return to_text(int((now_s + 1) * 1e9)) or UNSET


@contextlib.asynccontextmanager
async def serve(answer: Callable[[bytes], Any], *, ssl_context: Any = None) -> AsyncGenerator[str]:
    """Put `answer` behind `POST /api` on a free port; the URL."""

    async def post(request: web.Request) -> web.Response:
        return web.Response(body=await answer(await request.read()), content_type="text/plain")

    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.router.add_post("/api", post)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
    await site.start()
    try:
        scheme = "https" if ssl_context else "http"
        yield f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
