"""Every rule against everybody."""

import pytest

from colonist_core.access import Access, Standing, check_server_owner, check_standing, stranger
from colonist_protocol.errors import AccessError
from colonist_protocol.executor import ExecutorState

NOBODY = Standing("home")
OWNER = Standing("home", is_colony_owner=True)
USER = Standing("home", is_user=True)
EXECUTOR = {state: Standing("home", executor_state=state) for state in ExecutorState}
OWNER_AND_USER = Standing("home", is_colony_owner=True, is_user=True)

EVERYBODY = [NOBODY, OWNER, USER, OWNER_AND_USER, *EXECUTOR.values()]

ALLOWED = {
    Access.ANYONE: EVERYBODY,
    Access.OBJECT: EVERYBODY,
    Access.SERVER_OWNER: [],
    Access.CLAIM: [],
    Access.COLONY_OWNER: [OWNER, OWNER_AND_USER],
    Access.MEMBER: [USER, OWNER_AND_USER, EXECUTOR[ExecutorState.APPROVED]],
    Access.NEWCOMER: [
        USER,
        OWNER_AND_USER,
        EXECUTOR[ExecutorState.APPROVED],
        EXECUTOR[ExecutorState.PENDING],
    ],
    Access.EXECUTOR: [EXECUTOR[ExecutorState.APPROVED]],
    Access.USER: [USER, OWNER_AND_USER],
}


@pytest.mark.parametrize("needed", Access)
@pytest.mark.parametrize("standing", EVERYBODY, ids=repr)
def test_each_rule_lets_pass_whom_it_names_and_nobody_else(needed, standing):
    if standing in ALLOWED[needed]:
        check_standing(needed, standing)
        return
    with pytest.raises(AccessError, match="Access denied"):
        check_standing(needed, standing)


@pytest.mark.parametrize("needed", [rule for rule in Access if ALLOWED[rule] != EVERYBODY])
def test_a_colony_that_is_not_there_and_a_foreign_one_are_refused_alike(needed):
    with pytest.raises(AccessError) as foreign:
        check_standing(needed, NOBODY)
    assert str(stranger(needed, "home")) == str(foreign.value)


def test_refusals_are_in_the_words_that_sdk_users_know():
    assert str(stranger(Access.COLONY_OWNER, "c")) == "Access denied, not colony owner"
    assert str(stranger(Access.SERVER_OWNER, "c")) == "Access denied, not server owner"
    assert str(stranger(Access.MEMBER, "c")) == (
        "Access denied, not a member of Colony with name <c>"
    )


def test_a_refusal_about_an_object_names_no_colony():
    assert str(stranger(Access.EXECUTOR, "")) == (
        "Access denied, not a member of any colony with such an object"
    )


def test_the_server_owner_is_one_id():
    check_server_owner("ab" * 32, "ab" * 32)
    with pytest.raises(AccessError, match="Access denied, not server owner"):
        check_server_owner("ab" * 32, "cd" * 32)
