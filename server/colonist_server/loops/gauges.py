"""How large the store is: asked now and then, and told when it gets full."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from colonist_server.store.interface import StoreError
from colonist_server.store.sizes import Sizes, describe, share

log = logging.getLogger(__name__)

EVERY_S: Final = 10.0
FULL: Final = 0.8
"""Above this share of its quota the log says so."""
TIMEOUT_S: Final = 5.0


Measure = Callable[[], Awaitable[Sizes]]


class StoreGauge:
    """The sizes that were seen last."""

    __slots__ = ("_is_full", "_measure", "sizes")

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._is_full = False
        self.sizes: Sizes | None = None
        """None: not known, or not any more."""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Look once; a store that does not answer has no size."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                self.sizes = await self._measure()
        except (StoreError, OSError, TimeoutError):
            self.sizes = None
            return
        self._tell(self.sizes)

    def _tell(self, sizes: Sizes) -> None:
        was_full, self._is_full = self._is_full, share(sizes) >= FULL
        if self._is_full and not was_full:
            log.warning("the store is nearly full: %s", describe(sizes))

    def note(self) -> str:
        """How full a store with a quota is; "" for one without."""
        sizes = self.sizes
        return f"store: {describe(sizes)}" if sizes is not None and sizes.quota_bytes else ""

    def figures(self) -> dict[str, float]:
        """The same for `GET /metrics`."""
        sizes = self.sizes
        if sizes is None:
            return {}
        found: dict[str, float] = {
            "colonist_store_size_bytes": sizes.size_bytes,
            "colonist_store_size_in_use_bytes": sizes.in_use_bytes,
            "colonist_store_alarm": bool(sizes.alarms),
        }
        if sizes.quota_bytes:
            found["colonist_store_quota_bytes"] = sizes.quota_bytes
        return found
