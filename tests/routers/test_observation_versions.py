"""Data versions, over HTTP: a poll costs a 304 until what its answer rests on changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.app import create_app
from api.db import transaction
from api.models.role_grants import Role
from api.services import event_folding, observation_answers
from api.services.formulas import FORMULAS
from api.services.observation_basis import _ALWAYS, _NOUNS, _words
from api.settings import Settings
from tests.conftest import SECRET
from tests.factories import LAO_CAI, MUONG_KHUONG, NATION, As, Person, Province, make
from tests.statements import statements

QUERY: dict[str, Any] = {
    "indicator": [
        *(
            "events.count",
            "events.completed_share",
            "teams.active",
            "members.active",
            "villages.total",
        ),
        *("households.registered", "population.total"),
    ],
    "period": "2025-07-01/2030-12-31",
    "every": "year",
    "unit_id": str(MUONG_KHUONG),
}


@dataclass
class Poll:
    """Somebody who asks the same again and again, with the ETag of the last answer."""

    client: httpx.AsyncClient
    query: dict[str, Any] = field(default_factory=lambda: dict(QUERY))
    tag: str = ""

    async def is_new(self) -> bool:
        """Ask; tell whether the answer is another than the last."""
        headers = {"If-None-Match": self.tag} if self.tag else {}
        response = await self.client.get("/v1/observations", params=self.query, headers=headers)
        assert response.status_code in {200, 304}, response.text
        assert (response.headers["ETag"] == self.tag) == (response.status_code == 304)
        self.tag = response.headers["ETag"]
        return response.status_code == 200

    async def counts(self, app: FastAPI) -> int:
        """Ask; return how many statements counted, all but the one that looks at what is new."""
        with statements(app) as sent:
            assert not await self.is_new()
        return len(sent) - 1


async def fold(app: FastAPI) -> int:
    async with transaction(app.state.engine, snapshot=True) as session:
        return await event_folding.fold(session)


@asynccontextmanager
async def another_worker(
    settings: Settings, database: str, like: Person
) -> AsyncIterator[httpx.AsyncClient]:
    """Open the service once more on the same database; yields the same person there."""
    service = create_app(settings, database, SECRET)
    async with (
        service.router.lifespan_context(service),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(service),
            base_url="http://noidai.test",
            headers=dict(like.headers),
        ) as client,
    ):
        yield client


async def do(client: httpx.AsyncClient, path: str, verb: str = "post", **body: Any) -> Any:
    response = await client.request(
        verb, f"/v1/{path}", json=body, headers={"If-Match": "*"} if path.count("/") else {}
    )
    assert response.status_code < 300, response.text
    return response.json()


async def test_every_change_of_what_it_rests_on_makes_another_answer(
    lao_cai: Province, as_: As, app: FastAPI
) -> None:
    here, national = lao_cai.muong_khuong, await as_(Role.national_admin, at=NATION)
    leader = await lao_cai.leader_of(here)
    poll = Poll(here.admin)
    by_service = Poll(here.admin, QUERY | {"indicator": "events.count", "service_type": "ID.USE"})
    assert await poll.is_new()
    assert await by_service.is_new()

    async def changed(what: str, poll: Poll = poll) -> None:
        assert await poll.is_new(), what
        assert not await poll.is_new(), what

    made = await make(leader, "support-events", **here.event())
    await changed("an event")
    await do(leader, f"support-events/{made['id']}", "patch", outcome="guided")
    await changed("a correction, before anything was folded")
    await fold(app)
    assert not await poll.is_new(), "folding changes nothing"
    await do(leader, f"support-events/{made['id']}", "patch", outcome="completed")
    await changed("a correction of what was folded")
    await do(here.admin, f"support-events/{made['id']}:verify")
    await changed("a verification")
    await do(here.admin, f"support-events/{made['id']}:void", reason="sai")
    await changed("a void")
    team = await make(
        here.admin,
        "teams",
        name="Tổ Hai",
        unit_id=here.village["id"],
        kind="community_team",
        founded_on="2025-07-03",
    )
    await changed("a team")
    stay = {"team_id": team["id"], "role": "member", "joined_on": "2025-07-03"}
    await make(here.admin, "members", full_name="Lý B", birth_year=1999, memberships=[stay])
    await changed("a member")
    await do(here.admin, f"teams/{team['id']}", "patch", dissolved_on="2025-12-01")
    await changed("a team's end")
    await make(here.admin, "households", unit_id=here.village["id"], head_name="Hộ", address="2")
    await changed("a household")
    village = {"level": "village", "type": "thôn", "valid_from": "2025-07-01"}
    await make(here.admin, "admin-units", name="Thôn Xa", parent_id=str(MUONG_KHUONG), **village)
    await changed("a village: a denominator, and the boundary")
    paper = {"number": "9/NQ", "issued_on": "2026-01-15", "issuer": "UBTVQH"}
    rename = {"kind": "rename", "unit_id": here.village["id"], "name": "Thôn Đổi"}
    await do(
        national, "reorganisations", effective_on="2026-03-01", document=paper, changes=[rename]
    )
    await changed("a reorganisation")
    listed = (await national.get("/v1/indicators", params={"limit": 200})).json()["items"]
    (declared,) = (each for each in listed if each["code"] == "population.total")
    await do(national, f"indicators/{declared['id']}", "patch", unit_of_count="soul")
    await changed("a definition")
    await by_service.is_new()
    codes = (await national.get("/v1/service-types", params={"limit": 200})).json()["items"]
    (parent,) = (each for each in codes if each["code"] == "ID.USE")
    child = {
        "code": "ID.USE.OTHER",
        "parent_code": "ID.USE",
        "category": parent["category"],
        "unit_of_count": "turn",
        "name_vi": "Khác",
        "name_en": "Other",
    }
    await make(national, "service-types", **child)
    await changed("a service under the one that is asked for", by_service)


async def test_activities_make_another_answer(lao_cai: Province) -> None:
    here = lao_cai.muong_khuong
    poll = Poll(here.admin, QUERY | {"indicator": ["activities.count", "members.trained_share"]})
    await poll.is_new()
    activity = {"kind": "launch", "title": "Ra mắt", "organiser": "team", "held_on": "2025-08-01"}
    held = await make(here.admin, "activities", **activity, host_unit_id=here.village["id"])
    assert await poll.is_new(), "an activity"
    await do(here.admin, f"activities/{held['id']}", "patch", held_on="2025-08-02", kind="course")
    assert not await poll.is_new(), "a change of no figure"
    attendees = {"attendee_ids": [here.leader["id"]]}
    await do(here.admin, f"activities/{held['id']}", "patch", **attendees)
    assert await poll.is_new(), "a training attended"


async def test_what_happens_elsewhere_counts_nothing_anew(lao_cai: Province, app: FastAPI) -> None:
    poll = Poll(lao_cai.muong_khuong.admin, QUERY | {"indicator": "events.count"})
    there = await lao_cai.leader_of(lao_cai.bao_thang)
    await poll.is_new()
    assert await poll.counts(app) == 0, "nothing happened"
    await make(there, "support-events", **lao_cai.bao_thang.event())
    assert await poll.counts(app) == 0, "an event elsewhere"
    await fold(app)
    assert await poll.counts(app) == 0, "folding"
    here = await lao_cai.leader_of(lao_cai.muong_khuong)
    await make(
        here,
        "support-events",
        **lao_cai.muong_khuong.event(occurred_at="2025-07-02T09:00:00+07:00"),
    )
    poll.query |= {"period": "2025-08"}
    await poll.is_new()
    await make(
        here,
        "support-events",
        **lao_cai.muong_khuong.event(occurred_at="2025-07-02T09:30:00+07:00"),
    )
    assert await poll.counts(app) == 0, "an event of another month"
    assert await Poll(lao_cai.muong_khuong.admin, poll.query).is_new()


async def test_a_change_that_commits_late_is_seen(
    lao_cai: Province, superuser: AsyncEngine
) -> None:
    here = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(here)
    made = [await make(leader, "support-events", **here.event()) for _ in range(2)]
    poll = Poll(here.admin)
    void = text("update support_event set status = 'voided', version = 2 where id = :id")
    found = text("update team set deleted_at = now() where id = :id")
    async with superuser.connect() as late:
        await late.execute(text("begin"))
        await late.execute(void, {"id": made[0]["id"]})
        async with superuser.connect() as early:
            await early.execute(void, {"id": made[1]["id"]})
        assert await poll.is_new()
        await late.execute(text("commit"))
        assert await poll.is_new()
        await late.execute(text("begin"))
        await late.execute(found, {"id": here.team["id"]})
        assert not await poll.is_new()
        await late.execute(text("commit"))
        assert await poll.is_new()


async def test_the_tag_is_the_scopes_and_outlives_tokens_and_workers(
    lao_cai: Province, as_: As, app: FastAPI, settings: Settings, database: str
) -> None:
    officer = await as_(Role.commune_admin, at=MUONG_KHUONG)
    poll = Poll(officer)
    await poll.is_new()
    token, _ = app.state.tokens.issue(officer.principal_id, "renewed")
    officer.headers["Authorization"] = f"Bearer {token}"
    assert not await poll.is_new()
    first = (await officer.get("/v1/observations", params=QUERY)).content
    async with another_worker(settings, database, officer) as elsewhere:
        there = Poll(elsewhere, tag=poll.tag)
        assert not await there.is_new()
        assert (await elsewhere.get("/v1/observations", params=QUERY)).content == first
        leader = await lao_cai.leader_of(lao_cai.muong_khuong)
        await make(leader, "support-events", **lao_cai.muong_khuong.event())
        assert await there.is_new()
        assert await poll.is_new()
        assert poll.tag == there.tag
    query = QUERY | {"indicator": "events.count"}
    await (mine := Poll(officer, query)).is_new()
    assert await Poll(await as_(Role.province_admin, at=LAO_CAI), query, mine.tag).is_new()


async def test_one_clients_tag_is_not_anothers_answer(lao_cai: Province, as_: As) -> None:
    mine = Poll(lao_cai.muong_khuong.admin)
    await mine.is_new()
    for query in (QUERY | {"period": "2026"}, QUERY | {"every": "month"}):
        assert await Poll(mine.client, query, mine.tag).is_new()
    foreign = await as_(Role.commune_admin, at=lao_cai.bao_thang.unit_id)
    answer = await foreign.get(
        "/v1/observations", params=QUERY, headers={"If-None-Match": mine.tag}
    )
    assert answer.status_code == 404


async def test_folded_changes_are_the_same_changes(
    lao_cai: Province, app: FastAPI, superuser: AsyncEngine
) -> None:
    async with superuser.connect() as connection:
        for _ in range(120):
            await connection.execute(text("update team set version = version"))
        poll = Poll(lao_cai.muong_khuong.admin)
        await poll.is_new()
        async with transaction(app.state.engine) as session:
            assert await observation_answers.tidy(session) > 100
        assert await connection.scalar(text("select count(*) from data_change")) < 20
    assert await poll.counts(app) == 0
    async with superuser.connect() as connection:
        await connection.execute(text("update team set version = version"))
    assert await poll.counts(app) > 0


async def test_nobody_waits_for_anothers_change(lao_cai: Province, superuser: AsyncEngine) -> None:
    async with superuser.connect() as slow:
        await slow.execute(text("begin"))
        there = {"id": lao_cai.bao_thang.team["id"]}
        await slow.execute(text("update team set version = version where id = :id"), there)
        async with asyncio.timeout(5):
            path = f"teams/{lao_cai.muong_khuong.team['id']}"
            await do(lao_cai.muong_khuong.admin, path, "patch", name="Tổ khác")
        await slow.execute(text("rollback"))


async def test_every_table_that_measures_read_has_its_changes_counted(
    superuser: AsyncEngine,
) -> None:
    measures = {m for f in FORMULAS.values() for m in (*f.measures, f.among, f.grows) if m}
    async with superuser.connect() as connection:
        known = text("""
            select relname, exists (select from pg_trigger where tgrelid = c.oid
                                    and tgname = 'count_change') as counted
            from pg_class c where relkind in ('r', 'v', 'p')
              and relnamespace = 'public'::regnamespace
        """)
        tables = {row.relname: row.counted for row in await connection.execute(known)}
    read = {word for m in measures for word in _words(m)} & {*tables, *_NOUNS}
    assert read == {"team", "membership", "person", "household", "support_event", "statistic"} | {
        *("activity", "training_attended"),  # which changes with activities only
        *("admin_unit", "placement", "tree"),  # all of which are changes of the tree
    }
    counted = {_NOUNS.get(name, name) for name in read - {"placement"}} | _ALWAYS
    assert {name for name, is_counted in tables.items() if is_counted} == counted | {
        "unit_succession",
        "target",  # which no figure rests on, but what is told of its progress
    }
