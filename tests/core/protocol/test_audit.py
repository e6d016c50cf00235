"""The lines of an audit file: where they belong, what they must say, and how they are bound to each
other and to checkpoints."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable

import pytest

from colonist_protocol import audit_layout as layout
from colonist_protocol.audit_events import first_key, kept
from colonist_protocol.audit_layout import FaultError
from colonist_protocol.audit_reading import (
    MAX_LINE_BYTES,
    AuditError,
    Fault,
    Servers,
    read_header,
)
from tests.support.audit_files import (
    Colony,
    Process,
    colony,
    compact,
    finished,
    identity,
    sha3,
)
from tests.support.audit_memory import Memory, check, examine, problem
from tests.support.audit_small import STEPS, process_of, small, verdict


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("step", [300, 4_000, 1 << 20])
def test_a_colony_that_lived_is_sound_however_it_is_cut(seed: int, step: int) -> None:
    made = colony(seed, steps=50)
    data = made.export(kept=0.8)
    tally = check(data, made.server_id, step=step)
    assert tally.events == data.count(b'{"v":1,"chain":')
    assert tally.removed == data.count(b'"what":"removed"')
    assert tally == check(data, made.server_id)


def test_events_after_the_last_checkpoint_are_counted_as_unproven() -> None:
    made = small()
    made.submit()
    made.end(process_of(made))
    assert check(made.export(), made.server_id).unproven == 2


def test_who_signed_what_is_under_no_checkpoint_may_have_joined_since() -> None:
    made = small()
    key = identity("joined while the export was made")
    message = {"msgtype": "submitfuncspecmsg", "spec": {"conditions": {"colonyname": made.name}}}
    made.event(made.new_id(), "submitted", made.request(key, message))
    assert check(made.export(), made.server_id).unproven == 1
    made.checkpoint()
    assert "was no member" in problem(made.export(), made.server_id)


def test_an_empty_colony_is_sound() -> None:
    made = Colony(2)
    made.checkpoint()
    assert check(made.export(), made.server_id).events == 1
    nothing = finished([made.lines()[0]])
    assert check(nothing, made.server_id).events == 0


# Checkpoints.


def test_the_pin_vouches_forwards_only() -> None:
    made = small()
    old = made.server_id
    made.rotate_server_key()
    data = made.export()
    assert problem(data, old) == ""
    made.submit()
    made.checkpoint()
    data = made.export()
    assert problem(data, old) == problem(data, made.server_id) == ""
    assert "pinned one is" in problem(data, identity("other").id)


def test_keys_may_take_turns_while_nodes_change_theirs() -> None:
    """One node after the other has the new key, and any of them may lead."""
    made = small()
    made.rotate_server_key()
    made.submit()
    made.checkpoint()
    made.submit()
    new = made.servers.pop()
    made.checkpoint()
    made.servers.append(new)
    for step in STEPS:
        assert problem(made.export(), made.server_id, step=step) == ""


def test_a_key_that_nobody_announced_signs_nothing() -> None:
    made = small()
    made.rotate_server_key()
    made.submit()
    made.checkpoint()
    lines = made.lines()
    header = json.loads(lines[0])
    lines[0] = compact(header | {"via": []})
    assert "not signed by the server's key" in problem(finished(lines), made.server_id)
    stolen = identity("mine")
    lines[0] = compact(header | {"via": [[stolen.id, header["via"][0][1]]]})
    assert "did not sign that" in problem(finished(lines), made.server_id)
    lines[0] = compact(header | {"via": [[made.server_id, header["via"][0][1]]]})
    assert "stands twice" in problem(finished(lines), made.server_id)


def resigned(made: Colony, **changes: object) -> bytes:
    """The last checkpoint says something else, and is signed again."""
    line, _ = made.checkpoints.pop()
    changed = json.loads(line) | changes
    text = "\n".join(("colonist:checkpoint:1", compact(changed).decode())).encode()
    signature = {"of": "checkpoint", "k": changed["k"], "sig": made.servers[-1].sign(text)}
    made.checkpoints.append((compact(changed), compact(signature)))
    return made.export()


def heads(made: Colony) -> list[list[object]]:
    found: list[list[object]] = json.loads(made.checkpoints[-1][0])["heads"]
    return found


CHECKPOINTS: list[tuple[Callable[[Colony], dict[str, object]], str]] = [
    (lambda _: {"v": 2}, "no checkpoint of the colony"),
    (lambda _: {"colony": "c-2"}, "no checkpoint of the colony"),
    (lambda _: {"k": 3}, "begin with 3"),
    (lambda _: {"k": 0}, "begin with 0"),
    (lambda _: {"prev": sha3(b"")}, "begin with 1"),
    (lambda made: {"heads": heads(made)[::-1]}, "are not in order"),
    (lambda made: {"heads": [*heads(made), heads(made)[-1]]}, "are not in order"),
    (lambda _: {"heads": [["f" * 64, 0, "0" * 64]]}, "is none of the colony"),
    (lambda made: {"heads": [[made.own, -1, "0" * 64]]}, "names no event"),
    (lambda made: {"heads": [[made.own, 2**63, "0" * 64]]}, "names no event"),
    (lambda made: {"heads": [[made.own, 1, "0"]]}, "names no event"),
    (lambda made: {"heads": [[made.own, 1, "0" * 64]]}, "names another event 1"),
    (lambda made: {"heads": [[made.own, 9, "0" * 64]]}, "event 9, which checkpoint 1 names"),
    (lambda made: {"heads": [[made.tag + "0" * 55 + "1", 0, "0" * 64]]}, "is not in the file"),
    (lambda made: {"heads": [[made.tag + "F" * 56, 0, "0" * 64]]}, "is none of the colony"),
    (
        lambda made: {"heads": [[f"{made.tag}{n:056x}", 0, "0" * 64] for n in range(4_001)]},
        "more than 4000",
    ),
]


@pytest.mark.parametrize(("change", "text"), CHECKPOINTS)
def test_a_checkpoint_that_the_server_should_not_have_signed(
    change: Callable[[Colony], dict[str, object]], text: str
) -> None:
    made = small()
    changes = change(made)
    assert text in problem(resigned(made, **changes), made.server_id)


def test_a_later_checkpoint_may_not_be_older_or_go_back() -> None:
    made = small()
    made.submit()
    made.checkpoint()
    assert "older than the one before" in problem(resigned(made, time=5), made.server_id)
    made = small()
    made.pause()
    made.checkpoint()
    first = made.chains[made.own][3][0].decode()
    back = [[made.own, 3, sha3(b"colonist:event:1\n" + first.encode())]]
    data = swapped(made, back)
    for step in STEPS:
        assert "went back" in problem(data, made.server_id, step=step)


def swapped(made: Colony, back: list[list[object]]) -> bytes:
    """The first checkpoint names the last event of the chain, the second one an earlier."""
    later = heads(made)
    del made.checkpoints[1:]
    resigned(made, heads=later)
    made.prev = sha3(b"colonist:checkpoint:1\n" + made.checkpoints[0][0])
    made._sign([tuple(head) for head in back])  # type: ignore[misc]
    return made.export()


def test_a_head_may_be_stated_again() -> None:
    made = small()
    made.stated.clear()
    assert verdict(made) == ""


def test_what_is_old_and_under_no_checkpoint_is_named() -> None:
    made = small()
    made.submit()
    made.time += 70_000
    made.pause()
    made._sign([(made.own, *made.heads[made.own])])
    assert "under none" in problem(made.export(), made.server_id)


# Forgotten history.


def forgotten(*, k: int) -> tuple[bytes, str]:
    """The first checkpoint is gone, and so are the first events of the colony's chain."""
    made = small()
    made.event(made.own, "history_forgotten", None, k)
    made.stated.clear()
    made.checkpoint()
    made.submit()
    made.checkpoint()
    del made.checkpoints[0]
    del made.chains[made.own][:2]
    return made.export(), made.server_id


