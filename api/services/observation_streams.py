"""Streams: who watches a query is told when its figures are others.

Every stream asks once a second whether the newest answer still holds; streams of the same query
share what has to be counted. No connection to the database is held meanwhile, and no worker needs
to hear of another: each sees what is committed.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

from api.auth.caller import Caller, Renewed
from api.errors import RateLimited, Refusal, Unavailable
from api.models.observations import ObservationQuery
from api.services.observation_answers import Answers, Seen

log = logging.getLogger("noidai")
BEAT: Final = 1.0
HEARTBEAT: Final = 15
"""Beats after which a silent stream says that it is alive."""
MOST_EACH: Final = 20
"""Streams that one principal has open in a worker."""
PATIENCE: Final = 10
"""Seconds after which whoever has too many may try again."""


class Streams:
    """The streams of a worker: a bounded number, in all and for each principal."""

    def __init__(self, most: int) -> None:
        """Have at most `most` streams open."""
        self._most = most
        self._open: Counter[UUID] = Counter()
        self.closing = asyncio.Event()
        """Set when the service stops: every stream ends, the next has one event."""

    @contextmanager
    def place(self, caller: Caller) -> Iterator[None]:
        """Count a stream; 429 beyond a principal's own, 503 when all places are taken."""
        if self._open[caller.id] >= MOST_EACH:
            raise RateLimited(PATIENCE)
        if self._open.total() >= self._most:
            raise Unavailable
        self._open[caller.id] += 1
        try:
            yield
        finally:
            self._open[caller.id] -= 1
            if not self._open[caller.id]:
                del self._open[caller.id]

    async def watch(
        self, answers: Answers, renewed: Renewed, query: ObservationQuery, last: str | None
    ) -> AsyncIterator[Seen | None]:
        """Give the answer's version whenever it is not `last`; `None` as a sign of life.

        Ends when the caller or the query is refused, or the service stops.
        """
        silent = 0
        try:
            yield None
            while True:
                seen = await answers.current(await renewed(), query)
                silent += 1
                if seen.version != last:
                    last, silent = seen.version, 0
                    yield seen
                elif silent >= HEARTBEAT:
                    silent = 0
                    yield None
                if self.closing.is_set():
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.closing.wait(), BEAT)
        except Refusal as refusal:
            log.info("a stream ended: %s", refusal.code)
