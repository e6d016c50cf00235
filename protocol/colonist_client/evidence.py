"""Calls about evidence: what a colony and its processes went through, for anyone to check."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from colonist_client.caller import Caller
from colonist_protocol import audit
from colonist_protocol.audit import AuditPage, ProcessEvidence

PAGE_BYTES: Final = 1_000_000


class EvidenceCalls(Caller):
    """What can be checked afterwards."""

    async def process_evidence(self, process_id: str) -> ProcessEvidence:
        """The events of a process, and the checkpoint that they are under."""
        lines: list[str] = []
        cursor = ""
        while True:
            message = audit.GetEvidence(processid=process_id, cursor=cursor, size=PAGE_BYTES)
            page = await self.read(message, ProcessEvidence)
            lines += page.lines
            cursor = page.cursor
            if not cursor:
                return msgspec.structs.replace(page, lines=tuple(lines))

    async def audit_pages(
        self, colony: str, *, size: int = PAGE_BYTES
    ) -> AsyncGenerator[tuple[str, ...]]:
        """The lines of an audit file but for the last, in pages; for the colony's owner."""
        cursor = ""
        while True:
            message = audit.GetAudit(colonyname=colony, cursor=cursor, size=size)
            page = await self.read(message, AuditPage)
            yield page.lines
            cursor = page.cursor
            if not cursor:
                return
