"""What this node knows of itself, by the names of `metrics`."""

from __future__ import annotations

from colonist_server.rpc.rooms import Rooms


def of_work(rooms: Rooms) -> dict[str, float]:
    """Of the node, of the work of all colonies, and of those who wait for it here."""
    colonies = rooms.view.colonies.values()
    hand_over = rooms.hand_over
    return {
        "colonist_watch_behind_seconds": rooms.behind_s(),
        "colonist_is_leader": rooms.leader() == rooms.about.node,
        "colonist_parked": hand_over.parked(),
        "colonist_waiting": sum(len(colony.queue) for colony in colonies),
        "colonist_running": sum(len(colony.running) for colony in colonies),
        "colonist_assign_conflicts_total": hand_over.conflicts,
        "colonist_grants_total": hand_over.grants,
    }
