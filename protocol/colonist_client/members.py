"""Calls about users, executors and their functions: COLONIES-RPC sections 2.3 to 2.5."""

from __future__ import annotations

from colonist_client.caller import Caller
from colonist_protocol import executor, function, user
from colonist_protocol.executor import Executor
from colonist_protocol.function import Function
from colonist_protocol.user import User


class MemberCalls(Caller):
    """Who belongs to a colony, and what they can run."""

    async def add_user(self, new: User) -> User:
        """Add a user; colony owner only."""
        return await self.write(user.AddUser(user=new), User)

    async def users(self, colony: str) -> list[User]:
        """List a colony's users."""
        return await self.read_list(user.GetUsers(colonyname=colony), User)

    async def user(self, colony: str, name: str) -> User:
        """Read a user by name."""
        return await self.read(user.GetUser(colonyname=colony, name=name), User)

    async def user_by_id(self, colony: str, user_id: str) -> User:
        """Read a user by id."""
        return await self.read(user.GetUserById(colonyname=colony, userid=user_id), User)

    async def remove_user(self, colony: str, name: str) -> None:
        """Remove a user; colony owner only."""
        await self.order(user.RemoveUser(colonyname=colony, name=name))

    async def change_user_id(self, colony: str, new_id: str) -> None:
        """Give the calling user a new id, at once; by its old key."""
        await self.order(user.ChangeUserId(colonyname=colony, userid=new_id))

    async def add_executor(self, new: Executor) -> Executor:
        """Register an executor, which then waits for approval; colony owner only."""
        return await self.write(executor.AddExecutor(executor=new), Executor)

    async def executors(self, colony: str) -> list[Executor]:
        """List a colony's executors, removed ones too."""
        message = executor.GetExecutors(colonyname=colony)
        return await self.read_list(message, Executor)

    async def executor(self, colony: str, name: str) -> Executor:
        """Read an executor by name."""
        message = executor.GetExecutor(colonyname=colony, executorname=name)
        return await self.read(message, Executor)

    async def executor_by_id(self, colony: str, executor_id: str) -> Executor:
        """Read an executor by id."""
        message = executor.GetExecutorById(colonyname=colony, executorid=executor_id)
        return await self.read(message, Executor)

    async def approve_executor(self, colony: str, name: str) -> None:
        """Let an executor work; colony owner only."""
        await self.order(executor.ApproveExecutor(colonyname=colony, executorname=name))

    async def reject_executor(self, colony: str, name: str) -> None:
        """Keep an executor from work; colony owner only."""
        await self.order(executor.RejectExecutor(colonyname=colony, executorname=name))

    async def remove_executor(self, colony: str, name: str) -> None:
        """Unregister an executor; its running work goes back. Colony owner only."""
        await self.order(executor.RemoveExecutor(colonyname=colony, executorname=name))

    async def change_executor_id(self, colony: str, new_id: str) -> None:
        """Give the calling executor a new id, at once; by its old key. Its work stays its own."""
        await self.order(executor.ChangeExecutorId(colonyname=colony, executorid=new_id))

    async def add_function(self, new: Function) -> Function:
        """Announce a function; the executor itself only."""
        return await self.write(function.AddFunction(function=new), Function)

    async def functions(self, colony: str, *, executor: str = "") -> list[Function]:
        """List the functions of a colony, or of one of its executors."""
        message = function.GetFunctions(colonyname=colony, executorname=executor)
        return await self.read_list(message, Function)

    async def remove_function(self, function_id: str) -> None:
        """Withdraw a function; the executor itself only."""
        await self.order(function.RemoveFunction(functionid=function_id))
