"""Progress that is known: a write counts anew only what it can alter, and the next answer is right.

Every answer is held against one of which nothing is known: whose limit nobody asked for before.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date
from itertools import count
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api import clock
from api.models.role_grants import Role
from tests.factories import BAO_THANG, LAO_CAI, MUONG_KHUONG, As, Province, make
from tests.routers.test_target_progress import Plan
from tests.rules import Row
from tests.statements import statements

TODAY = date(2026, 7, 2)
FACTS = {
    "event_roll": "rolls",
    "support_event": "events",
    "team t": "teams",
    "household_turns": "households",
    "statistic s": "statistics",
    "target.comparator": "targets",
}
"""What a statement that reads something says."""
STANDING = {"'team'": "teams", "'member'": "members", "'activity'": "activities"}
"""What one that reads the rolls of what stands is given."""


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)


@pytest.fixture
async def plan(as_: As) -> Plan:
    """Targets of every kind of fact, for two communes and their province."""
    plan = Plan(await as_(Role.province_admin, at=LAO_CAI))
    for unit in (MUONG_KHUONG, BAO_THANG, LAO_CAI):
        here = {"unit_id": str(unit)}
        for code in ("events.count", "events.verified_share", "teams.active", "members.active"):
            await plan.aim(code, 5, **here)
        await plan.aim("events.count", 5, **here, channel="market")
        await plan.aim("events.count", 5, **here, measure="growth", baseline_period="2025")
        await plan.aim("events.count", 5, **here, team_kind="community_team")
        for services in (["ID.USE"], ["ID.ACTIVATE"]):
            await plan.aim("events.quantity", 5, **here, service_types=services)
        for code in ("households.reached", "activities.participants", "population.youth"):
            await plan.aim(code, 5, **here)
        await plan.aim("events.count", 5, **here, denominator="population.youth")
    return plan


@pytest.fixture
async def ask(plan: Plan, as_: As, app: FastAPI) -> Callable[[], Awaitable[set[str]]]:
    """Ask for all progress, hold it against a full count; return what facts were read for it."""
    reader = await as_(Role.ioc_reader, Role.commune_admin, at=LAO_CAI)
    limits = count(1_000)

    async def ask() -> set[str]:
        with statements(app, values=True) as sent:
            answer = await reader.get("/v1/targets/progress")
        items = answer.json()["items"]
        anew = await reader.get(f"/v1/targets/progress?limit={next(limits)}")
        assert items == anew.json()["items"]
        assert len(items) >= len(plan.made) - 1
        with statements(app) as again:
            assert (await reader.get("/v1/targets/progress")).json()["items"] == items
        assert len(again) == 1
        asked = ("events_changed", "changes_of")
        told = " ".join(s for s in sent if not any(part in s for part in asked))
        stands = " ".join(s for s in sent if "standing_roll" in s)
        read = {name for part, name in FACTS.items() if part in told}
        return read | {name for part, name in STANDING.items() if part in stands}

    await ask()
    return ask


async def test_a_write_counts_anew_only_what_it_can_alter(
    ask: Callable[[], Awaitable[set[str]]], plan: Plan, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    leader, officer = await lao_cai.leader_of(here), here.admin
    body = here.event(occurred_at="2026-03-10T09:00:00+07:00", channel="market", quantity=3)
    event = Row(leader, "support-events", (await make(leader, "support-events", **body))["id"])
    others = {"events", "teams", "households"}  # kinds of teams, households reached
    assert await ask() == others
    verified = await officer.post(f"{event.url}:verify")
    assert verified.status_code == 200, verified.text
    assert await ask() == others
    reopened = await plan.client.post(f"{event.url}:reopen", json={"reason": "nhầm"})
    assert reopened.status_code == 200, reopened.text
    await event.patch(unit_id=there.village["id"], service_type="ID.USE", channel="meeting")
    await event.patch(occurred_at="2025-03-10T09:00:00+07:00", quantity=2)
    await event.patch(household_id=here.household["id"])
    assert await ask() == others
    await make(leader, "support-events", **body | {"household_id": here.household["id"]})
    assert await ask() == others
    voided = await officer.post(f"{event.url}:void", json={"reason": "nhầm"})
    assert voided.status_code == 200, voided.text
    assert await ask() == others

    squad = {"unit_id": str(BAO_THANG), "kind": "core_squad", "founded_on": "2026-01-05"}
    team = Row(officer, "teams", (await make(there.admin, "teams", name="Đội", **squad))["id"])
    of_teams = {"teams", "members", "events", "households"}  # by kind
    assert await ask() == of_teams
    stay = {"team_id": team.id, "role": "member", "joined_on": "2026-02-01"}
    await make(there.admin, "members", full_name="Lò Thị Mẩy", memberships=[stay])
    assert await ask() == {"members"}
    dissolved = await Row(there.admin, "teams", team.id).patch(dissolved_on="2026-06-30")
    assert dissolved.status_code == 200, dissolved.text
    assert await ask() == of_teams

    home = {"unit_id": here.village["id"], "head_name": "Giàng A Páo"}
    await make(officer, "households", **home)
    assert await ask() == {"households"}  # reached ones are told by rolls
    meeting = {"kind": "meeting", "title": "Họp thôn", "organiser": "government"}
    meeting |= {"host_unit_id": str(MUONG_KHUONG), "held_on": "2026-05-01"}
    await make(officer, "activities", **meeting, participants=30)
    assert await ask() == {"activities"}
    young = {"indicator": "population.youth", "unit_id": str(MUONG_KHUONG), "value": 40}
    young |= {"attribution": "government", "as_of": "2026-01-01"}
    await make(plan.client, "statistics", **young)
    assert await ask() == {"statistics"}

    target = Row(plan.client, "targets", plan.made[0])
    assert (await target.patch(value=7)).status_code == 200
    assert await ask() == {"targets"}
    await plan.aim("activities.count", 3, unit_id=str(BAO_THANG))
    assert await ask() == {"targets", "activities"}
    await target.delete()
    assert "targets" in await ask()


async def test_a_reorganisation_and_a_service_are_seen(
    ask: Callable[[], Awaitable[set[str]]], as_: As, lao_cai: Province
) -> None:
    here = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(here)
    change = {"kind": "move", "unit_ids": [here.village["id"]], "parent_id": str(BAO_THANG)}
    document = {"number": "7/NQ", "issued_on": "2026-05-01", "issuer": "HĐND"}
    given = {"effective_on": "2026-06-01", "document": document, "changes": [change]}
    admin = await as_(Role.province_admin, at=LAO_CAI)
    event = here.event(occurred_at="2026-03-10T09:00:00+07:00")
    await make(leader, "support-events", **event)
    await ask()
    moved = await admin.post("/v1/reorganisations", json=given)
    assert moved.status_code == 201, moved.text
    assert await ask() >= {"rolls", "events", "teams", "members"}
    await make(leader, "support-events", **event)
    assert "rolls" not in await ask()
    child = {"code": "ID.USE.LC", "parent_code": "ID.USE", "name_vi": "Con", "name_en": "Child"}
    await make(admin, "service-types", **child)
    await make(leader, "support-events", **event | {"service_type": "ID.USE.LC"})
    assert "rolls" in await ask()  # what is counted has changed, and not only events


async def test_answers_are_exact_while_others_write(
    ask: Callable[[], Awaitable[set[str]]], as_: As, lao_cai: Province
) -> None:
    """Whoever asks after a write sees it, however many write and ask at the same time."""
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    leaders = [await lao_cai.leader_of(here), await lao_cai.leader_of(there)]
    reader = await as_(Role.province_admin, at=LAO_CAI)
    province = next(  # of the province, without filters
        target
        for target in (await reader.get("/v1/targets?limit=100")).json()["items"]
        if (target["unit_id"], target["indicator"]) == (str(LAO_CAI), "events.count")
        and not (target["channel"] or target["team_kind"] or target["denominator"])
        and target["measure"] == "period"
    )
    written = 0

    async def seen(client: httpx.AsyncClient) -> int:
        items = (await client.get("/v1/targets/progress")).json()["items"]
        value: int = next(i["value"] for i in items if i["target_id"] == province["id"])
        return value

    async def write(leader: Any, place: Any) -> None:
        nonlocal written
        body = place.event(occurred_at="2026-03-10T09:00:00+07:00", channel="market")
        for _ in range(8):
            await make(leader, "support-events", **body)
            written += 1

    async def watch() -> None:
        for _ in range(8):
            least = written
            assert least <= await seen(reader) <= 16

    async def found() -> None:
        for day in range(1, 9):
            team = {"unit_id": str(BAO_THANG), "kind": "core_squad"}
            await make(there.admin, "teams", **team, name="Đội", founded_on=f"2026-01-0{day}")

    writers = [write(leader, p) for leader, p in zip(leaders, (here, there), strict=True)]
    await asyncio.gather(*writers, found(), watch(), watch(), watch())
    assert await seen(reader) == 16
    await ask()
