"""A client of a Colonist server: one method for each message of the protocol.

    async with Client(HttpTransport("https://colony.example"), identity) as client:
        process = await client.submit(spec)
        done = await client.wait(process.processid, timeout_s=60)

Raises `ServerError` where the server refuses and `UnreachableError` where no reply comes.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from colonist_client.claims import ClaimCalls
from colonist_client.colonies import ColonyCalls
from colonist_client.crons import CronCalls
from colonist_client.evidence import EvidenceCalls
from colonist_client.generators import GeneratorCalls
from colonist_client.members import MemberCalls
from colonist_client.processes import ProcessCalls
from colonist_client.records import RecordCalls
from colonist_client.workflows import WorkflowCalls


class Client(
    ProcessCalls,
    ColonyCalls,
    MemberCalls,
    RecordCalls,
    WorkflowCalls,
    CronCalls,
    GeneratorCalls,
    EvidenceCalls,
    ClaimCalls,
):
    """All calls, signed with one key, over one transport, which it closes at the end."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
