"""Plans under row-level security: scope drives the index, whatever lies elsewhere.

The trap: the newest rows of one commune, found by walking everybody's newest rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event as hooks
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.auth.caller import enter
from api.auth.permissions import Permission
from api.db import transaction
from api.driver import Hot, Together, connection_of
from api.models.role_grants import Role
from api.services import event_folding, event_rolls, event_rows
from tests.bench.villages import VILLAGES
from tests.factories import (
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    OLD_LAO_CAI,
    OLD_MUONG_KHUONG,
    Country,
    Person,
    Province,
    make,
)

FOREIGN = 20_000
"""Events of another commune, all newer than the few of one's own."""
COPY = text("""
    insert into support_event (id, version, created_at, updated_at, unit_id, unit_key, commune_key,
        province_key, team_id, team_unit_key, team_commune_key, member_ids, service_type,
        occurred_at, quantity, outcome, mode, channel, status, external_ids)
    select gen_random_uuid(), 1, now(), now(), unit_id, unit_key, commune_key, province_key,
           team_id, team_unit_key, team_commune_key, member_ids, service_type,
           occurred_at + n * interval '1 minute', 1, outcome, mode, channel, status, '{}'
    from support_event cross join generate_series(1, :count) as n where id = :id
""")


MORE = """
    do $$
    declare names text; given text;
    begin
        select string_agg(column_name, ', '),
               string_agg(case column_name when 'id' then 'gen_random_uuid()'
                          else column_name end, ', ')
        into names, given
        from information_schema.columns where table_name = '{table}' and is_generated = 'NEVER';
        execute 'insert into {table} (' || names || ') select ' || given
            || ' from {table}, generate_series(1, 2000)';
    end $$
"""
JOIN = text("""
    insert into membership (team_id, member_id, joined_on, role,
                            unit_id, unit_key, commune_key, province_key)
    select s.team_id, m.id, s.joined_on, 'member',
           s.unit_id, s.unit_key, s.commune_key, s.province_key
    from membership s, member m
    where s.team_id = :team
      and not exists (select from membership where member_id = m.id)
""")


@pytest.fixture
async def crowded(lao_cai: Province, superuser: AsyncEngine) -> Province:
    """A commune with few events, beside one with many newer ones."""
    async with superuser.connect() as connection:
        for place, count in ((lao_cai.muong_khuong, 60), (lao_cai.bao_thang, FOREIGN)):
            leader = await lao_cai.leader_of(place)
            event = await make(leader, "support-events", **place.event())
            await connection.execute(COPY, {"id": event["id"], "count": count})
        await connection.execute(text("analyze"))
    return lao_cai


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Walk the nodes of a plan."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@dataclass
class Noting:
    """What runs hot statements, and notes them."""

    hot: Hot
    sent: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    @property
    def readings(self) -> Together:
        """What keeps readings."""
        return self.hot.readings

    async def fetch(self, query: str, *values: Any) -> Any:
        """Note a statement, and send it."""
        self.sent.append((query, values))
        return await self.hot.fetch(query, *values)


