"""Calls about colonies and the server: COLONIES-RPC sections 2.1 and 2.2."""

from __future__ import annotations

from colonist_client.caller import Caller
from colonist_protocol import colony, server
from colonist_protocol.colony import MAX_CHANGES, Colony, MemberChange, PauseStatus
from colonist_protocol.server import Cluster, ServerInfo, Statistics, VersionReply


class ColonyCalls(Caller):
    """Colonies, their counts and their pause; the server's version and nodes."""

    async def add_colony(self, new: Colony) -> Colony:
        """Found a colony; server owner only."""
        return await self.write(colony.AddColony(colony=new), Colony)

    async def remove_colony(self, name: str) -> None:
        """Remove a colony with all that is in it; server owner only."""
        await self.order(colony.RemoveColony(colonyname=name))

    async def colonies(self) -> list[Colony]:
        """List all colonies; server owner only."""
        return await self.read_list(colony.GetColonies(), Colony)

    async def colony(self, name: str) -> Colony:
        """Read one colony."""
        return await self.read(colony.GetColony(colonyname=name), Colony)

    async def colony_statistics(self, name: str) -> Statistics:
        """Count what is in a colony."""
        return await self.read(colony.GetColonyStatistics(colonyname=name), Statistics)

    async def pause(self, name: str) -> None:
        """Stop handing out a colony's work; colony owner only."""
        await self.order(colony.PauseAssignments(colonyname=name))

    async def resume(self, name: str) -> None:
        """Hand out a colony's work again; colony owner only."""
        await self.order(colony.ResumeAssignments(colonyname=name))

    async def is_paused(self, name: str) -> bool:
        """Whether a colony hands out no work."""
        status = await self.read(colony.GetPauseStatus(colonyname=name), PauseStatus)
        return status.ispaused

    async def change_colony_id(self, name: str, new_id: str) -> None:
        """Give the colony's owner a new id, at once; colony owner only, by its old key."""
        await self.order(colony.ChangeColonyId(colonyname=name, colonyid=new_id))

    async def member_history(
        self, name: str, *, count: int = MAX_CHANGES, since: int = 0, before: int = 0
    ) -> list[MemberChange]:
        """Changes of members and owner, newest first, by time in ns; colony owner only."""
        message = colony.GetMemberHistory(colonyname=name, count=count, since=since, before=before)
        return await self.read_list(message, MemberChange)

    async def change_server_id(self, new_id: str) -> None:
        """Give the server owner a new id, at once; server owner only, by its old key."""
        await self.order(server.ChangeServerId(serverid=new_id))

    async def version(self) -> VersionReply:
        """The server's version; needs no key."""
        return await self.read(server.Version(), VersionReply)

    async def server_info(self) -> ServerInfo:
        """The ways in to the server; needs no key."""
        return await self.read(server.GetServerInfo(), ServerInfo)

    async def statistics(self) -> Statistics:
        """Count what is in all colonies; server owner only."""
        return await self.read(server.GetStatistics(), Statistics)

    async def cluster(self) -> Cluster:
        """The server's nodes; server owner only."""
        return await self.read(server.GetCluster(), Cluster)
