"""Nobody takes more than a share: requests, requests at once, seconds, bytes, depth."""

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.app import create_app
from api.gate import Windows, too_deep
from api.models.role_grants import Role
from api.settings import Settings
from tests.conftest import SECRET
from tests.factories import LAO_CAI, MUONG_KHUONG, Country, Person, Place, Province

type Limited = Callable[..., AbstractAsyncContextManager[Country]]


@pytest.fixture
def limited(database: str, superuser: AsyncEngine) -> Limited:
    """The service with other limits: `async with limited(rate_limit="3/minute") as country`."""

    @asynccontextmanager
    async def begin(**limits: Any) -> AsyncIterator[Country]:
        service = create_app(Settings(_env_file=None, **limits), database, SECRET)
        async with service.router.lifespan_context(service):
            yield await Country.found(service, superuser)

    return begin


def anonymous(country: Country) -> Person:
    return Person(transport=httpx.ASGITransport(country.app), base_url="http://x")


async def statuses(who: httpx.AsyncClient, times: int) -> list[int]:
    return [(await who.get("/v1/me")).status_code for _ in range(times)]


async def test_a_principal_has_its_share_and_is_told_what_is_left(limited: Limited) -> None:
    async with limited(rate_limit="3/minute") as country:
        first = await country.sign_in(Role.ioc_reader, at=LAO_CAI)
        second = await country.sign_in(Role.ioc_reader, at=LAO_CAI)
        await first.get("/v1/me")  # its token is not known yet: counted for the address
        answer = await first.get("/v1/me")
        assert answer.headers["ratelimit-policy"] == '"default";q=3;w=60'
        assert answer.headers["ratelimit"].startswith('"default";r=2;t=')
        assert await statuses(first, 3) == [200, 200, 429]
        refused = await first.get("/v1/me")
        assert refused.json()["code"] == "rate_limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert await statuses(second, 4) == [200] * 4
        assert (await first.get("/health/live")).status_code == 200


def test_a_window_opens_with_its_first_request_and_is_forgotten_when_it_is_over() -> None:
    windows = Windows(2, 60)
    assert [windows.take("a", now) for now in (100, 110, 120, 130)] == [
        (1, 160),
        (0, 160),
        (-1, 160),
        (-1, 160),
    ]
    assert windows.take("b", 130) == (1, 190)
    assert windows.take("a", 160) == (1, 220)
    for second in range(1000):
        windows.take(f"passer-by {second}", 200 + second)
    assert len(windows._open) <= 2 * 60


async def test_who_is_not_signed_in_is_counted_by_address(limited: Limited) -> None:
    async with limited(rate_limit="3/minute") as country, anonymous(country) as nobody:
        invented = [{"Authorization": f"Bearer {n}"} for n in range(4)]
        answers = [(await nobody.get("/v1/me", headers=token)).status_code for token in invented]
        assert answers == [401, 401, 401, 429]


@pytest.fixture
def redis(tmp_path: object) -> Iterator[str]:
    """A real server that counts for all workers."""
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        pytest.skip("neither valkey-server nor redis-server is installed here")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL) as server:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            server.poll()
        yield f"redis://127.0.0.1:{port}"
        server.terminate()


async def test_workers_may_count_together(limited: Limited, redis: str) -> None:
    limits = {"rate_limit": "5/minute", "rate_limit_url": redis}
    async with limited(**limits) as one, limited(**limits) as other:
        person = await one.sign_in(Role.ioc_reader, at=LAO_CAI)
        there = anonymous(other)
        there.headers = person.headers
        async with there:
            await person.get("/v1/me")
            await there.get("/v1/me")
            assert await statuses(person, 3) == [200] * 3
            assert await statuses(there, 3) == [200, 200, 429]


async def test_without_the_counter_nobody_is_refused(limited: Limited) -> None:
    gone = {"rate_limit": "1/minute", "rate_limit_url": "redis://127.0.0.1:1"}
    async with limited(**gone) as country:
        person = await country.sign_in(Role.ioc_reader, at=LAO_CAI)
        assert await statuses(person, 3) == [200] * 3


