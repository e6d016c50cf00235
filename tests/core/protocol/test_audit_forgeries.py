"""Lies of the server, or of somebody with its key: each line is well formed and signed as it should
be, and a member's request is used for something else, or something is made up. And what looks odd
and is sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from colonist_protocol.claims import claim_key, make_code, prove
from colonist_protocol.identity import Identity
from tests.support.audit_files import Colony, Member, identity
from tests.support.audit_small import process_of, small, verdict


def by(member: int) -> Callable[[Colony], None]:
    def forge(made: Colony) -> None:
        """The server writes down what a member did not sign."""
        process = process_of(made)
        message = {"msgtype": "closesuccessfulmsg", "processid": process.chain}
        request = made.request(identity("nobody"), message, attempt=1)
        request.who = made.members[member].key.id
        made.event(process.chain, "succeeded", request, 1)

    return forge


def stranger(made: Colony) -> None:
    process = process_of(made)
    message = {"msgtype": "closesuccessfulmsg", "processid": process.chain}
    request = made.request(identity("nobody"), message, attempt=1)
    made.event(process.chain, "succeeded", request, 1)


def removed_long_ago(made: Colony) -> None:
    member = made.members[1]
    made.remove(member)
    for _ in range(2):
        made.checkpoint()
        made.submit()
    process = process_of(made)
    message = {"msgtype": "closesuccessfulmsg", "processid": process.chain}
    made.checkpoint()
    made.event(process.chain, "succeeded", made.request(member.key, message, attempt=1), 1)


def not_yet_added(made: Colony) -> None:
    key = identity("later")
    spec = {"conditions": {"colonyname": made.name}}
    message = {"msgtype": "submitfuncspecmsg", "spec": spec}
    made.event(made.new_id(), "submitted", made.request(key, message))
    made.checkpoint()
    user = {"userid": key.id, "name": "late", "colonyname": made.name}
    message = {"msgtype": "addusermsg", "user": user}
    made.event(made.own, "user_added", made.request(made.owner, message))


def added_by_a_user(made: Colony) -> None:
    user = {"userid": identity("x").id, "name": "x", "colonyname": made.name}
    message = {"msgtype": "addusermsg", "user": user}
    made.event(made.own, "user_added", made.request(made.members[0].key, message))


def founded_again(made: Colony) -> None:
    named = {"colonyid": identity("x").id, "name": made.name}
    message = {"msgtype": "addcolonymsg", "colony": named}
    made.event(made.own, "colony_added", made.request(made.founder, message))


def renamed_by_a_stranger(made: Colony) -> None:
    message = {"msgtype": "changeuseridmsg", "colonyname": made.name, "userid": identity("x").id}
    made.event(made.own, "user_id_changed", made.request(identity("nobody"), message))


def close(made: Colony, what: str, message: dict[str, object], attempt: int = 1) -> None:
    key = made.members[1].key
    sealed_for = attempt if message["msgtype"] == "closesuccessfulmsg" else -1
    made.event(process_of(made).chain, what, made.request(key, message, attempt=sealed_for), 1)


def another_kind(made: Colony) -> None:
    message: dict[str, object] = {
        "msgtype": "closesuccessfulmsg",
        "processid": process_of(made).chain,
    }
    close(made, "failed", message)


def a_read(made: Colony) -> None:
    close(made, "cancelled", {"msgtype": "getprocessmsg", "processid": process_of(made).chain})


def another_process(made: Colony) -> None:
    close(made, "cancelled", {"msgtype": "cancelprocessmsg", "processid": made.new_id()})


def another_workflow(made: Colony) -> None:
    message: dict[str, object] = {
        "msgtype": "cancelprocessgraphmsg",
        "processgraphid": made.new_id(),
    }
    close(made, "cancelled", message)


def another_colony(made: Colony) -> None:
    spec = {"conditions": {"colonyname": "c-2"}}
    message = {"msgtype": "submitfuncspecmsg", "spec": spec}
    made.event(made.new_id(), "submitted", made.request(made.any().key, message))


def another_attempt(made: Colony) -> None:
    message: dict[str, object] = {
        "msgtype": "closesuccessfulmsg",
        "processid": process_of(made).chain,
    }
    close(made, "succeeded", message, attempt=2)


def sealed_for_another(made: Colony) -> None:
    made.servers.append(identity("another"))
    process = process_of(made)
    message = {"msgtype": "cancelprocessmsg", "processid": process.chain}
    request = made.request(made.members[0].key, message)
    made.servers.pop()
    made.event(process.chain, "cancelled", request, 1)


def twice(made: Colony) -> None:
    spec = {"conditions": {"colonyname": made.name}}
    message = {"msgtype": "submitfuncspecmsg", "spec": spec}
    request = made.request(made.any().key, message)
    for _ in range(2):
        made.event(made.new_id(), "submitted", request)


def workflow_twice_in_a_chain(made: Colony) -> None:
    process = process_of(made)
    message = {"msgtype": "cancelprocessgraphmsg", "processgraphid": process.chain}
    request = made.request(made.members[0].key, message)
    for _ in range(2):
        made.event(process.chain, "cancelled", request, 1)


def standing(count: int, used: int) -> Callable[[Colony], None]:
    def forge(made: Colony) -> None:
        message = {
            "msgtype": "assignprocessmsg",
            "colonyname": made.name,
            "standing": {"count": count},
        }
        request = made.request(made.members[1].key, message)
        for _ in range(used):
            made.event(made.submit().chain, "assigned", request, 1)

    return forge


def of_no_server(made: Colony) -> None:
    made.servers.append(identity("a key that nobody announced"))


CODES = [make_code(bytes((number,)) * 16) for number in range(2)]


def claim(made: Colony, *, count: int = 2, by: Identity | None = None) -> str:
    key = claim_key(CODES[0])
    message = {
        "msgtype": "addclaimmsg",
        "colonyname": made.name,
        "claim": key.id,
        "executortype": "cam",
        "count": count,
    }
    made.event(made.own, "claim_added", made.request(by or made.owner, message))
    return key.id


def enrol(
    made: Colony, device: str, *, code: str = CODES[0], proven: str = "", who: str = ""
) -> Identity:
    key = identity(device)
    proof = prove(
        code,
        server=made.server_id,
        colony=made.name,
        executor=identity(proven).id if proven else key.id,
    )
    message: dict[str, object] = {
        "msgtype": "enrolmsg",
        "colonyname": made.name,
        "claim": claim_key(CODES[0]).id,
        "executorid": key.id,
        "hw": "x",
        "proof": proof,
    }
    signer = identity(who) if who else key
    made.event(made.own, "executor_enrolled", made.request(signer, message))
    return key


def without_claim(made: Colony) -> None:
    enrol(made, "cam")


def over_the_count(made: Colony) -> None:
    claim(made, count=1)
    for device in ("cam 1", "cam 2"):
        enrol(made, device)


def by_another_code(made: Colony) -> None:
    claim(made)
    enrol(made, "cam", code=CODES[1])


def by_the_proof_of_another(made: Colony) -> None:
    claim(made)
    enrol(made, "cam", proven="cam 2")


def for_another(made: Colony) -> None:
    claim(made)
    enrol(made, "cam", who="thief")


def claim_of_a_user(made: Colony) -> None:
    claim(made, by=made.members[0].key)


def after_removal_of_the_claim(made: Colony) -> None:
    id = claim(made)
    drop_claim(made, id)
    enrol(made, "cam")


def drop_claim(
    made: Colony,
    id: str,
    *,
    executors: bool = False,
    plain: bool = False,
    whats: Sequence[str] = ("claim_removed",),
) -> None:
    message: dict[str, object] = {
        "msgtype": "removeclaimmsg",
        "colonyname": made.name,
        "claim": id,
        "executors": executors,
    }
    request = made.request(made.owner, message, plain=plain)
    for what in whats:
        made.event(made.own, what, request)


def gone_without_their_claim(made: Colony) -> None:
    drop_claim(made, claim(made), executors=True, whats=["executor_removed"])


def gone_though_only_the_claim_was_to_go(made: Colony) -> None:
    drop_claim(made, claim(made), whats=["claim_removed", "executor_removed"])


def claim_removed_twice(made: Colony) -> None:
    drop_claim(made, claim(made), executors=True, whats=["claim_removed", "claim_removed"])


def device_removed_by_the_request(made: Colony) -> None:
    id = claim(made)
    key = enrol(made, "cam")
    drop_claim(made, id, executors=True, whats=["claim_removed", "executor_removed"])
    wait(made)
    work(made, key)


def work(made: Colony, key: Identity) -> None:
    process = made.submit()
    message: dict[str, object] = {"msgtype": "assignprocessmsg", "colonyname": made.name}
    made.event(process.chain, "assigned", made.request(key, message), 1)


def wait(made: Colony, checkpoints: int = 3) -> None:
    for _ in range(checkpoints):
        made.pause()
        made.checkpoint()


def device_removed_by_name(made: Colony) -> None:
    claim(made)
    key = enrol(made, "cam")
    message: dict[str, object] = {
        "msgtype": "removeexecutormsg",
        "colonyname": made.name,
        "executorname": f"cam-{key.id[:8]}",
    }
    made.event(made.own, "executor_removed", made.request(made.owner, message))
    wait(made)
    work(made, key)


def device_removed_with_its_claim(made: Colony) -> None:
    id = claim(made)
    key = enrol(made, "cam")
    drop_claim(made, id, executors=True)
    wait(made)
    work(made, key)
    made.event(made.own, "executor_removed")
    wait(made)
    work(made, key)


def confirmed_for_another(made: Colony) -> None:
    process = process_of(made)
    attribute = {"targetid": made.new_id(), "key": "k"}
    message: dict[str, object] = {"msgtype": "addattributemsg", "attribute": attribute}
    request = made.request(made.members[1].key, message, attempt=1)
    made.event(process.chain, "confirmed", request, 1)


def success_of_nobody(made: Colony) -> None:
    made.event(process_of(made).chain, "succeeded", None, 1)


def member_of_nobody(made: Colony) -> None:
    made.event(made.own, "user_added")


def time_out_of_somebody(made: Colony) -> None:
    process = process_of(made)
    message: dict[str, object] = {"msgtype": "cancelprocessmsg", "processid": process.chain}
    request = made.request(made.members[0].key, message)
    request.line = b""
    made.event(process.chain, "expired", request, 1)


def one_request_for_two_things(made: Colony) -> None:
    """The requests themselves were not kept."""
    process = process_of(made)
    message: dict[str, object] = {"msgtype": "cancelprocessmsg", "processid": process.chain}
    request = made.request(made.members[1].key, message)
    request.line = b""
    made.event(process.chain, "released", request, 1)
    made.event(made.submit().chain, "assigned", request, 1)


def submit_of_somebody_read_as_a_cancel(made: Colony) -> None:
    process = process_of(made)
    spec = {"conditions": {"colonyname": made.name}}
    message: dict[str, object] = {"msgtype": "submitfuncspecmsg", "spec": spec}
    made.event(process.chain, "cancelled", made.request(made.members[0].key, message), 1)


FORGERIES = [
    (one_request_for_two_things, "caused assigned and released"),
    (success_of_nobody, "'succeeded' is nothing that the server by itself can do"),
    (member_of_nobody, "'user_added' is nothing that the server by itself can do"),
    (time_out_of_somebody, "'expired' is nothing that somebody can do"),
    (submit_of_somebody_read_as_a_cancel, "does not cause 'cancelled'"),
    (without_claim, "enrolled by a claim that there was not"),
    (over_the_count, "enrolled by a claim that there was not"),
    (after_removal_of_the_claim, "enrolled by a claim that there was not"),
    (by_another_code, "enrolled without the proof"),
    (by_the_proof_of_another, "enrolled without the proof"),
    (for_another, "enrolled without the proof"),
    (claim_of_a_user, "was not signed by the colony's owner"),
    (device_removed_by_name, "was no member"),
    (device_removed_with_its_claim, "was no member"),
    (device_removed_by_the_request, "was no member"),
    (gone_without_their_claim, "not removed by that request"),
    (gone_though_only_the_claim_was_to_go, "about a claim, not about who came by it"),
    (claim_removed_twice, "had 2 events: too many"),
    (confirmed_for_another, "about the process"),
    (by(1), "signed by"),
    (by(0), "signed by"),
    (stranger, "was no member"),
    (removed_long_ago, "was no member"),
    (not_yet_added, "was no member"),
    (added_by_a_user, "was not signed by the colony's owner"),
    (founded_again, "founded a second time"),
    (renamed_by_a_stranger, "was no user of the colony"),
    (another_kind, "does not cause 'failed'"),
    (a_read, "'getprocessmsg' does not cause"),
    (another_process, "about the process"),
    (another_workflow, "about the workflow"),
    (another_colony, "about the colony 'c-2'"),
    (another_attempt, "is of attempt 2, not 1"),
    (sealed_for_another, "sealed for another server"),
    (twice, "had 2 events: too many"),
    (workflow_twice_in_a_chain, "had 2 events: too many"),
    (standing(2, 3), "had 3 events: too many"),
]


@pytest.mark.parametrize(("forge", "text"), FORGERIES)
def test_a_lie_of_the_server_is_named(forge: Callable[[Colony], None], text: str) -> None:
    made = small()
    assert verdict(made) == ""
    forge(made)
    assert text in verdict(made)


# What looks odd and is sound.


def plain_twice(made: Colony) -> None:
    spec = {"conditions": {"colonyname": made.name}}
    message = {"msgtype": "submitfuncspecmsg", "spec": spec}
    request = made.request(made.any().key, message, plain=True)
    for _ in range(2):
        made.event(made.new_id(), "submitted", request)


def shown_again(made: Colony) -> None:
    process = made.submit()
    message = {"msgtype": "assignprocessmsg", "colonyname": made.name}
    request = made.request(made.members[1].key, message)
    for what in ("assigned", "redelivered"):
        made.event(process.chain, what, request, 1)


def old_id(made: Colony) -> None:
    """What an executor had signed before it changed its id."""
    process, member = process_of(made), made.members[1]
    message = {"msgtype": "closefailedmsg", "processid": process.chain}
    request = made.request(member.key, message, attempt=1)
    made.rename(member)
    made.checkpoint()
    made.event(process.chain, "failed", request, 1)


def just_removed(made: Colony) -> None:
    """A node heard of it late, where requests are plain."""
    process, member = process_of(made), made.members[1]
    message = {"msgtype": "closefailedmsg", "processid": process.chain}
    request = made.request(member.key, message, plain=True)
    made.remove(member)
    made.checkpoint()
    made.event(process.chain, "failed", request, 1)


def changed_owner(made: Colony) -> None:
    new = identity("new owner")
    message = {"msgtype": "changecolonyidmsg", "colonyname": made.name, "colonyid": new.id}
    made.event(made.own, "colony_id_changed", made.request(made.owner, message))
    made.owner = new
    made.add("user")


def same_name_again(made: Colony) -> Member:
    first = made.add("executor")
    second = identity("again")
    named = {"executorid": second.id, "executorname": first.name, "colonyname": made.name}
    message = {"msgtype": "addexecutormsg", "executor": named}
    made.event(made.own, "executor_reregistered", made.request(made.owner, message))
    made.members.remove(first)
    return first


def late_result_of_a_gone_process(made: Colony) -> None:
    """Stands in the colony's chain, about a process that nobody knows any more."""
    message = {"msgtype": "removeprocessmsg", "processid": made.new_id()}
    made.event(made.own, "removed", made.request(made.members[0].key, message))