async def plans(app: FastAPI, person: Person, path: str) -> list[dict[str, Any]]:
    """Return the plans, as executed for the person, of the statements that a request sends."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
        sent.append((statement, values))

    engine, hot = app.state.engine, app.state.hot
    noting = Noting(hot)
    await person.get(path)  # the caller is known from here on
    hooks.listen(engine.sync_engine, "before_cursor_execute", note)
    app.state.hot = noting
    response = await person.get(path)
    app.state.hot = hot
    hooks.remove(engine.sync_engine, "before_cursor_execute", note)
    assert response.status_code == 200
    caller = await app.state.callers.find(person.principal_id, None)
    found = []
    for query, arguments in noting.sent:  # these bring their scope along
        if "insert into" not in query:
            answers = await hot.fetch(f"explain (analyze, format json) {query}", *arguments)
            found.append(answers[0][0][0]["Plan"])
    async with transaction(engine) as session:
        await enter(session, caller)
        connection = await session.connection()
        for statement, values in sent:
            if "noidai.scopes" not in statement and "set local" not in statement:
                explain = f"explain (analyze, format json) {statement}"
                answer = await connection.exec_driver_sql(explain, values)
                found.append(answer.scalar_one()[0]["Plan"])
    assert found
    return found


def wasted(plan: dict[str, Any], table: str) -> int:
    """Return how many rows of a table were read for nothing; all of them by a whole scan."""
    return sum(
        int(node.get("Rows Removed by Filter", 0) * node["Actual Loops"])
        for node in nodes(plan)
        if node.get("Relation Name") == table
    )


def reads(plan: dict[str, Any], table: str) -> int:
    """Return how many rows of a table were read for something."""
    read = (node for node in nodes(plan) if node.get("Relation Name") == table)
    return sum(int(node["Actual Rows"] * node["Actual Loops"]) for node in read)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/support-events?limit=50",
        "/v1/support-events?limit=50&include_total=true",
        f"/v1/support-events?limit=50&unit_id={MUONG_KHUONG}",
        "/v1/support-events?limit=50&sort=occurred_at",
        "/v1/support-events?limit=50&status=verified",
        f"/v1/support-events?limit=50&unit_id={NATION}",
        f"/v1/support-events?limit=50&unit_id={LAO_CAI}",
        f"/v1/support-events?limit=50&unit_id={HA_NOI}",
        f"/v1/support-events?limit=50&unit_id={OLD_LAO_CAI}",
        f"/v1/support-events?limit=50&unit_id={OLD_MUONG_KHUONG}",
    ],
)
async def test_the_newest_events_of_a_commune_are_found_by_its_index(
    app: FastAPI, crowded: Province, path: str
) -> None:
    officer = crowded.muong_khuong.admin
    assert isinstance(officer, Person)
    for plan in await plans(app, officer, path):
        read = [node for node in nodes(plan) if node.get("Relation Name") == "support_event"]
        assert wasted(plan, "support_event") < FOREIGN / 10, read  # one's own, for each source


@pytest.mark.parametrize("role", [Role.province_admin, Role.auditor])
@pytest.mark.parametrize(
    "asked",
    [
        "service_type=PY.BANK",
        "status=rejected",
        "outcome=referred",
        "status=rejected&outcome=referred&sort=occurred_at",
        f"unit_id={OLD_MUONG_KHUONG}",
    ],
)
async def test_what_is_rare_in_a_province_is_found_without_reading_the_rest(
    app: FastAPI, crowded: Province, role: Role, asked: str
) -> None:
    officer = await crowded.country.sign_in(role, at=LAO_CAI)
    for plan in await plans(app, officer, f"/v1/support-events?limit=50&{asked}"):
        assert wasted(plan, "support_event") < FOREIGN / 10


@pytest.mark.parametrize("asked", ["", "sort=occurred_at", f"unit_id={NATION}"])
async def test_a_page_of_the_nation_reads_few_rows_more_than_it_shows(
    app: FastAPI, crowded: Province, asked: str
) -> None:
    auditor = await crowded.country.sign_in(Role.auditor)
    for plan in await plans(app, auditor, f"/v1/support-events?limit=50&{asked}"):
        assert reads(plan, "support_event") < 400
        assert wasted(plan, "support_event") == 0


async def test_a_total_of_the_nation_is_read_from_rolls(
    app: FastAPI, crowded: Province, superuser: AsyncEngine
) -> None:
    await event_folding.repair(superuser)
    auditor = await crowded.country.sign_in(Role.auditor)
    for asked in ("", "&status=submitted&outcome=completed", f"&unit_id={NATION}"):
        path = f"/v1/support-events?limit=10&include_total=true{asked}"
        assert (await auditor.get(path)).json()["total"] > FOREIGN
        for plan in await plans(app, auditor, path):
            assert reads(plan, "support_event") < 400
            assert wasted(plan, "support_event") < FOREIGN / 10


async def test_rolls_are_found_by_their_key_and_their_scope_by_hash(
    crowded: Province, superuser: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await event_folding.repair(superuser)
    reader = await crowded.country.sign_in(Role.ioc_reader, at=NATION)
    found: list[dict[str, Any]] = []

    @dataclass
    class Explaining:
        connection: Any

        async def fetch(self, query: str, *values: Any) -> Any:
            rows = await self.connection.fetch(f"explain (analyze, format json) {query}", *values)
            found.append(rows[0][0][0]["Plan"])
            return await self.connection.fetch(query, *values)

    async def explained(session: Any) -> Explaining:
        return Explaining(await connection_of(session))

    monkeypatch.setattr(event_rolls, "connection_of", explained)
    query = f"indicator=events.count&unit_id={LAO_CAI}&level=commune&period=2026&every=month"
    for boundary in ("current", "as_recorded", "2025-06-30"):
        answer = await reader.get(f"/v1/observations?{query}&boundary={boundary}")
        assert answer.status_code == 200
    assert len(found) == 3
    for plan in found:
        (scan,) = [node for node in nodes(plan) if node.get("Relation Name") == "event_roll"]
        assert scan["Index Name"] == "event_roll_pkey"
        assert "hashed SubPlan" in scan["Filter"]
        assert wasted(plan, "event_roll") == 0


@pytest.mark.parametrize("noun", ["teams", "members", "households"])
async def test_a_list_reads_its_scope_once(app: FastAPI, crowded: Province, noun: str) -> None:
    officer = crowded.muong_khuong.admin
    assert isinstance(officer, Person)
    for plan in await plans(app, officer, f"/v1/{noun}"):
        asked = [
            node for node in nodes(plan) if node.get("Subplan Name", "").startswith("InitPlan")
        ]
        assert all(node["Actual Loops"] <= 1 for node in asked), noun


async def test_a_hot_read_is_a_look_into_the_primary_key(
    app: FastAPI, crowded: Province, superuser: AsyncEngine
) -> None:
    officer = crowded.muong_khuong.admin
    assert isinstance(officer, Person)

    known = await app.state.callers.find(officer.principal_id, None)
    caller = known.asking(Permission.events_read, "test")
    async with superuser.connect() as connection:
        newest = await connection.scalar(text("select id from support_event limit 1"))
    rows = await app.state.hot.fetch(
        f"explain (analyze, format json) {event_rows._READ}",
        caller.scopes,
        caller.context,
        [newest, ids.new_id()],
        None,
    )
    plan = rows[0][0][0]["Plan"]
    read = [node for node in nodes(plan) if node.get("Relation Name") == "support_event"]
    scans = [node for node in read if node["Alias"] == "support_event"]
    assert all("Index" in node["Node Type"] for node in read), read  # its twins' too
    assert all(node["Actual Rows"] == 0 for node in read if node not in scans)
    assert [node["Node Type"] for node in scans] == ["Index Scan"]
    assert scans[0]["Index Name"] == "support_event_pkey"


@pytest.fixture
async def many(crowded: Province, superuser: AsyncEngine) -> dict[str, str]:
    """A row of each noun among thousands of others; its id by its path."""
    here, there = crowded.muong_khuong, crowded.bao_thang
    fair = {"kind": "outreach", "title": "Ngày hội", "organiser": "team", "held_on": "2025-09-01"}
    hosted = {"host_unit_id": here.village["id"], "team_id": here.team["id"]}
    activity = await make(here.admin, "activities", **fair, **hosted)
    async with superuser.connect() as connection:
        for table in ("team", "member", "household", "activity"):
            await connection.execute(text(MORE.format(table=table)))
        await connection.execute(JOIN, {"team": there.team["id"]})
        await connection.execute(text("analyze"))
    ids_of = {"teams": here.team, "members": here.leader, "households": here.household}
    return {noun: row["id"] for noun, row in (ids_of | {"activities": activity}).items()}


@pytest.mark.parametrize("role", [Role.commune_admin, Role.province_admin])
async def test_one_row_and_what_is_told_with_it_are_found_by_their_indexes(
    app: FastAPI, crowded: Province, many: dict[str, str], role: Role
) -> None:
    at = MUONG_KHUONG if role is Role.commune_admin else LAO_CAI
    officer = await crowded.country.sign_in(role, at=at)
    for noun, row_id in many.items():
        (plan,) = await plans(app, officer, f"/v1/{noun}/{row_id}")
        read = [node for node in nodes(plan) if "Relation Name" in node]
        assert all(node["Node Type"].startswith("Index") for node in read), read
        keys = [node for node in read if node["Index Name"] == f"{node['Relation Name']}_pkey"]
        assert keys[0]["Actual Rows"] == keys[0]["Actual Loops"] == 1, noun
        asked = [
            node for node in nodes(plan) if node.get("Subplan Name", "").startswith("InitPlan")
        ]
        assert all(node["Actual Loops"] <= 1 for node in asked), noun


async def test_a_search_reads_no_table_of_units_whole(
    app: FastAPI, country: Country, superuser: AsyncEngine
) -> None:
    anyone = await country.sign_in()
    async with superuser.connect() as connection:
        raw: Any = await connection.get_raw_connection()
        await raw.driver_connection.execute(VILLAGES.replace("99999", "19999"))
    for asked in ("Xuan%20Thuong", "th%C3%B4n%201", f"tan&within={LAO_CAI}", "Muong%20Khuog"):
        for plan in await plans(app, anyone, f"/v1/admin-units?q={asked}"):
            scans = [node for node in nodes(plan) if node["Node Type"] == "Seq Scan"]
            read = {scan["Relation Name"] for scan in scans if scan["Actual Loops"]}
            assert read <= {"unit_name"}, asked  # so few names here that it may be preferred


async def test_people_of_the_nation_are_counted_without_reading_its_events(
    app: FastAPI, crowded: Province, superuser: AsyncEngine
) -> None:
    async with transaction(superuser, snapshot=True) as session:
        assert await event_folding.fold(session) > FOREIGN
    async with superuser.connect() as connection:
        await connection.execute(text("analyze"))
    leader = await crowded.leader_of(crowded.bao_thang)
    people = {"household_id": crowded.bao_thang.household["id"]}
    await make(leader, "support-events", **crowded.bao_thang.event(**people))
    reader = await crowded.country.sign_in(Role.ioc_reader, Role.commune_admin, at=NATION)
    nation = f"/v1/observations?unit_id={NATION}&level=province&every=month"
    for indicator in ("households.reached", "households.reached_share", "beneficiaries.distinct"):
        for rest in (f"period=2025&boundary={boundary}" for boundary in ("current", "as_recorded")):
            for plan in await plans(app, reader, f"{nation}&indicator={indicator}&{rest}"):
                read = [
                    node for node in nodes(plan) if node.get("Relation Name") == "support_event"
                ]
                rows = sum(node["Actual Rows"] * node["Actual Loops"] for node in read)
                assert rows + wasted(plan, "support_event") < 10, (indicator, rest)


MEMBERS = text("""
    with new as (
        insert into member (id, version, created_at, updated_at, full_name, birth_year, gender,
                            is_youth_union_member, external_ids)
        select gen_random_uuid(), 1, now(), now(), 'Người', 1990, 'unstated', false, '{}'
        from generate_series(1, :count) returning id
    )
    insert into membership (team_id, member_id, joined_on, role, unit_id, unit_key, commune_key,
                            province_key)
    select t.id, new.id, date '2025-08-01', 'member', t.unit_id, t.unit_key, t.commune_key,
           t.province_key
    from new cross join team t where t.id = :team