@pytest.mark.parametrize("step", STEPS)
def test_forgotten_history_is_sound_and_said(step: int) -> None:
    data, pin = forgotten(k=1)
    _, unknown, _ = examine(data, pin, step=step)
    assert "does not begin with its founding" in unknown


def test_the_end_of_a_removed_process_may_outlive_the_checkpoint_that_named_it() -> None:
    made = small()
    process, _ = lone(made)
    del made.chains[process.chain][:-1]
    last = len(made.checkpoints)
    made.time += 100_000
    made.event(made.own, "history_forgotten", None, last)
    made.stated = {process.chain: made.heads[process.chain]}
    made.checkpoint()
    del made.checkpoints[:last]
    assert check(made.export(), made.server_id).unproven == 1


def test_a_change_of_members_without_its_request_leaves_members_unknown() -> None:
    made = small()
    line, _ = made.chains[made.own][1]
    made.chains[made.own][1] = line, b""
    tally, unknown, _ = examine(made.export(), made.server_id)
    assert "event 1 of the colony's chain" in unknown
    assert tally.unread == 1


# Removed processes.


def lone(made: Colony) -> tuple[Process, list[bytes]]:
    process = process_of(made)
    made.event(process.chain, "waited_out", None, 1)
    made.checkpoint()
    made.event(process.chain, "removed", None, 1)
    made.checkpoint()
    return process, [line for line, _ in made.chains[process.chain]]


