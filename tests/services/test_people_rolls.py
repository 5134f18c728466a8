"""Rolls of people: whoever moves, is hidden, erased or renamed meanwhile, they are the facts."""

import random
from collections import Counter
from datetime import timedelta
from itertools import product
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock
from api.auth.secrets import Secrets
from api.db import transaction
from api.models.observations import Every
from api.models.role_grants import Role
from api.services import event_folding, periods
from api.services.hash_keys import rehash
from tests.conftest import SECRET
from tests.factories import LAO_CAI, NATION, As, Province, make
from tests.services.test_event_rolls import differences
from tests.services.test_reorganisations_at_work import MERGER

KEYS = ["first key of thirty-two characters", "second key of thirty-two characters"]
DAYS = [f"{day}T09:00:00+07:00" for day in ("2025-12-31", "2026-02-27", "2026-02-28", "2026-03-02")]
PLACES = (
    {"unit_id": str(NATION)},
    {"unit_id": str(NATION), "level": "province"},
    {"unit_id": str(LAO_CAI), "level": "commune"},
    {"unit_id": str(LAO_CAI), "level": "village"},
)
BOUNDARIES = ("current", "as_recorded", "2026-02-28")
ANYHOW = {"If-Match": "*"}
PEOPLE = ("households.reached", "beneficiaries.distinct")


class Walk:
    """Random steps of two communes, whose people know each other."""

    def __init__(self, lao_cai: Province, seed: int) -> None:
        self.lao_cai, self.dice = lao_cai, random.Random(seed)
        self.places = [lao_cai.muong_khuong, lao_cai.bao_thang]
        self.homes: list[str] = []
        self.events: list[str] = []
        self.keys = 0

    async def begin(self) -> None:
        ahead = clock.now() + timedelta(hours=20)
        self.days = [*DAYS, clock.now().isoformat(), ahead.isoformat()]
        for place in self.places:
            self.homes.append(place.household["id"])
            for name in "AB":
                village = place.village["id"]
                home = await make(place.admin, "households", unit_id=village, head_name=name)
                self.homes.append(home["id"])
        self.portal = await self.lao_cai.country.sign_in(Role.portal_client, at=LAO_CAI)
        self.officer = await self.lao_cai.country.sign_in(Role.dpo, at=LAO_CAI)
        self.province = await self.lao_cai.country.sign_in(Role.commune_admin, at=LAO_CAI)

    async def help(self) -> None:
        n = self.dice.randrange(2)
        body = self.places[n].event(occurred_at=self.dice.choice(self.days))
        if self.dice.random() < 0.2:
            body["unit_id"] = str(self.places[n].unit_id)
        if self.dice.random() < 0.7:
            body["household_id"] = self.dice.choice(self.homes)
        if self.dice.random() < 0.6:
            body["beneficiary"] = {"identifier": f"person {self.dice.randrange(5)}"}
        made = await self.portal.post("/v1/support-events", json=body)
        if made.status_code == 201:
            self.events.append(made.json()["id"])

    async def correct(self) -> None:
        change: dict[str, Any] = {"occurred_at": self.dice.choice(self.days)}
        change["outcome"] = self.dice.choice(["completed", "attempted", "guided"])
        if self.dice.random() < 0.4:
            change["beneficiary"] = {"identifier": f"person {self.dice.randrange(5)}"}
        event = f"/v1/support-events/{self.dice.choice(self.events)}"
        await self.portal.patch(event, json=change, headers=ANYHOW)

    async def void(self) -> None:
        event = self.events.pop(self.dice.randrange(len(self.events)))
        path = f"/v1/support-events/{event}:{self.dice.choice(['void', 'reject'])}"
        await self.province.post(path, json={"reason": "Nhầm"})

    async def move(self) -> None:
        village = self.dice.choice(self.places).village["id"]
        home = f"/v1/households/{self.dice.choice(self.homes)}"
        await self.province.patch(home, json={"unit_id": village}, headers=ANYHOW)

    async def hide(self) -> None:
        path = f"/v1/households/{self.dice.choice(self.homes)}"
        if (await self.province.delete(path, headers=ANYHOW)).status_code == 404:
            await self.province.post(f"{path}:undelete", headers=ANYHOW)

    async def erase(self) -> None:
        named: dict[str, Any] = {"identifier": f"person {self.dice.randrange(5)}"}
        if self.dice.random() < 0.3:
            named = {"household_id": self.dice.choice(self.homes)}
        path = "/v1/data-subject-requests"
        made = await self.officer.post(path, json={"person": named, "kind": "erasure"})
        if made.status_code == 201:  # not of a household that is hidden
            await self.officer.post(f"{path}/{made.json()['id']}:fulfil", json={})

    async def rename(self) -> None:
        self.keys += 1
        keys = [*KEYS, *(f"key {n} of thirty-two characters...." for n in range(self.keys))]
        await rehash(self.lao_cai.country.app.state.engine, Secrets(SECRET, keys))

    async def fold(self) -> None:
        """Fold all that has changed, or a part of it."""
        async with transaction(self.lao_cai.country.app.state.engine, snapshot=True) as session:
            most = {"most": self.dice.choice([1, 3, event_folding.PART])}
            await session.execute(text("select fold_events(:most)"), most)

    async def step(self) -> str:
        steps = {
            self.help: 8,
            self.correct: 3,
            self.void: 1,
            self.move: 2,
            self.hide: 2,
            self.erase: 1,
            self.rename: 1,
            self.fold: 2,
        }
        does = self.dice.choices([*steps], [*steps.values()])[0]
        if self.events or does == self.help:
            await does()
        return str(does.__name__)