""")


async def test_members_are_counted_without_reading_all_of_them(
    app: FastAPI, lao_cai: Province, superuser: AsyncEngine
) -> None:
    crowd = {"count": FOREIGN, "team": lao_cai.bao_thang.team["id"]}
    async with superuser.connect() as connection:
        await connection.execute(MEMBERS, crowd)
    async with transaction(superuser, snapshot=True) as session:
        await event_folding.fold(session)
    place = lao_cai.muong_khuong
    stay = {"team_id": place.team["id"], "joined_on": "2026-01-01"}
    await make(place.admin, "members", full_name="Giàng A Sa", memberships=[stay])
    async with superuser.connect() as connection:
        await connection.execute(text("analyze"))
    reader = await lao_cai.country.sign_in(Role.ioc_reader, Role.commune_admin, at=NATION)
    asked = "indicator=members.active&indicator=members.youth_share&period=2026&every=month"
    for unit, level in ((NATION, "province"), (LAO_CAI, "commune")):
        for boundary in ("current", "as_recorded", "2025-12-31"):
            path = f"/v1/observations?{asked}&unit_id={unit}&level={level}&boundary={boundary}"
            for plan in await plans(app, reader, path):
                for table in ("standing", "membership", "member"):
                    assert reads(plan, table) + wasted(plan, table) < 20, (path, table)
