"""Callers are kept in memory, and what changes their rights acts on every worker within seconds."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.app import create_app
from api.auth.permissions import Permission
from api.models.role_grants import Role
from api.settings import Settings
from tests.conftest import SECRET
from tests.factories import BAO_THANG, LAO_CAI, MUONG_KHUONG, As, Country, Person, Province, make
from tests.statements import statements
from tests.waiting import SOON, until


@pytest.fixture
async def second(database: str, settings: Settings) -> AsyncIterator[FastAPI]:
    """Another worker on the same database, which hears of changes by the database alone."""
    service = create_app(settings, database, SECRET)
    async with service.router.lifespan_context(service):
        await until(lambda: awake(service))
        yield service


async def awake(service: FastAPI) -> bool:
    return bool(service.state.callers.watch.awake)


def at(service: FastAPI, person: Person) -> httpx.AsyncClient:
    """The same person with the same token, at another worker."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(service), base_url="http://x", headers=person.headers
    )


async def test_a_known_caller_costs_no_statement(app: FastAPI, lao_cai: Province) -> None:
    await until(lambda: awake(app))
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    event = await make(leader, "support-events", **lao_cai.muong_khuong.event())
    path = f"/v1/support-events/{event['id']}"
    masked = await lao_cai.country.sign_in(Role.province_admin, at=LAO_CAI)

    async def costs_one() -> bool:
        with statements(app, callers=True) as sent:
            assert (await masked.get(path)).status_code == 200
        return len(sent) == 1

    await until(costs_one)  # what was announced of a new account is heard in its own time


async def test_a_grant_and_its_end_act_on_the_other_worker(
    lao_cai: Province, second: FastAPI, as_: As
) -> None:
    officer = lao_cai.muong_khuong.admin
    person = await as_(Role.commune_admin, at=BAO_THANG)
    team = lao_cai.muong_khuong.team
    async with at(second, person) as there:
        path = f"/v1/teams/{team['id']}"
        assert (await there.get(path)).status_code == 404
        given = await make(
            officer,
            "role-grants",
            principal_id=str(person.principal_id),
            role="team_member",
            unit_id=team["unit_id"],
            team_id=team["id"],
        )

        async def sees(status: int) -> bool:
            return (await there.get(path)).status_code == status

        await until(lambda: sees(200))
        ended = await officer.delete(f"/v1/role-grants/{given['id']}", headers={"If-Match": '"1"'})
        assert ended.status_code == 204
        await until(lambda: sees(404))


async def test_a_right_given_a_moment_ago_is_not_refused_from_memory(
    lao_cai: Province, second: FastAPI, as_: As
) -> None:
    person = await as_(Role.ioc_reader, at=LAO_CAI)
    async with at(second, person) as there:
        assert (await there.get("/v1/teams")).status_code == 403
        await lao_cai.country.grant(person.principal_id, Role.commune_admin, MUONG_KHUONG)
        assert (await there.get("/v1/teams")).status_code == 200


@pytest.mark.parametrize("what", ["disabled", "signed out", "the tree"])
async def test_whatever_changes_a_caller_is_heard(
    what: str, lao_cai: Province, second: FastAPI, superuser: AsyncEngine
) -> None:
    admin = await lao_cai.country.sign_in(Role.province_admin, at=LAO_CAI)
    await make(admin, "users", username="hoa", password="mot mat khau dai 7", full_name="Hoa")
    body = {"username": "hoa", "password": "mot mat khau dai 7"}
    token = (await admin.post("/v1/sessions", json=body)).json()["access_token"]
    known = second.state.callers._known
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(second),
        base_url="http://x",
        headers={"Authorization": f"Bearer {token}"},
    ) as there:
        assert (await there.get("/v1/me")).status_code == 200
        assert known
        if what == "the tree":
            village = {"level": "village", "name": "Thôn Mới", "type": "thôn"}
            place = {"parent_id": str(MUONG_KHUONG), "valid_from": "2025-07-01"}
            await make(lao_cai.muong_khuong.admin, "admin-units", **village, **place)

            async def forgotten() -> bool:
                return not known

            await until(forgotten)
            return
        change = {
            "disabled": "update principal set disabled_at = now() where login = 'hoa'",
            "signed out": "delete from session",
        }
        async with superuser.connect() as connection:
            await connection.execute(text(change[what]))

        async def refused() -> bool:
            return (await there.get("/v1/me")).status_code == 401

        await until(refused)


async def test_a_worker_that_hears_nothing_asks_the_database(
    second: FastAPI, as_: As, superuser: AsyncEngine
) -> None:
    person = await as_(Role.commune_admin, at=MUONG_KHUONG)
    deaf = text("""
        select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'noidai watch' and datname = current_database()
    """)

    async def never() -> None:
        raise OSError("no line")

    async with at(second, person) as there, superuser.connect() as connection:
        assert (await there.get("/v1/teams")).status_code == 200
        second.state.callers.watch._listen = never
        await connection.execute(deaf)
        await connection.execute(text("update role_grant set deleted_at = now()"))

        async def refused() -> bool:
            return (await there.get("/v1/teams")).status_code == 403

        await until(refused)
        assert not second.state.callers.watch.awake or not second.state.callers._known


async def test_what_changes_while_a_caller_is_read_is_not_kept(app: FastAPI, as_: As) -> None:
    person = await as_(Role.ioc_reader, at=LAO_CAI)
    callers = app.state.callers
    reading = asyncio.create_task(callers.find(person.principal_id, None))
    await asyncio.sleep(0)
    callers.forget(f"principal:{person.principal_id}")
    assert (await reading).has(Permission.aggregates_read)
    assert person.principal_id not in callers._known


async def test_callers_who_are_not_known_yet_do_not_wait_for_each_other(
    database: str, country: Country
) -> None:
    small = create_app(Settings(_env_file=None, database_pool_size=2), database, SECRET)
    people = [await country.sign_in(Role.commune_admin, at=MUONG_KHUONG) for _ in range(12)]
    async with small.router.lifespan_context(small), asyncio.timeout(SOON):
        there = [at(small, person) for person in people]
        answers = await asyncio.gather(*(one.get("/v1/teams") for one in there))
        assert {answer.status_code for answer in answers} == {200}
        for one in there:
            await one.aclose()