def test_of_a_removed_process_the_last_event_is_enough() -> None:
    made = small()
    process, _ = lone(made)
    assert check(made.export(), made.server_id).removed == 1
    del made.chains[process.chain][:-1]
    for step in STEPS:
        tally = check(made.export(), made.server_id, step=step)
        assert tally.removed == 1


def test_a_removal_must_follow_what_checkpoints_named() -> None:
    made = small()
    process = process_of(made)
    made.event(process.chain, "waited_out", None, 1)
    made.checkpoint()
    n, _ = made.heads[process.chain]
    made.heads[process.chain] = n, sha3(b"another past")
    made.event(process.chain, "removed", None, 1)
    del made.chains[process.chain][:-1]
    assert "not the one that it was made after" in verdict(made)


def test_nothing_follows_a_removal() -> None:
    made = small()
    process, _ = lone(made)
    made.event(process.chain, "requeued", None, 1)
    assert "follows a removal" in verdict(made)


def test_a_chain_that_is_missing_before_a_removed_one_is_named() -> None:
    made = small()
    made.submit_workflow(4)
    made.checkpoint()
    chains = sorted(made.chains)
    last = next(process for process in made.processes if process.chain == chains[-1])
    made.forget(last, by_server=True)
    made.checkpoint()
    del made.chains[chains[-2]]
    assert "is not in the file" in problem(made.export(), made.server_id)


# Events.


def line_of(made: Colony, **changes: object) -> bytes:
    """The process's last event says something else, its hash is right, and so is the checkpoint."""
    chain = process_of(made).chain
    line, request = made.chains[chain].pop()
    changed = compact(json.loads(line) | changes)
    made.chains[chain].append((changed, request))
    hash = sha3(b"colonist:event:1\n" + changed)
    found = [[c, n, hash] if c == chain else [c, n, h] for c, n, h in heads(made)]
    return resigned(made, heads=found)


EVENTS: list[tuple[dict[str, object], str]] = [
    ({"v": 2}, "beside no event"),
    ({"n": 3}, "event 3 follows 0"),
    ({"n": -1}, "no event of version 1"),
    ({"attempt": -1}, "no event of version 1"),
    ({"time": -1}, "no event of version 1"),
    ({"what": ""}, "no event of version 1"),
    ({"who": ""}, "go together"),
    ({"req": ""}, "go together"),
    ({"sig": ""}, "go together"),
    ({"prev": "0" * 64}, "not the one that it was made after"),
    ({"req": "x" * 64}, "req is no digest"),
    ({"sig": "0" * 130}, "fits no key"),
    ({"sig": "A" * 130}, "not 130 lower-case hex"),
    ({"sig": "0" * 129}, "not 130 lower-case hex"),
    ({"chain": "f" * 64}, "is none of the colony"),
    ({"chain": "F" * 64}, "no event of version 1"),
    ({"who": "0" * 64}, "signed by"),
]


