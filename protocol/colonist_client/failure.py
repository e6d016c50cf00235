"""What a server answers when it does not do what it was asked."""

from __future__ import annotations

from colonist_protocol.envelope import Failure
from colonist_protocol.errors import ColonistError


class ServerError(ColonistError):
    """The server refused: `status` as in HTTP, `code` stable, `message` for people.

    `code` is "" from a server that sends none. `retry_after_s` is 0 where it has no advice.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message or f"the server answered {failure.status}")
        self.status = failure.status  # type: ignore[misc]
        self.code = failure.code  # type: ignore[misc]
        self.message = str(self)
        self.retry_after_s = failure.retry_after_s

    @property
    def is_definite(self) -> bool:
        """Whether the same request would be refused again: not busy, not paused, not broken.

        Nor one that only needs another seal.
        """
        if self.code == "epoch_stale":
            return False
        return 400 <= self.status < 500 and self.status not in (408, 425, 429)  # noqa: PLR2004