async def test_a_request_that_takes_too_long_is_given_up_and_leaves_nothing_held(
    limited: Limited, superuser: AsyncEngine
) -> None:
    async with limited(request_timeout_seconds=1, database_pool_size=1) as country:
        place = await Place.found(country, MUONG_KHUONG, "Na Đẩy")
        path, change = f"/v1/teams/{place.team['id']}", {"name": "Tổ mới"}
        async with superuser.connect() as other:
            await other.execute(text("begin"))
            await other.execute(text("lock table team"))
            late = await place.admin.patch(path, json=change, headers={"If-Match": "*"})
            assert (late.status_code, late.json()["code"]) == (503, "unavailable")
            assert late.headers["retry-after"]
            await other.execute(text("rollback"))
        after = await place.admin.patch(path, json=change, headers={"If-Match": '"1"'})
        assert after.status_code == 200


async def test_when_all_places_are_taken_one_comes_back_later(
    limited: Limited, superuser: AsyncEngine
) -> None:
    async with limited(max_concurrent_requests=2) as country:
        place = await Place.found(country, MUONG_KHUONG, "Na Đẩy")
        async with superuser.connect() as other:
            await other.execute(text("begin"))
            await other.execute(text("lock table team"))
            waiting = [asyncio.create_task(place.admin.get("/v1/teams")) for _ in range(2)]
            await asyncio.sleep(0.3)
            refused = await place.admin.get("/v1/teams")
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            assert (await place.admin.get("/health/live")).status_code == 200
            await other.execute(text("rollback"))
        assert [(await task).status_code for task in waiting] == [200, 200]
        assert (await place.admin.get("/v1/teams")).status_code == 200


@pytest.mark.parametrize(
    ("body", "deep"),
    [
        (b'{"a": [1, {"b": []}]}', False),
        (b'{"a": [1, {"b": [[]]}]}', True),
        (b'{"a": "[[[[[[{{{{"}', False),
        (rb'{"a": "\"[[[[[["}', False),
        (b"[" * 100_000, False),  # malformed: the parser's to refuse
        (b"[" * 100_000 + b"]" * 100_000, True),
        (b"[]" * 100_000, False),
    ],
)
def test_depth_is_told_without_parsing(body: bytes, deep: bool) -> None:
    assert too_deep(body, 4) is deep


async def test_json_that_nests_too_deep_is_refused(lao_cai: Province) -> None:
    nested: list[Any] = []
    for _ in range(40):
        nested = [nested]
    body = json.dumps({"support_events": nested})
    kind = {"Content-Type": "application/json"}
    refused = await lao_cai.muong_khuong.admin.post("/v1/batch", content=body, headers=kind)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert refused.json()["errors"][0]["code"] == "json_too_deep"


async def test_pages_of_named_origins_may_call(limited: Limited) -> None:
    asks = {
        "Origin": "https://ioc.laocai.gov.vn",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization,if-match",
    }
    async with (
        limited(cors_origins="https://ioc.laocai.gov.vn") as country,
        anonymous(country) as page,
    ):
        allowed = await page.options("/v1/teams", headers=asks)
        assert allowed.headers["access-control-allow-origin"] == asks["Origin"]
        refused = await page.options("/v1/teams", headers=asks | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in refused.headers
        read = await page.get("/v1/me", headers={"Origin": asks["Origin"]})
        assert "ETag" in read.headers["access-control-expose-headers"]
    async with limited() as country, anonymous(country) as page:
        closed = await page.options("/v1/teams", headers=asks)
        assert "access-control-allow-origin" not in closed.headers


async def test_every_answer_carries_the_headers_of_safety(client: httpx.AsyncClient) -> None:
    for path in ("/v1/me", "/health/live", "/nowhere", "/openapi.json"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["strict-transport-security"]
    assert "default-src 'self'" in (await client.get("/docs")).headers["content-security-policy"]