@pytest.mark.parametrize("name", ["n", "attempt", "time", "v"])
@pytest.mark.parametrize("value", [-1, 2**63, 2**64, 2**80])
def test_a_number_out_of_bounds_is_no_fault_of_ours(name: str, value: int) -> None:
    """In the chain of the colony, which is read before all others."""
    made = small()
    for place in (0, -1):
        line, request = made.chains[made.own][place]
        made.chains[made.own][place] = compact(json.loads(line) | {name: value}), request
        assert problem(made.export(), made.server_id)


def test_a_tag_that_is_none_is_no_fault_of_ours() -> None:
    made = small()
    data = made.export().replace(made.tag.encode(), b"zzzzzzzz")
    assert "is none of the colony" in problem(data, made.server_id)
    lines = [line for line in data.splitlines()[:-1] if b'"k":1' not in line]
    assert "no event" in problem(finished(lines), made.server_id)


@pytest.mark.parametrize(("changes", "text"), EVENTS)
def test_an_event_that_the_server_should_not_have_written(
    changes: dict[str, object], text: str
) -> None:
    made = small()
    found = problem(line_of(made, **changes), made.server_id)
    assert text in found or (changes == {"v": 2} and "no line of an audit file" in found)


def at(lines: list[bytes], start: bytes) -> int:
    return next(number for number, line in enumerate(lines) if line.startswith(start))


def request_twice(lines: list[bytes]) -> None:
    place = at(lines, b'{"of":"event"')
    lines.insert(place, lines[place])


def another_request(lines: list[bytes]) -> None:
    place = at(lines, b'{"of":"event"')
    lines[place] = lines[place + 2]


def other_kind_of_request(lines: list[bytes]) -> None:
    lines[-1] = lines[-1].replace(b'"event"', b'"other"')


def no_signature(lines: list[bytes]) -> None:
    del lines[at(lines, b'{"of":"checkpoint"')]


def other_signature(lines: list[bytes]) -> None:
    place = at(lines, b'{"of":"checkpoint"')
    lines[place] = lines[place].replace(b'"k":1', b'"k":2')


def garbage(lines: list[bytes]) -> None:
    lines.insert(at(lines, b'{"of":"event"'), b"\xff\x00")


def spaces(lines: list[bytes]) -> None:
    place = at(lines, b'{"of":"event"')
    lines[place] = lines[place].replace(b":", b": ", 1)


def first_prev(lines: list[bytes]) -> None:
    place = at(lines, b'{"v":1,"chain":')
    lines[place] = lines[place].replace(b'"prev":""', b'"prev":"%b"' % (b"0" * 64))


def not_text(lines: list[bytes]) -> None:
    lines[1] = b"\xff"


def broken_first_checkpoint(lines: list[bytes]) -> None:
    lines[1] = lines[1][:30]


def no_beginning(lines: list[bytes]) -> None:
    place = at(lines, b'{"v":1,"chain":')
    del lines[place : place + 2]


def no_end(lines: list[bytes]) -> None:
    del lines[-2:]


def no_chains(lines: list[bytes]) -> None:
    del lines[at(lines, b'{"v":1,"chain":') :]


def chains_turned(lines: list[bytes]) -> None:
    place = at(lines, b'{"v":1,"chain":')
    lines[place:] = lines[-4:] + lines[place:-4]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (request_twice, "beside no event"),
        (another_request, "not the request that was signed"),
        (other_kind_of_request, "beside no event"),
        (no_signature, "signature of checkpoint 1 is missing"),
        (other_signature, "no signature of checkpoint 1"),
        (garbage, "no line of an audit file"),
        (spaces, "not spelled as it was signed"),
        (first_prev, "cannot have one before it"),
        (not_text, "no checkpoint"),
        (broken_first_checkpoint, "no checkpoint"),
        (no_beginning, "begins with event 1"),
        (no_end, "is not in the file"),
        (no_chains, "is not in the file"),
        (chains_turned, "is not in the file"),
    ],
)
def test_lines_that_are_missing_or_in_the_wrong_place(
    change: Callable[[list[bytes]], None], text: str
) -> None:
    made = small()
    lines = made.lines()
    change(lines)
    data = finished(lines)
    for step in STEPS:
        assert text in problem(data, made.server_id, step=step)


