"""What an attempt may do to its process, while it is the newest and after.

Its executor names it by a token. A token that the server made proves that there was such a grant,
also where a restored store has forgotten it: then it is one of the older attempts.
"""

from __future__ import annotations

from colonist_core import lease
from colonist_core.lease import Flag
from colonist_core.process import Cause, Grantee, Live, What, happened, is_newest
from colonist_protocol.errors import AttemptOverError, InvalidValueError
from colonist_protocol.process import State


def counts(live: Live, by: Grantee, what: What) -> bool:
    """Whether a result decides what becomes of a process that has not ended."""
    if is_newest(live, by):
        return True
    return what is What.SUCCEEDED and not live.flags & Flag.REJECTS_LATE


def winner(live: Live) -> tuple[int, bytes] | None:
    """Number and nonce of the attempt whose result ended a process; None: no sealed result did."""
    last = live.events[-1] if live.events else None
    if not live.nonce or last is None or last.what not in (What.SUCCEEDED, What.FAILED):
        return None
    return last.attempt, live.nonce


def recorded(live: Live, process_id: str, by: Grantee, *, now_ns: int, cause: Cause) -> Live:
    """A result came that changes nothing: it is evidence."""
    return happened(
        live,
        process_id,
        What.RECORDED,
        now_ns,
        cause,
        of=by.number,
        changed_ns=live.changed_ns,
        flags=live.flags | Flag.MARKED,
    )


def check_attempt(live: Live, by: Grantee) -> None:
    """Raise `AttemptOverError` unless this is the attempt that runs."""
    if live.state != State.RUNNING or not is_newest(live, by):
        raise AttemptOverError("the attempt is over: stop its work")


def confirmed(live: Live, process_id: str, by: Grantee, *, now_ns: int, cause: Cause) -> Live:
    """The executor has spoken of this attempt: it has started. The same where it had before.

    Raises `AttemptOverError`.
    """
    check_attempt(live, by)
    if live.is_confirmed:
        return live
    flags = live.flags | Flag.CONFIRMED
    return happened(live, process_id, What.CONFIRMED, now_ns, cause, flags=flags, unstarted=0)


def renewed(
    live: Live, process_id: str, by: Grantee, count: int, *, now_ns: int, cause: Cause
) -> Live:
    """The lease reaches to the end of period number `count`, or further where it did before.

    Raises `AttemptOverError`, `InvalidValueError`.
    """
    check_attempt(live, by)
    if count <= live.renewed or live.max_exec_s <= 0:
        return confirmed(live, process_id, by, now_ns=now_ns, cause=cause)
    if count > live.max_renewals:
        raise InvalidValueError(f"count is over the spec's maxrenewals, {live.max_renewals}")
    most = lease.most_renewals(live.started_ns, live.max_exec_s, now_ns)
    if count > most:
        raise InvalidValueError(f"count is over {most}, which is what may be asked for by now")
    end = lease.end_ns(live.started_ns, live.max_exec_s, count)
    return happened(
        live,
        process_id,
        What.RENEWED,
        now_ns,
        cause,
        deadline_ns=max(live.deadline_ns, lease.requeue_ns(end, now_ns, live.flags)),
        flags=live.flags | Flag.CONFIRMED,
        renewed=count,
        unstarted=0,
    )
