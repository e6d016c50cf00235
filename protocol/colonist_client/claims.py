"""Calls about claims, enrolment and what a colony takes."""

from __future__ import annotations

from colonist_client.caller import Caller
from colonist_protocol import claims, colony
from colonist_protocol.claims import AddClaim, Card, Claim, Enrolled
from colonist_protocol.colony import PlainRequests, Policy
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.executor import Executor

ANY_STATE = -1


class ClaimCalls(Caller):
    """How executors come to a colony that nobody has added by name."""

    async def add_claim(self, new: AddClaim) -> Claim:
        """Let executors enrol by a code; colony owner only."""
        return await self.write(new, Claim)

    async def claims(self, colony: str) -> list[Claim]:
        """List a colony's claims; colony owner only."""
        return await self.read_list(claims.GetClaims(colonyname=colony), Claim)

    async def remove_claim(self, colony: str, claim: str, *, executors: bool = False) -> None:
        """Let nobody enrol by it any more, or remove all who did too; colony owner only."""
        await self.order(claims.RemoveClaim(colonyname=colony, claim=claim, executors=executors))

    async def enrolled(
        self, colony: str, *, claim: str = "", state: int = ANY_STATE
    ) -> list[Enrolled]:
        """List executors that came by claims; colony owner only."""
        message = claims.GetEnrolled(colonyname=colony, claim=claim, state=state)
        return await self.read_list(message, Enrolled)

    async def enrol(self, card: Card, hw: str) -> Executor:
        """Become an executor by a card; this client must have pinned the card's server.

        Saying it again is no error, and shows the executor as it is now.
        """
        if self.identity is None or self.sealer is None:
            raise InvalidValueError("enrolment is sealed: this client has no key, or no pin")
        proof = claims.prove(
            card.code, server=card.server, colony=card.colony, executor=self.identity.id
        )
        message = claims.Enrol(
            colonyname=card.colony,
            claim=claims.claim_key(card.code).id,
            executorid=self.identity.id,
            hw=hw,
            proof=proof,
        )
        return await self.read(message, Executor)

    async def policy(self, name: str) -> Policy:
        """Read what a colony takes."""
        return await self.read(colony.GetPolicy(colonyname=name), Policy)

    async def set_policy(self, name: str, plain_requests: PlainRequests) -> Policy:
        """Settle what a colony takes; colony owner only."""
        message = colony.SetPolicy(colonyname=name, plainrequests=plain_requests)
        return await self.write(message, Policy)
