"""The audit, over HTTP: who did or saw what, by which right, and nothing of what they saw."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from api import ids
from api.db import create_engine
from api.models.role_grants import Role
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    PASSWORD,
    As,
    Person,
    Place,
    Province,
    make,
)
from tests.rules import ids_in, walk

type Entry = dict[str, Any]
ANY = {"If-Match": "*"}
MASK = "***"


class Audit:
    """The entries that came since it was looked at, the oldest first, behind all policies."""

    def __init__(self, superuser: AsyncEngine) -> None:
        self.superuser, self.seen = superuser, set[UUID]()

    async def new(self) -> list[Entry]:
        async with self.superuser.connect() as connection:
            rows = await connection.execute(text("select * from audit_entry order by xid, id"))
            found = [dict(row) for row in rows.mappings() if row["id"] not in self.seen]
        self.seen |= {entry["id"] for entry in found}
        return found


@pytest.fixture
async def audit(lao_cai: Province, superuser: AsyncEngine) -> Audit:
    """Nothing yet: the founding of the province is left out."""
    assert lao_cai
    found = Audit(superuser)
    await found.new()
    return found


def told(entries: list[Entry]) -> list[tuple[str, str]]:
    return [(entry["action"], entry["resource"]) for entry in entries]


async def grants_of(superuser: AsyncEngine, principal: UUID) -> set[UUID]:
    async with superuser.connect() as connection:
        mine = text("select id from role_grant where principal_id = :id")
        return set(await connection.scalars(mine, {"id": principal}))


@dataclass
class Doer:
    """Somebody who writes; each write must leave just the entries that are named."""

    who: Person
    audit: Audit
    made: dict[str, str] = field(default_factory=dict)

    async def does(
        self, method: str, path: str, body: Any, *wanted: tuple[str, str]
    ) -> list[Entry]:
        request_id = f"r-{ids.new_id()}"
        response = await self.who.request(
            method, f"/v1/{path}", json=body, headers=ANY | {"X-Request-Id": request_id}
        )
        assert response.status_code < 300, response.text
        if response.content and method == "POST" and ":" not in path:
            self.made[path] = response.json()["id"]
        entries = await self.audit.new()
        assert sorted(told(entries)) == sorted(wanted), (method, path)
        grants = await grants_of(self.audit.superuser, self.who.principal_id)
        for entry in entries:
            assert entry["actor_id"] == self.who.principal_id
            assert entry["request_id"] == request_id
            assert entry["grant_id"] in grants
        return entries


@pytest.fixture
async def officer(lao_cai: Province, audit: Audit) -> Doer:
    person = await lao_cai.country.sign_in(Role.commune_admin, at=MUONG_KHUONG)
    await audit.new()
    return Doer(person, audit)


async def test_every_write_leaves_one_entry_with_its_actor_right_and_request(
    lao_cai: Province, officer: Doer
) -> None:
    place = lao_cai.muong_khuong
    team, village = place.team["id"], place.village["id"]
    squad = {"unit_id": village, "name": "Đội", "kind": "volunteer_squad"}
    founded = {"founded_on": "2025-08-01"}
    await officer.does("POST", "teams", squad | founded, ("create", "teams"))
    await officer.does("PATCH", f"teams/{team}", {"name": "Tổ"}, ("update", "teams"))
    stays = {"memberships": [{"team_id": team, "joined_on": "2025-08-01"}]}
    joined = ("create", "members"), ("create", "memberships")
    await officer.does("POST", "members", {"full_name": "Lò A"} | stays, *joined)
    member = officer.made["members"]
    (changed,) = await officer.does(
        "PATCH", f"members/{member}", {"occupation": "thợ"}, ("update", "members")
    )
    assert (changed["before"]["occupation"], changed["after"]["occupation"]) == (None, MASK)
    moved = ("update", "members"), ("update", "memberships")
    stay = {"joined_on": "2025-08-01", "role": "deputy"}
    await officer.does("PUT", f"memberships/{team}/{member}", stay, *moved)
    unit = {
        "level": "village",
        "name": "Thôn",
        "type": "thôn",
        "parent_id": str(MUONG_KHUONG),
        "valid_from": "2025-07-01",
    }
    two = ("create", "admin_units"), ("create", "admin_unit_states")
    await officer.does("POST", "admin-units", unit, *two)
    user = {"username": "nguoi.moi", "password": PASSWORD, "full_name": "Người Mới"}
    (principal,) = await officer.does("POST", "users", user, ("create", "principals"))
    assert {principal["after"][name] for name in ("login", "name", "secret_hash")} == {MASK}
    grant = {"role": "team_leader", "unit_id": village, "team_id": team}
    wanted = {"principal_id": officer.made["users"]} | grant
    await officer.does("POST", "role-grants", wanted, ("create", "role_grants"))
    path = f"role-grants/{officer.made['role-grants']}"
    await officer.does("DELETE", path, None, ("delete", "role_grants"))
    leader = Doer(await lao_cai.leader_of(place), officer.audit)
    await officer.audit.new()
    noted = place.event(note="Bí mật")
    (event,) = await leader.does("POST", "support-events", noted, ("create", "support_events"))
    assert "note" not in event["after"]
    path = f"support-events/{leader.made['support-events']}"
    await leader.does("PATCH", path, {"quantity": 2}, ("update", "support_events"))


async def test_what_is_seen_through_broken_glass_names_the_glass(
    lao_cai: Province, audit: Audit
) -> None:
    province = Doer(await lao_cai.country.sign_in(Role.province_admin, at=LAO_CAI), audit)
    place = lao_cai.muong_khuong
    path = f"households/{place.household['id']}"
    await audit.new()
    await province.does("GET", path, None)
    glass = {"unit_id": place.village["id"], "reason": "Xác minh phản ánh"}
    (broken,) = await province.does("POST", "break-glass", glass, ("create", "role_grants"))
    assert broken["after"]["reason"] == MASK
    (read,) = await province.does("GET", path, None, ("read", "households"))
    assert str(read["grant_id"]) == province.made["break-glass"]


async def test_handing_out_everything_about_a_person_is_an_export(
    lao_cai: Province, audit: Audit
) -> None:
    dpo = Doer(await lao_cai.country.sign_in(Role.dpo, at=LAO_CAI), audit)
    member = {"person": {"member_id": lao_cai.muong_khuong.leader["id"]}, "kind": "access"}
    await audit.new()
    requests = "data-subject-requests"
    opened = ("create", "data_subject_requests")
    await dpo.does("POST", requests, member, opened)
    request = dpo.made[requests]
    exported = ("export", "data_subject_requests")
    (entry,) = await dpo.does("GET", f"{requests}/{request}/export", None, exported)
    assert str(entry["row_id"]) == request
    done = ("update", "data_subject_requests")
    await dpo.does("POST", f"{requests}/{request}:fulfil", {}, done)


async def test_an_entry_shows_what_was_and_what_became(lao_cai: Province, officer: Doer) -> None:
    village = lao_cai.muong_khuong.village["id"]
    body = {"unit_id": village, "head_name": "Lù B", "people_count": 3}
    (created,) = await officer.does("POST", "households", body, ("create", "households"))
    assert created["after"] == {
        "version": 1,
        "unit_id": village,
        "head_name": MASK,
        "people_count": 3,
        "is_business": False,
        "external_ids": MASK,
    }
    assert (created["before"], str(created["unit_id"])) == (None, village)
    path = f"households/{officer.made['households']}"
    change = {"head_name": "Lù C", "people_count": None}
    (changed,) = await officer.does("PATCH", path, change, ("update", "households"))
    assert changed["before"] == {"version": 1, "head_name": MASK, "people_count": 3}
    assert changed["after"] == {"version": 2, "head_name": MASK, "people_count": None}
    (gone,) = await officer.does("DELETE", path, None, ("delete", "households"))
    assert gone["before"]["deleted_at"] is None
    back = ("undelete", "households"), ("read", "households")
    await officer.does("POST", f"{path}:undelete", None, *back)


async def test_what_is_refused_or_undone_leaves_nothing(lao_cai: Province, audit: Audit) -> None:
    place = lao_cai.muong_khuong
    wrong = await place.admin.patch(
        f"/v1/households/{place.household['id']}", json={"head_name": None}, headers=ANY
    )
    assert wrong.status_code == 422
    bad = {"op": "create", "id": str(ids.new_id()), "data": {"head_name": "Lù D"}}
    good = {
        **bad,
        "id": str(ids.new_id()),
        "data": {"head_name": "A", "unit_id": place.village["id"]},
    }
    sent = {"households": [good, bad], "atomic": True}
    assert (await place.admin.post("/v1/batch", json=sent)).status_code == 207
    dry = {"households": [good], "dry_run": True}
    assert (await place.admin.post("/v1/batch", json=dry)).status_code == 207
    assert await audit.new() == []


async def test_a_batch_leaves_one_entry_for_each_row(lao_cai: Province, audit: Audit) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    await audit.new()
    rows = [str(ids.new_id()) for _ in range(50)]
    items = [{"op": "create", "id": row, "data": place.event()} for row in rows]
    for _ in range(2):  # sent again, nothing is new
        answer = await leader.post("/v1/batch", json={"support_events": items})
        assert answer.status_code == 207
    entries = await audit.new()
    assert [str(entry["row_id"]) for entry in entries] == sorted(rows)
    assert {(e["action"], e["actor_id"]) for e in entries} == {("create", leader.principal_id)}


PEOPLE = {
    "full_name": "Tên Không Được Thấy",
    "head_name": "Chủ Hộ Không Được Thấy",
    "address": "Địa chỉ không được thấy",
    "business_name": "Quán không được thấy",
    "phone": "+84955555555",
    "occupation": "nghề không được thấy",
    "note": "ghi chú không được thấy",
    "method": "chữ ký không được thấy",
    "identifier": "012345678901",
    "username": "ten.khong.duoc.thay",
}


async def test_no_personal_value_is_ever_in_the_audit(
    lao_cai: Province, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    admin = place.admin
    people = PEOPLE
    consent = {"basis": "consent", "notice_version": "1", "method": people["method"]}
    shared = {name: people[name] for name in ("head_name", "address", "phone", "business_name")}
    household = await make(
        admin, "households", unit_id=place.village["id"], consent=consent, **shared
    )
    stays = [{"team_id": place.team["id"], "joined_on": "2025-08-01"}]
    member = await make(
        admin,
        "members",
        memberships=stays,
        birth_year=1951,
        **{name: people[name] for name in ("full_name", "phone", "occupation")},
    )
    event = place.event(
        household_id=household["id"],
        beneficiary={"age_band": "60_plus", "identifier": people["identifier"]},
        lat=22.51234,
        lon=104.12345,
        note=people["note"],
    )
    await make(leader, "support-events", **event)
    await make(
        admin, "users", username=people["username"], password=PASSWORD, full_name="Tên Không Được"
    )
    changes = {
        f"households/{household['id']}": {"consent": {"method": "giấy"}, "phone": "+84966666666"},
        f"members/{member['id']}": {"full_name": "Tên Mới Không Được Thấy", "birth_year": 1952},
    }
    for path, change in changes.items():
        changed = await admin.patch(f"/v1/{path}", json=change, headers=ANY)
        assert changed.status_code == 200, changed.text
    for path in ("households", "members"):
        await walk(admin, path)
    assert len(await walk(admin, "households", q="Không Được")) == 1
    async with superuser.connect() as connection:
        rows = await connection.scalars(text("select e::text from audit_entry e"))
        written = "\n".join(rows)
    values = [*people.values(), "Không Được", "khong duoc", "giấy", "96666", "22.51", "104.12"]
    values += ["195", "60_plus", "argon2", "Chủ hộ", "Giàng", "84912345678", "84987654321"]
    shown = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "", written)  # ids may hold any digits
    shown = re.sub(r"\d{4}-\d\d-\d\d[ T][\d:.+]+", "", shown)
    assert [value for value in values if value in shown] == []
    assert written.count(MASK) > 10
    assert '""q"": true' in written


async def test_a_read_in_clear_is_recorded_and_a_masked_one_is_not(
    lao_cai: Province, as_: As, audit: Audit, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    officer = await as_(Role.commune_admin, at=MUONG_KHUONG)
    leader = await lao_cai.leader_of(place)
    event = await make(leader, "support-events", **place.event(note="Gặp ở chợ"))
    plain = await make(leader, "support-events", **place.event())
    rows = {
        "households": place.household["id"],
        "members": place.leader["id"],
        "support-events": event["id"],
    }
    (right,) = await grants_of(superuser, officer.principal_id)
    await audit.new()
    for path, row in rows.items():
        read = await officer.get(f"/v1/{path}/{row}", headers={"X-Request-Id": f"look-{path}"})
        assert read.status_code == 200
        (entry,) = await audit.new()
        assert told([entry]) == [("read", path.replace("-", "_"))]
        assert (entry["actor_id"], entry["grant_id"]) == (officer.principal_id, right)
        assert (entry["row_id"], entry["ids"]) == (UUID(row), [UUID(row)])
        assert entry["request_id"] == f"look-{path}"
        assert (entry["query"], str(entry["unit_id"])) == (None, place.village["id"])
    assert (await officer.get(f"/v1/support-events/{plain['id']}")).status_code == 200
    assert await audit.new() == []  # nothing personal was in it

    province = await as_(Role.province_admin, at=LAO_CAI)
    await audit.new()
    for path, row in rows.items():
        assert (await province.get(f"/v1/{path}/{row}")).status_code == 200
        assert (await province.get(f"/v1/{path}")).status_code == 200
    assert await audit.new() == []


async def test_a_list_in_clear_is_one_entry_with_what_it_showed(
    lao_cai: Province, audit: Audit
) -> None:
    place = lao_cai.muong_khuong
    more = {"level": "village", "name": "Thôn Hai", "type": "thôn", "valid_from": "2025-07-01"}
    other = await make(place.admin, "admin-units", parent_id=str(MUONG_KHUONG), **more)
    second = await make(place.admin, "households", unit_id=other["id"], head_name="Ma Thị Đào")
    await audit.new()
    filters: dict[str, Any] = {"q": "dao", "limit": 10, "unit_id": str(MUONG_KHUONG)}
    listed = await ids_in(place.admin, "households", **filters)
    (entry,) = await audit.new()
    assert set(map(str, entry["ids"])) == listed == {second["id"]}
    assert entry["query"] == {"q": True, "unit_id": [str(MUONG_KHUONG)]}
    listed = await ids_in(place.admin, "households")
    (entry,) = await audit.new()
    assert set(map(str, entry["ids"])) == listed == {second["id"], place.household["id"]}
    assert (entry["row_id"], entry["unit_id"]) == (None, MUONG_KHUONG)  # it holds both villages
    assert await ids_in(place.admin, "households", q="không ai") == set()
    assert await audit.new() == []


async def test_whoever_sees_the_present_state_by_a_refused_change_is_recorded(
    lao_cai: Province, audit: Audit
) -> None:
    place = lao_cai.muong_khuong
    for path, row in (("households", place.household), ("members", place.leader)):
        stale = await place.admin.patch(
            f"/v1/{path}/{row['id']}",
            json={"external_ids": {"x": "1"}},
            headers={"If-Match": '"999"', "X-Request-Id": "stale"},
        )
        assert stale.status_code == 412
        assert stale.json()["current"]["phone"] == row["phone"]
        (entry,) = await audit.new()
        assert told([entry]) == [("read", path)]
        assert (entry["ids"], entry["request_id"]) == ([UUID(row["id"])], "stale")
        assert entry["actor_id"] == place.admin.principal_id
        nothing = await place.admin.patch(f"/v1/{path}/{row['id']}", json={}, headers=ANY)
        assert nothing.json()["phone"] == row["phone"]
        assert told(await audit.new()) == [("read", path)]
    household = place.household["id"]
    item = {"op": "update", "id": household, "if_match": '"999"', "data": {"phone": "+84911111111"}}
    sent = await place.admin.post("/v1/batch", json={"households": [item]})
    assert sent.json()["results"][0]["outcome"] == "conflict"
    assert told(await audit.new()) == [("read", "households")]


async def test_a_portal_s_upsert_is_one_entry(lao_cai: Province, as_: As, audit: Audit) -> None:
    portal = await as_(Role.portal_client, at=LAO_CAI)
    await audit.new()
    body = {"unit_id": lao_cai.muong_khuong.village["id"], "head_name": "Lù Văn Ký"}
    url = "/v1/households/by-external-id/portal/1"
    for status, action in ((201, "create"), (200, "read")):
        assert (await portal.put(url, json=body)).status_code == status
        assert told(await audit.new()) == [(action, "households")]
    changed = await portal.put(url, json=body | {"people_count": 4})
    assert changed.status_code == 200
    assert told(await audit.new()) == [("update", "households")]


async def test_signing_in_and_out_is_recorded(
    lao_cai: Province, audit: Audit, client: httpx.AsyncClient
) -> None:
    person = await lao_cai.country.sign_in()
    await audit.new()
    body = {"username": f"user.{person.principal_id}", "password": PASSWORD}
    signed = await client.post("/v1/sessions", json=body, headers={"X-Request-Id": "in"})
    assert signed.status_code == 201
    (entry,) = await audit.new()
    assert (told([entry]), entry["request_id"]) == ([("sign_in", "sessions")], "in")
    assert (entry["actor_id"], entry["session_id"]) == (person.principal_id, entry["row_id"])
    token = {"Authorization": f"Bearer {signed.json()['access_token']}"}
    assert (await client.delete("/v1/sessions/current", headers=token)).status_code == 204
    (ended,) = await audit.new()
    assert told([ended]) == [("sign_out", "sessions")]
    assert (ended["actor_id"], ended["row_id"]) == (person.principal_id, entry["row_id"])


async def test_an_auditor_looks_up_its_own_subtree(lao_cai: Province, as_: As) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    for place in (here, there):
        await walk(place.admin, "members")
    auditor = await as_(Role.auditor, at=LAO_CAI)
    entries = await walk(auditor, "audit-entries", limit=3)
    assert entries == sorted(entries, key=lambda e: (e["at"], e["id"]), reverse=True)
    whole = await auditor.get("/v1/audit-entries", params={"include_total": True, "limit": 200})
    assert whole.json()["total"] == len(whole.json()["items"]) == len(entries)
    one = await auditor.get(f"/v1/audit-entries/{entries[0]['id']}")
    assert one.json() == entries[0]

    def where(**wanted: Any) -> set[str]:
        return {e["id"] for e in entries if all(e[k] == v for k, v in wanted.items())}

    actor = str(here.admin.principal_id)
    for name, value in (
        ("actor_id", actor),
        ("resource", "teams"),
        ("action", "read"),
        ("row_id", here.household["id"]),
    ):
        found = await ids_in(auditor, "audit-entries", **{name: value})
        assert found == where(**{name: value}), name
        assert found
    units = await ids_in(auditor, "audit-entries", unit_id=str(MUONG_KHUONG))
    grants = where(unit_id=str(MUONG_KHUONG))
    assert units == where(unit_id=here.village["id"]) | grants
    reads = where(unit_id=here.village["id"], action="read")
    assert len(reads) == 1  # all that was shown was in one village
    middle = entries[len(entries) // 2]["at"]
    later = await ids_in(auditor, "audit-entries", at_gte=middle)
    earlier = await ids_in(auditor, "audit-entries", at_lt=middle)
    assert later == {e["id"] for e in entries if e["at"] >= middle}
    assert earlier == {e["id"] for e in entries} - later

    commune = await as_(Role.auditor, at=BAO_THANG)
    own = where(unit_id=there.village["id"]) | where(unit_id=str(BAO_THANG))
    seen = await walk(commune, "audit-entries")
    assert {e["id"] for e in seen} >= own  # and the auditor's own grant
    assert {e["unit_id"] for e in seen} == {there.village["id"], str(BAO_THANG)}
    stranger = await as_(Role.auditor, at=HA_NOI)
    assert {e["unit_id"] for e in await walk(stranger, "audit-entries")} == {str(HA_NOI)}
    assert (await stranger.get(f"/v1/audit-entries/{entries[0]['id']}")).status_code == 404
    dpo = await as_(Role.dpo, at=LAO_CAI)
    assert await ids_in(dpo, "audit-entries", at_lt=entries[0]["at"]) == {
        e["id"] for e in entries if e["at"] < entries[0]["at"]
    }
    assert (await here.admin.get("/v1/audit-entries")).status_code == 403


async def test_what_has_no_place_is_seen_from_the_nation(lao_cai: Province, as_: As) -> None:
    admin = await as_(Role.national_admin)
    names = {"name_vi": "Số", "name_en": "Number", "unit_of_count": "number"}
    made = await make(admin, "indicators", code="declared.audited", **names)
    found = {}
    for name, at in (("nation", {}), ("province", {"at": lao_cai.unit_id})):
        auditor = await as_(Role.auditor, **at)
        entries = await walk(auditor, "audit-entries", row_id=made["id"])
        found[name] = [entry["action"] for entry in entries]
    assert found == {"nation": ["create"], "province": []}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


STATEMENTS = (
    "update {} set {} = null",
    "delete from {}",
    "truncate {}",
)


@pytest.mark.parametrize("table", ["audit_entry", "audit_entry_other", "this month", "audit_seal"])
async def test_nobody_changes_the_audit(
    table: str, lao_cai: Province, database: str, owner_url: str, superuser: AsyncEngine
) -> None:
    assert lao_cai
    async with superuser.connect() as connection:
        await connection.execute(text("select seal_audit()"))
        month = "select 'audit_entry_' || to_char(now() at time zone 'UTC', 'YYYY_MM')"
        name = await connection.scalar(text(month)) if table == "this month" else table
    column = "root" if table == "audit_seal" else "actor_id"
    for url in (database, owner_url, owner_url.replace("noidai_owner@", "postgres@")):
        for statement in STATEMENTS:
            async with connected(url) as connection:
                with pytest.raises(DBAPIError, match=r"only ever added|permission denied"):
                    await connection.execute(text(statement.format(name, column)))


async def test_the_application_chooses_neither_moment_nor_transaction(database: str) -> None:
    engine = create_engine(database)
    for column, value in (("xid", "1"), ("at", "now()"), ("id", "uuidv7()")):
        async with engine.connect() as connection:
            forged = (
                f"insert into audit_entry (action, resource, {column}) values ('a', 'b', {value})"
            )
            with pytest.raises(DBAPIError, match="permission denied"):
                await connection.execute(text(forged))
    async with engine.connect() as connection:
        assert await connection.scalar(text("select count(*) from audit_entry")) == 0
    await engine.dispose()


async def test_every_column_that_is_not_said_to_be_open_is_masked(
    lao_cai: Province, superuser: AsyncEngine, audit: Audit
) -> None:
    place: Place = lao_cai.muong_khuong
    async with superuser.connect() as connection:
        await connection.execute(text("alter table household add column blood_group text"))
        await connection.execute(
            text("update household set blood_group = 'AB-', version = 2 where id = :id"),
            {"id": place.household["id"]},
        )
    (entry,) = await audit.new()
    assert entry["before"] == {"blood_group": None, "version": 1}
    assert entry["after"] == {"blood_group": MASK, "version": 2}


@pytest.mark.parametrize("filters", [{}, {"row_id": str(ids.new_id())}, {"actor_id": "me"}])
async def test_a_list_among_very_many_is_driven_by_an_index(
    filters: dict[str, str], lao_cai: Province, as_: As, superuser: AsyncEngine
) -> None:
    auditor = await as_(Role.auditor, at=MUONG_KHUONG)
    async with superuser.connect() as connection:
        await connection.execute(
            text("""
                insert into audit_entry (at, action, resource, row_id, actor_id, unit_key,
                                         commune_key, province_key)
                select now() - make_interval(secs => n * 5), 'create', 'teams', uuidv7(), uuidv7(),
                       n % 900, n % 300, n % 60 from generate_series(1, 60000) n
            """)
        )
        await connection.execute(text("analyze audit_entry"))
        before = await scans(connection)
        actor = str(lao_cai.muong_khuong.admin.principal_id)
        params = {name: actor if value == "me" else value for name, value in filters.items()}
        answer = await auditor.get("/v1/audit-entries", params=params | {"limit": 5})
        assert answer.status_code == 200
        assert bool(answer.json()["items"]) == ("row_id" not in filters)
        await connection.execute(text("select pg_stat_force_next_flush()"))
        after = await scans(connection)
    assert after - before < 1000, "rows of the whole table were read"


async def scans(connection: AsyncConnection) -> int:
    """Return how many rows of the audit were ever read, by whichever way."""
    read = text("""
        select coalesce(sum(seq_tup_read + idx_tup_fetch), 0) from pg_stat_user_tables
        where relname like 'audit_entry%'
    """)
    return int(await connection.scalar(read) or 0)
