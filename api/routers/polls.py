"""Polls of totals, answered before anything else of a request is worked out.

What reads a query, its parameters and its caller costs more than to see that nothing has changed.
So a worker remembers which question a principal's request stood for when it was last answered.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth.caller import Caller
from api.routers.answers import PRIVATE

PATH: Final = "/v1/observations"
MOST_KNOWN: Final = 5_000
LONGEST: Final = 2_000
"""Bytes of a query that is remembered."""


class Poll(NamedTuple):
    """A request as it was sent: by whom, and all that its answer depends on."""

    principal_id: UUID
    session_id: UUID | None
    query: bytes
    accept: bytes


class Polls:
    """Answers 304 while an answer's ETag holds; everything else goes on as ever."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self.app = app
        self._known: dict[Poll, tuple[Caller, bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the request's headers, and at nothing else."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        state = scope["app"].state
        found = _find(scope, headers, state)
        if found is None:
            await self.app(scope, receive, send)
            return
        poll, caller = found
        known = self._known.get(poll)
        if known and known[0] is caller:
            tags = {part.strip() for part in headers[b"if-none-match"].decode("latin-1").split(",")}
            tag = await state.answers.holding(known[1], tags)
            if tag is not None:
                told = [(name.lower().encode(), text.encode()) for name, text in PRIVATE.items()]
                told.append((b"etag", tag.encode()))
                await send({"type": "http.response.start", "status": 304, "headers": told})
                await send({"type": "http.response.body", "body": b""})
                return
        await self.app(scope, receive, send)
        again = _find(scope, headers, state)
        key = scope["state"].get("answered")
        if key and again and again[1] is caller:  # the very one that was answered
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[poll] = caller, key


def _find(scope: Scope, headers: Mapping[bytes, bytes], state: Any) -> tuple[Poll, Caller] | None:
    """Return a poll and its caller, if both can be told from memory alone."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    query = scope["query_string"]
    if b"if-none-match" not in headers or scheme.lower() != "bearer" or len(query) > LONGEST:
        return None
    verified = state.tokens.remembered(token)
    if verified is None:
        return None
    caller = state.callers.remembered(verified.principal_id, verified.session_id)
    poll = Poll(verified.principal_id, verified.session_id, query, headers.get(b"accept", b""))
    return (poll, caller) if caller else None
