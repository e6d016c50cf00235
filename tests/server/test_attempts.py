"""Attempts: shown to whom they were granted to, named by tokens, and taken at their word once."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from colonist_protocol.executor import ChangeExecutorId, RejectExecutor, RemoveExecutor
from colonist_protocol.log import AddLog, GetLogs
from colonist_protocol.process import (
    AssignProcess,
    CancelProcess,
    CloseSuccessful,
    GetProcess,
    GetProcesses,
    ReleaseProcess,
    RemoveProcess,
    Renew,
    SetOutput,
    State,
)
from colonist_protocol.tokens import read_attempt
from tests.server import shapes
from tests.server.people import WHO, attribute_of, out_of, world
from tests.support import attempts, sealing
from tests.support.attempts import CONFLICT, INVALID, OVER, Held, ask, held, success_of, take
from tests.support.clock import virtual
from tests.support.rooms import COLONY, COLONY_OWNER, key

DAY_S = 86_400


# -- who is shown what


@virtual
async def test_an_attempt_is_shown_in_sealed_replies_to_its_executor_alone() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=60)).processid
        mine = await take(made, "ada")
        assert mine.lease == pytest.approx(60, abs=0.01)
        assert read_attempt(mine.token) is not None
        read = GetProcess(processid=id)
        listed = GetProcesses(colonyname=COLONY, count=9, state=1, executorid=key("ada").id)
        shown = await ask(made, read, "ada")
        assert shapes.ATTEMPT(shown["attempt"])
        assert shown["attempt"]["token"] == mine.token
        [shown] = await ask(made, listed, "ada")
        assert shown["attempt"]["token"] == mine.token
        for who in ("ben", "uma"):
            assert "attempt" not in await ask(made, read, who)
            assert all("attempt" not in each for each in await ask(made, listed, who))
        for who in ("ada", "ben"):
            assert "attempt" not in await made.call(read, key(who))
            assert all("attempt" not in each for each in await made.call(listed, key(who)))
        unfiltered = GetProcesses(colonyname=COLONY, count=9, state=1)
        assert all("attempt" not in each for each in await ask(made, unfiltered, "ada"))


@virtual
async def test_a_plain_assign_is_granted_no_token() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma")
        shown = await made.call(AssignProcess(colonyname=COLONY, timeout=1), key("ada"))
        assert "attempt" not in shown
        assert "attempt" not in await ask(made, GetProcess(processid=shown["processid"]), "ada")


@virtual
async def test_without_a_limit_there_is_no_lease() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma")
        assert (await take(made, "ada")).lease is None


@virtual
async def test_a_lost_reply_is_told_again_and_the_lease_runs_on() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=60)
        sent = sealing.of_now(
            made.dispatch, AssignProcess(colonyname=COLONY, timeout=5), key("ada")
        )
        first = held(made, "ada", await attempts.told(made, sent))
        await asyncio.sleep(20)
        again = held(made, "ada", await attempts.told(made, sent))
        assert (again.token, again.number) == (first.token, first.number)
        assert again.lease == pytest.approx(40, abs=0.1)
        assert await first.succeed() == "counted"
        assert "attempt" not in await attempts.told(made, sent)


@virtual
async def test_an_old_assign_does_not_show_the_attempt_of_a_newer_one() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=9)
        sent = sealing.of_now(
            made.dispatch, AssignProcess(colonyname=COLONY, timeout=5), key("ada")
        )
        await attempts.told(made, sent)
        await asyncio.sleep(11)
        newer = await take(made, "ada")
        assert newer.number == 2
        shown = await attempts.told(made, sent)
        assert shown["state"] == State.RUNNING
        assert "attempt" not in shown


@virtual
async def test_lost_grants_are_found_under_a_former_id_too() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma")
        mine = await take(made, "ada")
        await made.call(ChangeExecutorId(colonyname=COLONY, executorid=key("new").id), key("ada"))
        for id in (key("ada").id, key("new").id):
            message = GetProcesses(colonyname=COLONY, count=9, state=1, executorid=id)
            [shown] = await ask(made, message, "new")
            assert shown["attempt"]["token"] == mine.token
        later = mine._replace(identity=key("new"))
        assert await later.succeed() == "counted"


# -- who may speak of it


@virtual
async def test_a_token_is_no_credential() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma")
        mine = await take(made, "ada")
        stolen = mine._replace(identity=key("ben"))
        for message in (mine.success(), Renew(processid=mine.process)):
            assert await stolen.say(message) == INVALID
        for who in ("uma", "pat", "rex", "stranger", "eve"):
            identity = WHO.get(who, key(who))
            sealed = mine._replace(identity=identity).sealed(mine.success())
            assert (await made.dispatch.answer(sealed.body)).status == 403
        assert (await made.read(mine.process)).state == State.RUNNING


@virtual
async def test_a_token_is_for_one_process() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma")
        await made.submit("uma")
        one, other = await take(made, "ada"), await take(made, "ada")
        assert await one.say(other.success()) == INVALID
        number, nonce, mac = one.token.split(".")
        for forged in (
            f"{int(number) + 1}.{nonce}.{mac}",
            f"{number}.{nonce[::-1]}.{mac}",
            f"{number}.{nonce}.{'0' * 32}",
        ):
            assert await one._replace(token=forged).succeed() == INVALID


@virtual
async def test_a_sealed_attempt_takes_sealed_requests_only() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma")
        mine = await take(made, "ada")
        for message in (
            mine.success(),
            mine.failure(),
            attribute_of(mine.process),
            AddLog(processid=mine.process, message="m"),
            SetOutput(processid=mine.process, out=msgspec.Raw(b"[1]")),
            ReleaseProcess(processid=mine.process),
        ):
            assert (await made.refuse(message, key("ada"))).failure.code == "plain_refused"
        assert (await made.read(mine.process)).state == State.RUNNING


@virtual
async def test_a_renewal_is_sealed() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        refused = await made.refuse(Renew(processid=made.running), key("ada"))
        assert refused.failure.code == "plain_refused"


@virtual
async def test_a_plain_attempt_is_closed_as_ever() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        assert await made.call(success_of(id), key("ada")) == {}


@pytest.mark.parametrize("how", [RemoveExecutor, RejectExecutor])
@virtual
async def test_who_was_removed_or_rejected_never_counts(how: type[RemoveExecutor]) -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=60, overlap="never", maxretries=9)
        mine = await take(made, "ada")
        await made.call(how(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        for _ in range(2):
            for say in (mine.succeed, mine.fail, mine.renew, mine.log, mine.release):
                assert await say() == "access_denied"
            await asyncio.sleep(70)
        assert (await made.get("ben", mine.process)).state == State.WAITING


# -- results


@virtual
async def test_a_result_is_answered_alike_for_ever() -> None:
    async with world(stale_s=30 * DAY_S) as made:
        await made.populate()
        await made.submit("uma")
        mine = await take(made, "ada")
        sent = mine.sealed(mine.success("mine"))
        answers = await asyncio.gather(*(attempts.told(made, sent) for _ in range(5)))
        await asyncio.sleep(9 * DAY_S)
        answers.append(await attempts.told(made, sent))
        assert answers == [{"outcome": "counted"}] * 6
        assert await mine.succeed("mine") == "counted"  # numbered anew, it is the same result
        assert await mine.succeed("another") == CONFLICT
        assert await mine.fail() == CONFLICT
        assert out_of(await made.read(mine.process)) == ["mine"]


@virtual
async def test_a_late_success_counts_while_the_process_waits() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=9)
        late = await take(made, "ada")
        await late.log()
        await asyncio.sleep(11)
        assert (await made.read(late.process)).state == State.WAITING
        assert await late.succeed() == "counted"
        shown = await made.read(late.process)
        assert (shown.state, shown.assignedexecutorid) == (State.SUCCESS, key("ada").id)
        assert made.colony.waiting == 0
        assert await late.succeed() == "counted"


@virtual
async def test_a_late_success_ends_the_work_of_another() -> None:
    """COLONIES-RPC W17."""
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=9)
        late = await take(made, "ada")
        await asyncio.sleep(11)
        other = await take(made, "ben")
        assert await late.succeed("late") == "counted"
        assert await other.log() == OVER
        assert await other.renew() == OVER
        assert await other.put("x") == OVER
        assert await other.note("x") == OVER
        assert await other.release() == {}
        assert (await ask(made, GetProcess(processid=late.process), "ben"))["state"] == 2
        assert await other.succeed("other") == "recorded"
        assert await other.succeed("other") == "recorded"
        assert await other.succeed("third") == CONFLICT
        shown = await made.read(late.process)
        assert (out_of(shown), shown.assignedexecutorid) == (["late"], key("ada").id)


@virtual
async def test_where_the_spec_rejects_it_a_late_success_is_evidence() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=9, lateresult="reject")
        late = await take(made, "ada")
        await asyncio.sleep(11)
        other = await take(made, "ben")
        assert await late.succeed("late") == "recorded"
        assert (await made.read(late.process)).state == State.RUNNING
        assert await other.succeed("other") == "counted"
        assert await late.succeed("late") == "recorded"
        assert await late.fail() == CONFLICT
        assert out_of(await made.read(late.process)) == ["other"]


@virtual
async def test_a_failure_counts_from_the_newest_attempt_only() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=9)
        late = await take(made, "ada")
        await asyncio.sleep(11)
        other = await take(made, "ben")
        assert await late.fail() == "recorded"
        assert await late.succeed() == CONFLICT
        await asyncio.sleep(11)
        assert (await made.read(late.process)).state == State.WAITING
        assert await other.fail("mine") == "counted"
        shown = await made.read(late.process)
        assert (shown.state, shown.errors) == (State.FAILED, ["mine"])


@virtual
async def test_of_many_results_one_is_effective_and_each_has_its_answer() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=-1)
        all: list[Held] = []
        for number in range(6):
            all.append(await take(made, "ada" if number % 2 else "ben"))
            await asyncio.sleep(11)
        sent = [(each, each.sealed(each.success(str(each.number)))) for each in all]
        answers = await asyncio.gather(*(attempts.told(made, seal) for _, seal in sent))
        outcomes = [attempts.outcome(answer) for answer in answers]
        assert sorted(outcomes) == ["counted", *["recorded"] * 5]
        winner = all[outcomes.index("counted")]
        assert out_of(await made.read(winner.process)) == [str(winner.number)]
        again = [attempts.outcome(await attempts.told(made, seal)) for _, seal in sent]
        assert again == outcomes


@virtual
async def test_the_result_of_a_removed_process_is_recorded() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=9)
        late = await take(made, "ada")
        await asyncio.sleep(11)
        await made.call(RemoveProcess(processid=late.process), key("uma"))
        assert await late.succeed() == "recorded"
        assert await late.succeed() == "recorded"
        assert await late.fail() == CONFLICT


@virtual
async def test_an_attempt_of_which_nothing_is_known_is_recorded_if_its_token_is_good() -> None:
    """A restore forgot the process, or the attempt."""
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        keys = made.rooms.server_keys.current
        unknown = id[:24] + "0" * 16 + id[40:]
        mine = await take(made, "ada")
        token = keys.attempt_token(unknown, key("ada").id, 3, "ab" * 8)
        gone = mine._replace(process=unknown, token=token)
        assert await gone.succeed() == "recorded"
        assert await gone.succeed() == "recorded"
        assert await gone.succeed("another") == CONFLICT
        assert await gone.log() == OVER
        assert await gone.release() == {}
        for number in (1, 7):
            token = keys.attempt_token(id, key("ada").id, number, "ab" * 8)
            forgotten = mine._replace(token=token)
            assert await forgotten.renew() == OVER
            assert await forgotten.fail(str(number)) == "recorded"
        assert (
            await forgotten._replace(
                token=keys.attempt_token(id, key("ada").id, 9, "cd" * 8)
            ).succeed("old")
            == "counted"
        )
        assert await mine.succeed() == "recorded"
        assert out_of(await made.read(id)) == ["old"]


# -- while it runs


@virtual
async def test_the_output_of_the_highest_number_stands() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=9)
        mine = await take(made, "ada")
        for seq, out in ((3, "c"), (1, "a"), (3, "d"), (2, "b")):
            assert await mine.put(out, seq) == {}
        assert out_of(await made.read(mine.process)) == ["c"]
        await asyncio.sleep(11)
        other = await take(made, "ben")
        assert await mine.put("d", 9) == OVER
        assert await other.put("mine", 1) == {}
        assert out_of(await made.read(mine.process)) == ["mine"]
        silent = CloseSuccessful(processid=mine.process)
        assert await other.say(silent) == {"outcome": "counted"}
        assert out_of(await made.read(mine.process)) == ["mine"]


@virtual
async def test_the_attribute_of_the_highest_number_stands() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=9)
        mine = await take(made, "ada")
        shown = [(await mine.note(value, seq))["value"] for seq, value in ((2, "b"), (1, "a"))]
        shown.append((await mine.note("x", 2))["value"])
        shown.append((await mine.note("c", 3))["value"])
        assert shown == ["b", "b", "b", "c"]
        await asyncio.sleep(11)
        other = await take(made, "ben")
        assert (await other.note("d", 1))["value"] == "d"
        assert await mine.note("e", 9) == OVER
        assert [each.value for each in (await made.read(mine.process)).attributes] == ["d"]


@virtual
async def test_a_line_is_put_once_for_each_number() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma")
        mine = await take(made, "ada")
        lines = [AddLog(processid=mine.process, message=str(seq)) for seq in (1, 2)]
        sent = [mine.sealed(line, seq) for seq, line in enumerate(lines, 1)]
        for _ in range(2):
            assert (
                await asyncio.gather(*(attempts.told(made, each) for each in (*sent, *sent)))
                == [{}] * 4
            )
        wanted = GetLogs(colonyname=COLONY, processid=mine.process, count=9)
        found = await made.call(wanted, key("uma"))
        assert sorted(each["message"] for each in found) == ["1", "2"]
        assert await mine.succeed() == "counted"
        assert await attempts.told(made, sent[0]) == OVER
        left = [item for item in await made.dump() if item.startswith(b"rl/")]
        assert left == []


@virtual
async def test_giving_back_twice_is_giving_back_once() -> None:
    """ADR 0009."""
    async with world() as made:
        await made.populate()
        await made.submit("uma")
        mine = await take(made, "ada")
        sent = mine.sealed(ReleaseProcess(processid=mine.process))
        assert await attempts.told(made, sent) == {}
        other = await take(made, "ben")
        assert await attempts.told(made, sent) == {}
        assert (await made.read(mine.process)).assignedexecutorid == key("ben").id
        assert await other.succeed() == "counted"


# -- leases


@virtual
async def test_a_renewal_prolongs_the_lease() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=0)
        mine = await take(made, "ada")
        await asyncio.sleep(8)
        shown = await mine.renew(1)
        assert shapes.ATTEMPT(shown)
        assert shown["lease"] == pytest.approx(12, abs=0.1)
        assert (await mine.renew())["lease"] == pytest.approx(12, abs=0.1)
        assert await mine.renew(2) == "invalid_value"
        await asyncio.sleep(11)
        first = await made.read(mine.process)
        assert first.state == State.RUNNING
        assert (await mine.renew(2))["lease"] == pytest.approx(11, abs=0.1)
        before, after = (each.execdeadline for each in (first, await made.read(mine.process)))
        assert after > before
        await asyncio.sleep(12)
        assert await mine.renew() == OVER
        assert (await made.read(mine.process)).state == State.FAILED


@virtual
async def test_a_negative_count_is_none() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10)
        assert await (await take(made, "ada")).renew(-1) == "invalid_value"


@virtual
async def test_where_no_two_may_run_the_server_waits_a_tenth_longer() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=9, overlap="never")
        mine = await take(made, "ada")
        assert mine.lease == pytest.approx(10, abs=0.01)
        await asyncio.sleep(10.9)
        assert (await made.read(mine.process)).state == State.RUNNING
        assert (await mine.renew())["lease"] == 0
        await asyncio.sleep(0.2)
        assert (await made.read(mine.process)).state == State.WAITING


@virtual
async def test_where_no_two_may_run_a_removed_executor_has_its_time() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=10, maxretries=9, overlap="never")).processid
        await take(made, "ben")
        await made.call(RemoveExecutor(colonyname=COLONY, executorname="ben"), COLONY_OWNER)
        assert (await made.read(id)).state == State.RUNNING
        await asyncio.sleep(11.1)
        assert (await made.read(id)).state == State.WAITING


@virtual
async def test_sixteen_in_a_row_that_never_started_fail_the_process() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=10, maxretries=0)).processid
        for number in range(16):
            shown = await made.read(id)
            assert (shown.state, shown.retries) == (State.WAITING, 0), number
            await take(made, "ada")
            await asyncio.sleep(11)
        shown = await made.read(id)
        assert (shown.state, shown.errors) == (State.FAILED, ["never started"])


@virtual
async def test_one_word_of_the_executor_ends_the_row() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma", maxexectime=10, maxretries=0)).processid
        for _ in range(15):
            await take(made, "ada")
            await asyncio.sleep(11)
        mine = await take(made, "ada")
        await mine.renew()
        await asyncio.sleep(11)
        shown = await made.read(id)
        assert (shown.state, shown.errors) == (
            State.FAILED,
            ["Maximum execution time limit exceeded"],
        )


# -- the evidence


@virtual
async def test_what_was_recorded_stands_in_the_chain() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma", maxexectime=10, maxretries=9)
        late = await take(made, "ada")
        await asyncio.sleep(11)
        other = await take(made, "ben")
        assert await late.fail() == "recorded"
        row = made.rooms.view.rows[bytes.fromhex(late.process)]
        assert row.live().events[-1].attempt == 1
        head = made.rooms.trail.head(made.colony.tag).count
        await made.call(CancelProcess(processid=late.process), key("uma"))
        assert await late.fail() == "recorded"
        assert made.rooms.trail.head(made.colony.tag).count == head
        assert await other.succeed() == "recorded"
        assert made.rooms.trail.head(made.colony.tag).count == head + 1


@virtual
async def test_the_reply_to_a_result_names_its_event() -> None:
    async with world() as made:
        await made.populate()
        await made.submit("uma")
        mine = await take(made, "ada")
        _, seal = await sealing.present(made.dispatch, mine.sealed(mine.success()))
        closed = await made.rooms.writes.read(b"z/" + bytes.fromhex(mine.process))
        assert closed is not None
        assert bytes.fromhex(seal.event) in closed.value