def new_server_key(made: Colony) -> None:
    made.rotate_server_key()


def enrolled_and_kept(made: Colony) -> None:
    id = claim(made)
    keys = [enrol(made, device) for device in ("cam 1", "cam 2")]
    drop_claim(made, id)
    made.event(made.own, "executor_removed")
    wait(made)
    for key in keys:
        work(made, key)


def enrolled_until_removed(made: Colony) -> None:
    id = claim(made)
    key = enrol(made, "cam")
    drop_claim(made, id, executors=True)
    wait(made)
    work(made, key)
    made.event(made.own, "executor_removed")


def removed_by_one_request(*, plain: bool) -> Callable[[Colony], None]:
    def do(made: Colony) -> None:
        id = claim(made)
        keys = [enrol(made, device) for device in ("cam 1", "cam 2")]
        for key in keys:
            work(made, key)
        whats = ["claim_removed", "executor_removed", "executor_removed"]
        drop_claim(made, id, executors=True, plain=plain, whats=whats)

    return do


def removed_while_the_owner_changed(made: Colony) -> None:
    message: dict[str, object] = {
        "msgtype": "removeclaimmsg",
        "colonyname": made.name,
        "claim": claim(made),
        "executors": True,
    }
    enrol(made, "cam")
    request = made.request(made.owner, message)
    made.event(made.own, "claim_removed", request)
    changed_owner(made)
    made.event(made.own, "executor_removed", request)