def test_chains_under_no_checkpoint_are_in_order_too() -> None:
    made = small()
    for _ in range(2):
        made.submit()
    lines = made.lines()
    first, second = (at(lines, b'{"v":1,"chain":"' + p.chain.encode()) for p in made.processes[1:])
    lines[first : first + 2], lines[second : second + 2] = (
        lines[second : second + 2],
        lines[first : first + 2],
    )
    found = problem(finished(lines), made.server_id)
    assert "order of their ids" in found or "is not in the file" in found


def test_checkpoints_of_another_history() -> None:
    made = small()
    for _ in range(2):
        made.submit()
        made.checkpoint()
    pins = made.server_id
    gap = made.lines()
    del gap[3:5]
    assert "checkpoint 3 follows 1" in problem(finished(gap), pins)
    assert "was not made after" in problem(resigned(made, prev="0" * 64), pins)


def test_a_removal_names_the_event_before() -> None:
    made = small()
    process = process_of(made)
    line = {"v": 1, "chain": process.chain, "n": 7, "what": "removed", "who": "", "attempt": 0}
    line |= {"time": made.time, "req": "", "sig": "", "prev": ""}
    made.chains[process.chain] = [(compact(line), b"")]
    assert "names none before it" in problem(made.export(), made.server_id)


def test_a_stretch_after_what_is_no_event() -> None:
    with pytest.raises(AuditError, match="no event"):
        first_key(b"{}")
    line = small().chains[small().own][0][0]
    with pytest.raises(AuditError, match="no event"):
        first_key(line.replace(b'"chain":"4', b'"chain":"x'))


def test_who_left_and_came_back_is_a_member_again() -> None:
    made = small()
    member = made.members[0]
    for _ in range(2):
        made.remove(member)
        for _ in range(3):
            made.pause()
            made.checkpoint()
        named = {"userid": member.key.id, "name": member.name, "colonyname": made.name}
        message = {"msgtype": "addusermsg", "user": named}
        made.event(made.own, "user_added", made.request(made.owner, message))
        made.members.insert(0, member)
        made.checkpoint()
    spec = {"conditions": {"colonyname": made.name}}
    message = {"msgtype": "submitfuncspecmsg", "spec": spec}
    made.event(made.new_id(), "submitted", made.request(member.key, message))
    assert verdict(made) == ""


def test_a_request_of_the_server_itself_is_none() -> None:
    made = small()
    process = process_of(made)
    made.event(process.chain, "waited_out")
    line, _ = made.chains[process.chain][-1]
    made.chains[process.chain][-1] = line, made.chains[process.chain][0][1]
    assert "what the server did by itself" in verdict(made)


@pytest.mark.parametrize(
    ("payload", "seal", "text"),
    [
        ("eyJ9", "", "cannot be read"),
        ("!", "", "cannot be read"),
        (b64encode(b"{}").decode(), "", "does not cause"),
        ("", b64encode(b"{}").decode(), "seal of the request is none"),
        ("", "x\ny", "not the request that was signed"),
    ],
)
def test_a_request_that_makes_no_sense(payload: str, seal: str, text: str) -> None:
    made = small()
    process = process_of(made)
    message = {"msgtype": "cancelprocessmsg", "processid": process.chain}
    payload = payload or b64encode(compact(message)).decode()
    parts = ("colonist:req:1", payload, seal) if seal else (payload,)
    signed = "\n".join(parts).encode()
    who = made.members[0].key
    request = made.request(who, message)
    request.req, request.sig = sha3(signed), who.sign(signed)
    request.line = compact({"of": "event", "payload": payload, "seal": seal})
    made.event(process.chain, "cancelled", request, 1)
    assert text in verdict(made)


# The first line, the last one, and lines too long.


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", "no header"),
        (b"{}", "no header"),
        (b'{"colonist":"backup","v":1,"colony":"c","server":"","via":[],"made":1}', "version 1"),
        (b'{"colonist":"audit","v":2,"colony":"c","server":"","via":[],"made":1}', "version 1"),
        (b'{"colonist":"audit","v":1,"colony":"c","server":"","via":[],"made":-1}', "before 1970"),
    ],
)
def test_a_file_of_another_kind(line: bytes, text: str) -> None:
    with pytest.raises(AuditError, match=text):
        read_header(line)


