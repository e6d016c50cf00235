"""Calls about attributes and logs: COLONIES-RPC sections 2.9 and 2.10."""

from __future__ import annotations

from colonist_client.caller import Caller
from colonist_protocol import attribute, log
from colonist_protocol.attribute import Attribute, AttributeType
from colonist_protocol.log import Log


class RecordCalls(Caller):
    """What is written down beside a process."""

    async def add_attribute(
        self, process_id: str, key: str, value: str, *, kind: int = AttributeType.OUT
    ) -> Attribute:
        """Set an attribute of a running process, once; the assignee only."""
        new = Attribute(targetid=process_id, attributetype=kind, key=key, value=value)
        return await self.write(attribute.AddAttribute(attribute=new), Attribute)

    async def attribute(self, attribute_id: str) -> Attribute:
        """Read one attribute; those of a process come with the process."""
        return await self.read(attribute.GetAttribute(attributeid=attribute_id), Attribute)

    async def add_log(self, process_id: str, message: str) -> None:
        """Write a line to a running process; the assignee only."""
        await self.order(log.AddLog(processid=process_id, message=message))

    async def add_executor_log(self, colony: str, executor: str, message: str) -> None:
        """Write a line to an executor's own log; that executor only."""
        await self.order(
            log.AddExecutorLog(colonyname=colony, executorname=executor, message=message)
        )

    async def logs(
        self,
        colony: str,
        *,
        process_id: str = "",
        executor: str = "",
        count: int = log.MAX_LOGS,
        since_ns: int = 0,
        latest: bool = False,
    ) -> list[Log]:
        """Lines of an executor, else of a process, in the order they were written."""
        message = log.GetLogs(
            colonyname=colony,
            processid=process_id,
            executorname=executor,
            count=count,
            since=since_ns,
            latest=latest,
        )
        return await self.read_list(message, Log)

    async def search_logs(
        self,
        colony: str,
        text: str,
        *,
        days: int = log.MAX_SEARCH_DAYS,
        count: int = log.MAX_SEARCH_LOGS,
    ) -> list[Log]:
        """Lines that contain a text."""
        message = log.SearchLogs(colonyname=colony, text=text, days=days, count=count)
        return await self.read_list(message, Log)
