"""A light load: keep-alive connections, each sending its next request when an answer is whole.

In: an endless iterator of raw HTTP/1.1 requests. Out: what a round of them measured. An answer of
another status than the expected one ends the round with `LoadError`.
"""

import asyncio
import json
from collections.abc import Iterator
from itertools import chain
from time import perf_counter
from typing import Any, NamedTuple

import httptools

OVERHANG = 30  # seconds after the round's end for the answers under way


class LoadError(Exception):
    """An answer that was not expected."""


class Round(NamedTuple):
    """What one side did in one round; times in seconds."""

    elapsed: float
    latencies: list[float]


def request(method: str, path: str, body: str = "", *, token: str = "") -> bytes:
    """Return a raw request."""
    headers = {"Host": "bench", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    content = body.encode()
    if method != "GET":
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


class _Client(asyncio.Protocol):
    """One connection: sends until the deadline, then completes `done`."""

    def __init__(self, requests: Iterator[bytes], status: int, deadline: float) -> None:
        self.requests, self.status, self.deadline = requests, status, deadline
        self.parser = httptools.HttpResponseParser(self)
        self.done = asyncio.get_running_loop().create_future()
        self.latencies: list[float] = []
        self.headers: dict[str, str] = {}
        self.body = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._send()

    def _send(self) -> None:
        self.body, following = b"", next(self.requests)
        self.sent = perf_counter()
        self.transport.write(following)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        now = perf_counter()
        self.latencies.append(now - self.sent)
        if self.parser.get_status_code() != self.status:
            self._end(LoadError(f"{self.parser.get_status_code()}: {self.body[:500].decode()}"))
        elif now < self.deadline:
            self._send()
        else:
            self._end()

    def _end(self, error: Exception | None = None) -> None:
        if not self.done.done():
            self.done.set_exception(error) if error else self.done.set_result(None)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or LoadError("the connection was closed before the answer"))


async def run(
    port: int, requests: Iterator[bytes], status: int, connections: int, seconds: float
) -> Round:
    """Send requests for some seconds and wait for the answers under way."""
    loop = asyncio.get_running_loop()
    started = perf_counter()
    clients = []
    for _ in range(connections):
        client = _Client(requests, status, started + seconds)
        clients.append(client)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    async with asyncio.timeout(seconds + OVERHANG):
        await asyncio.gather(*(client.done for client in clients))
    elapsed = perf_counter() - started
    return Round(elapsed, list(chain.from_iterable(client.latencies for client in clients)))


async def ask(port: int, raw: bytes, status: int) -> tuple[dict[str, str], Any]:
    """Send one request; return the answer's headers and its JSON."""
    client = _Client(iter([raw]), status, 0)
    await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
    async with asyncio.timeout(OVERHANG):
        await client.done
    return client.headers, json.loads(client.body or b"null")
