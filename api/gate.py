"""The gate: nobody takes more than a share of the service.

Requests per principal (or, before sign-in, per network address) within a window, requests at once,
seconds for one, and how deep a JSON body may nest.
"""

import asyncio
import logging
import re
from typing import Any, Final

from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from redis.asyncio import ConnectionPool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import clock
from api.auth.addresses import network_of
from api.errors import FieldError, InvalidRequest, PayloadTooLarge, RateLimited, Unavailable
from api.requests import answer

log = logging.getLogger("noidai")
SENT: Final = (
    *("Accept-Language", "Authorization", "Content-Type", "Idempotency-Key"),
    *("If-Match", "If-None-Match"),
)
SHOWN: Final = (
    *("Content-Language", "ETag", "Idempotent-Replayed", "Link", "Location"),
    *("RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id"),
)
"""Headers that a page of another origin may send, and read, where CORS lets it in."""
UNCOUNTED: Final = ("/health/",)
"""What watches over the service is never refused."""


class Windows:
    """Counts requests in this worker's memory; the first one opens a window of some seconds."""

    def __init__(self, amount: int, seconds: int) -> None:
        """Let `amount` requests of each into a window."""
        self.amount, self.seconds = amount, seconds
        self._open: dict[str, tuple[float, int]] = {}
        self._swept = 0.0

    def take(self, who: str, now: float) -> tuple[int, float]:
        """Count a request; return how many are left, -1 when it is too much, and the end."""
        if now >= self._swept + self.seconds:
            self._open = {name: window for name, window in self._open.items() if now < window[0]}
            self._swept = now
        ends, left = self._open.get(who, (now, 0))
        if now >= ends:
            ends, left = now + self.seconds, self.amount
        left = max(left - 1, -1)
        self._open[who] = ends, left
        return left, ends


class Shares:
    """Counts requests: in this worker's memory, or in Redis (Valkey) for all workers together.

    Every answer tells the policy and what is left of it (draft-ietf-httpapi-ratelimit-headers).
    """

    def __init__(self, limit: str, url: str | None) -> None:
        """`limit` is e.g. `1000/minute`."""
        self.limit = parse(limit)
        amount, seconds = self.limit.amount, self.limit.get_expiry()
        self.policy = f'"default";q={amount};w={seconds}'
        self._windows = Windows(amount, seconds)
        self._pool = ConnectionPool.from_url(url) if url else None
        self._together = FixedWindowRateLimiter(_storage(url, self._pool)) if url else None

    async def close(self) -> None:
        """Leave no connection behind."""
        if self._pool is not None:
            await self._pool.aclose()

    async def take(self, who: str) -> tuple[int, dict[str, str]]:
        """Count a request; return the seconds to wait, if any, and the headers that tell.

        While Redis is away nobody is counted: to be open is better than to be down.
        """
        now = clock.now().timestamp()
        if self._together is None:
            left, ends = self._windows.take(who, now)
        else:
            try:
                within = await self._together.hit(self.limit, who)
                ends, left = await self._together.get_window_stats(self.limit, who)
            except StorageError:
                log.exception("requests cannot be counted")
                return 0, {}
            left = left if within else -1
        seconds = max(1, round(ends - now))
        told = f'"default";r={max(left, 0)};t={seconds}'
        return seconds if left < 0 else 0, {"ratelimit-policy": self.policy, "ratelimit": told}


def _storage(url: str, pool: Any) -> RedisStorage:
    return RedisStorage(
        f"async+{url}", wrap_exceptions=True, implementation="redispy", connection_pool=pool
    )


class Gate:
    """Lets a request through, or refuses it: 429 over the limit, 503 when all places are taken.

    A request that has not begun to be answered in time is given up (503).
    """

    def __init__(self, app: ASGIApp, shares: Shares, places: int, seconds: float) -> None:
        """Wrap `app`; `places` are requests at once, `seconds` those until an answer begins."""
        self.app, self.shares, self.places, self.seconds = app, shares, places, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count and bound the request."""
        if scope["type"] != "http" or scope["path"].startswith(UNCOUNTED):
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        wait, told = await self.shares.take(_who(request))

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.encode(), value.encode()) for name, value in told.items()]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        if wait:
            await answer(request, RateLimited(wait))(scope, receive, tell)
        elif self.places == 0:
            await answer(request, Unavailable())(scope, receive, tell)
        else:
            self.places -= 1
            try:
                await self._timed(scope, receive, tell)
            finally:
                self.places += 1

    async def _timed(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self.seconds) as timer:

                async def begin(message: Message) -> None:
                    if timer.expired():  # too late: it is being refused
                        return
                    timer.reschedule(None)  # what has begun may take its time: a stream
                    await send(message)

                await self.app(scope, receive, begin)
        except TimeoutError:
            if not timer.expired():
                raise
            await answer(Request(scope), Unavailable())(scope, receive, send)


def _who(request: Request) -> str:
    """Return whom a request is counted for: the principal of a known token, else the network."""
    _, _, token = request.headers.get("authorization", "").partition(" ")
    verified = request.app.state.tokens.remembered(token.strip()) if token else None
    if verified is not None:
        return str(verified.principal_id)
    return network_of(request.client.host if request.client else "")


class Limit:
    """Refuses bodies that are too large, before they are read as far as their length is told.

    JSON is read whole, and refused when it nests too deep.
    """

    def __init__(self, app: ASGIApp, largest: int, deepest: int) -> None:
        """Wrap `app`; `largest` is in bytes, `deepest` in levels."""
        self.app, self.largest, self.deepest = app, largest, deepest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 or 400, or let the body through as long as it keeps within."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        told = headers.get(b"content-length", b"")
        if told.isdigit() and int(told[:20]) > self.largest:
            await answer(Request(scope), PayloadTooLarge())(scope, receive, send)
            return
        if b"json" not in headers.get(b"content-type", b""):
            await self.app(scope, self._bounded(receive), send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.largest:
                await answer(Request(scope), PayloadTooLarge())(scope, receive, send)
                return
        if too_deep(bytes(body), self.deepest):
            fault = FieldError("", "json_too_deep", {"max_depth": self.deepest})
            await answer(Request(scope), InvalidRequest(fault))(scope, receive, send)
            return
        whole: Message = {"type": "http.request", "body": bytes(body), "more_body": False}
        pending = [whole]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self.app(scope, replay, send)

    def _bounded(self, receive: Receive) -> Receive:
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.largest:  # the framework lets only its own exception through here
                raise HTTPException(PayloadTooLarge.status)
            return message

        return bounded


_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_STRINGS = re.compile(rb'"[^"]*"')
_SQUARE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))


def too_deep(body: bytes, deepest: int) -> bool:
    """Tell whether JSON nests deeper than so many levels, before it is parsed.

    Innermost pairs are removed a level at a time; what is malformed is left to the parser.
    """
    if b"\\" in body:
        body = _ESCAPED.sub(b"", body)
    marks = body.translate(_SQUARE, _OTHERS).replace(b'""', b"")
    pairs = _STRINGS.sub(b"", marks)
    for _ in range(deepest):
        outer = pairs.replace(b"[]", b"")
        if outer == pairs:
            return False
        pairs = outer
    return bool(pairs)