def test_a_header_whose_server_is_no_id() -> None:
    line = b'{"colonist":"audit","v":1,"colony":"c","server":"x","via":[],"made":1}'
    assert "are no ids" in problem(finished([line]), "x")
    assert "cut off" in problem(line, "x")
    assert "no header" in problem(b"\n", "x")


def test_the_last_line_is_held_against_the_file() -> None:
    made = small()
    body = b"".join(line + b"\n" for line in made.lines())
    end = json.loads(made.export().splitlines()[-1])
    for changes, text in (
        ({"end": False}, "not as it was written"),
        ({"hash": "0" * 64}, "not as it was written"),
        ({"chains": 9}, "says 9 chains; there are 2"),
        ({"events": 9}, "says 9 events"),
        ({"checkpoints": 9}, "says 9 checkpoints"),
    ):
        data = body + compact(end | changes) + b"\n"
        assert text in problem(data, made.server_id)
    assert "without its last line" in problem(body, made.server_id)
    assert "middle of a line" in problem(body + compact(end), made.server_id)
    assert "no line of an audit file" in problem(body + b'{"end":1}\n', made.server_id)
    twice = body + compact(end) + b"\n" + compact(end) + b"\n"
    assert "no line of an audit file" in problem(twice, made.server_id)


def test_a_line_without_an_end_is_not_read_to_its_end() -> None:
    made = small()
    lines = made.lines()
    longest = 2_000
    for place in (1, at(lines, b'{"v":1,"chain":')):
        changed = [*lines[:place], b"x" * 100_000, *lines[place:]]
        source = Memory(finished(changed), longest)
        outlined = layout.outline(source)
        found = list(
            layout.stretches(source, 0, outlined.end_at, begin=b'{"v":1,"chain":', step=300)
        )
        assert found[-1].end < 60_000


def test_a_file_that_ends_after_its_checkpoints() -> None:
    made = small()
    body = b"".join(line + b"\n" for line in made.lines()[:3])
    assert "without its last line" in problem(body, made.server_id)


def test_a_pin_does_not_vouch_for_earlier_keys() -> None:
    made = small()
    made.rotate_server_key()
    servers = Servers(read_header(made.lines()[0]), made.server_id)
    assert [servers.vouches(place) for place in (0, 1)] == [False, True]


def test_a_line_too_long_is_named() -> None:
    made = small()
    data = finished([*made.lines(), b"x" * (MAX_LINE_BYTES + 1)])
    assert "is longer than" in problem(data, made.server_id)
    assert "is longer than" in problem(finished([b"x" * (MAX_LINE_BYTES + 1)]), "")
    lines = made.lines()
    lines.insert(2, b"x" * (MAX_LINE_BYTES + 1))
    assert "is longer than" in problem(finished(lines), made.server_id)


def test_the_place_is_named_line_and_byte() -> None:
    made = small()
    data = made.export()
    lines = data.splitlines(keepends=True)
    place = at(lines, b'{"v":1,"chain":') + 6
    offset = sum(map(len, lines[:place]))
    lines[place] = lines[place].replace(b'"attempt":0', b'"attempt":1')
    source = Memory(b"".join(lines))
    with pytest.raises(FaultError) as caught:
        check(source.data, made.server_id)
    fault = caught.value.fault
    assert (fault.offset, fault.chain, fault.n) == (offset, made.own, 3)
    assert layout.line_of(source, offset) == place + 1
    assert str(Fault("x", offset, 3, "c", 1)) == f"line 3, byte {offset}, chain c, event 1: x"
    assert str(Fault("x", offset, 3)) == f"line 3, byte {offset}: x"
    assert str(Fault("x", -1)) == "x"


def test_what_receipts_name_is_found() -> None:
    made = small()
    process, _ = lone(made)
    hash, there = made.heads[made.own][1], process_of(made).chain
    wanted = (hash, process.chain, there, "0" * 64)
    _, _, seen = examine(made.export(), made.server_id, wanted=wanted)
    assert seen == {hash, process.chain, kept(there)}