async def ask(reader: httpx.AsyncClient, **query: Any) -> Counter[Any]:
    """Return the figures by indicator, period and unit, those of a share before it is divided."""
    answer = await reader.get("/v1/observations", params=query)
    assert answer.status_code == 200, answer.text
    found: Counter[Any] = Counter()
    for item in answer.json()["items"]:
        value = item["numerator"] if item["value"] is None else item["value"]
        found[item["indicator"], item["period"], item["unit_id"]] += value or 0
    return +found


async def assert_told_as_counted(reader: httpx.AsyncClient, dice: random.Random) -> int:
    """Ask by rolls, and in ways that only the facts tell; return how much there was."""
    services = [
        s["code"] for s in (await reader.get("/v1/service-types?limit=200")).json()["items"]
    ]
    month, much = periods.piece_of(clock.today(), Every.month), 0
    same_end = [  # by the end of both the same households were reached: of the second no roll tells
        ("2026-02", "2026-02-02/2026-02-28"),
        ("2026", "2026-01-02/2026-12-31"),
        (month.label, f"{month.first + timedelta(1)}/{month.last}"),
    ]
    for boundary, place in dice.sample([*product(BOUNDARIES, PLACES)], 6):
        asked = place | {"boundary": boundary}
        series = asked | {"indicator": PEOPLE, "every": dice.choice(["month", "quarter", "year"])}
        series["period"] = "2025-01-01/2026-12-31"
        told = await ask(reader, **series)
        assert told == await ask(reader, **series, service_type=services), series
        much += told.total()
        whole, part = dice.choice(same_end)
        ever = asked | {"indicator": "households.reached_share"}
        told, counted = [await ask(reader, **ever, period=days) for days in (whole, part)]
        assert [*told.values()] == [*counted.values()], (ever, whole)
    return much


async def test_a_walk_of_people_is_told_as_it_is_counted(
    as_: As, lao_cai: Province, superuser: AsyncEngine
) -> None:
    reader = await as_(Role.ioc_reader, Role.commune_admin, at=NATION)
    walk = Walk(lao_cai, 1)
    await walk.begin()
    done: Counter[str] = Counter()
    for turn in range(8):
        done.update([await walk.step() for _ in range(20)])
        assert await assert_told_as_counted(reader, walk.dice)
        if turn == 3:
            nation = await lao_cai.country.sign_in(Role.national_admin)
            await make(nation, "reorganisations", **MERGER)
    assert min(done.values()) > 2, done
    assert not any(n for name, n in (await differences(superuser)).items() if name != "rows")
    assert await assert_told_as_counted(reader, walk.dice)