def unknown_claim_dropped(made: Colony) -> None:
    drop_claim(made, "0" * 64)


def unregistered_by_the_server(made: Colony) -> None:
    made.event(made.own, "executor_removed")


@pytest.mark.parametrize(
    "do",
    [
        plain_twice,
        shown_again,
        standing(2, 2),
        old_id,
        just_removed,
        changed_owner,
        same_name_again,
        late_result_of_a_gone_process,
        new_server_key,
        unregistered_by_the_server,
        enrolled_and_kept,
        enrolled_until_removed,
        unknown_claim_dropped,
        removed_by_one_request(plain=True),
        removed_by_one_request(plain=False),
        removed_while_the_owner_changed,
    ],
)
def test_what_may_happen_is_sound(do: Callable[[Colony], object]) -> None:
    made = small()
    do(made)
    assert verdict(made) == ""


def test_the_parts_of_one_checkpoint_are_one_moment() -> None:
    """Removed in its first part, at work in its last."""
    made = small()
    member = made.members[1]
    processes = [made.submit() for _ in range(5)]
    for process in processes:
        message: dict[str, object] = {"msgtype": "assignprocessmsg", "colonyname": made.name}
        made.event(process.chain, "assigned", made.request(member.key, message), 1)
    made.remove(member)
    made.checkpoint(size=1)
    assert len(made.checkpoints) == 7
    assert verdict(made) == ""


def test_who_replaced_an_executor_ended_its_membership() -> None:
    made = small()
    first = same_name_again(made)
    made.checkpoint()
    made.submit()
    made.checkpoint()
    process = process_of(made)
    message = {"msgtype": "closefailedmsg", "processid": process.chain}
    made.event(process.chain, "failed", made.request(first.key, message, attempt=1), 1)
    assert "was no member" in verdict(made)
