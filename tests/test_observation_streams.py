"""Streams of data versions: real processes, several workers, real commits."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.test_cli import Served, noidai, sign_in

EVENT = {
    "service_type": "ID.ACTIVATE",
    "occurred_at": "2026-03-26T09:30:00+07:00",
    "outcome": "completed",
    "mode": "assisted",
    "channel": "household_visit",
}
QUERY = {"indicator": "events.count", "period": "2026-03"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two workers on a small demo."""
    data = tmp_path_factory.mktemp("streams")
    loaded = noidai(data, "demo", "--teams", "20", "--events", "100")
    assert loaded.returncode == 0, loaded.stderr
    served = Served(data, "--workers", "2")
    served.wait()
    yield served
    served.stop()


@asynccontextmanager
async def watching(
    served: Served, client: httpx.Client, last: str = "", **changes: str
) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    """Open a stream; yields its events as they come."""
    headers = {"Authorization": client.headers["Authorization"]}
    if last:
        headers["Last-Event-ID"] = last
    async with (
        httpx.AsyncClient(base_url=served.url, timeout=30, headers=headers) as reader,
        reader.stream("GET", "/v1/observations/stream", params=QUERY | changes) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield events_of(response)


async def events_of(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    told: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if name:
            told[name] = value
        elif told:
            yield told
            told = {}


async def following(events: AsyncIterator[dict[str, str]], seconds: float = 10) -> dict[str, str]:
    """Return the next event; an empty one when the stream has ended."""
    async with asyncio.timeout(seconds):
        return await anext(events, {})


def record(leader: httpx.Client) -> None:
    (team,) = leader.get("/v1/teams").json()["items"]
    made = leader.post("/v1/support-events", json=EVENT | {"team_id": team["id"]})
    assert made.status_code == 201


def version(officer: httpx.Client) -> Any:
    return officer.get("/v1/observations", params=QUERY).json()["meta"]


async def test_streams_of_all_workers_tell_when_the_version_moves(served: Served) -> None:
    with (
        sign_in(served, "demo.team_leader") as leader,
        sign_in(served, "demo.commune_admin") as officer,
    ):
        before = version(officer)
        async with (
            watching(served, officer) as a,
            watching(served, officer) as b,
            watching(served, officer) as c,
            watching(served, officer, before["data_version"]) as knowing,
        ):
            for events in (a, b, c):
                first = await following(events)
                assert (first["event"], first["id"]) == ("data_version", before["data_version"])
                assert json.loads(first["data"]) == {
                    "data_version": before["data_version"],
                    "computed_at": before["computed_at"],
                }
            record(leader)
            for events in (a, b, c, knowing):
                moved = await following(events)
                assert moved["id"] == version(officer)["data_version"] != before["data_version"]
        async with watching(served, officer, "of long ago") as late:
            assert (await following(late))["id"] == moved["id"]


async def test_a_stream_ends_with_the_session_and_with_the_grant(served: Served) -> None:
    with (
        sign_in(served, "demo.province_admin") as admin,
        sign_in(served, "demo.commune_admin") as officer,
    ):
        async with watching(served, officer) as events:
            await following(events)
            began = time.monotonic()
            assert officer.delete("/v1/sessions/current").status_code == 204
            assert await following(events, 5) == {}
            assert time.monotonic() - began < 5
        with sign_in(served, "demo.commune_admin") as again:
            grants = again.get("/v1/me").json()["grants"]
            async with watching(served, again) as events:
                await following(events)
                for grant in grants:
                    ended = admin.delete(
                        f"/v1/role-grants/{grant['id']}", headers={"If-Match": "*"}
                    )
                    assert ended.status_code == 204, ended.text
                assert await following(events, 5) == {}


def test_what_is_refused_is_refused_before_a_stream_begins(served: Served) -> None:
    path = "/v1/observations/stream"
    assert httpx.get(served.url + path, params=QUERY).status_code == 401
    with sign_in(served, "demo.province_admin") as reader:
        for changes, status in (
            ({"indicator": "none.such"}, 422),
            ({"unit_id": "01890000-0000-7000-8000-00000000dead"}, 404),
            ({"unknown": "1"}, 422),
        ):
            answer = reader.get(path, params=QUERY | changes)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"


async def test_a_principal_has_so_many_streams_and_their_end_makes_room(served: Served) -> None:
    with sign_in(served, "demo.ioc_reader") as reader:
        headers = {"Authorization": reader.headers["Authorization"]}
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(
            base_url=served.url, headers=headers, timeout=30, limits=limits
        ) as client:
            ask = client.build_request("GET", "/v1/observations/stream", params=QUERY)
            opened = [await client.send(ask, stream=True) for _ in range(42)]
            statuses = [response.status_code for response in opened]
            assert statuses.count(200) <= 40
            assert set(statuses) == {200, 429}
            assert opened[statuses.index(429)].headers["retry-after"]
            for response in opened:
                await response.aclose()
        await asyncio.sleep(2)
        async with watching(served, reader) as events:
            assert await following(events)


async def test_streams_end_when_the_service_stops(tmp_path: Path) -> None:
    loaded = noidai(tmp_path, "demo", "--teams", "20", "--events", "10")
    assert loaded.returncode == 0, loaded.stderr
    served = Served(tmp_path)
    served.wait()
    try:
        with sign_in(served, "demo.commune_admin") as officer:
            async with watching(served, officer) as events:
                await following(events)
                began = time.monotonic()
                served.process.terminate()
                assert await following(events) == {}
        await asyncio.to_thread(served.process.wait, 20)
        assert time.monotonic() - began < 10, "it did not wait for its streams"
    finally:
        served.stop()
