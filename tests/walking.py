"""Random steps through what stands in a province: teams, members, households, activities."""

import random
from datetime import timedelta
from typing import Any

from api import clock
from api.models.role_grants import Role
from tests.factories import LAO_CAI, Province

ANYHOW = {"If-Match": "*"}
FOUNDED = ["2025-07-02", "2025-12-31", "2026-02-28", "2026-03-01", "2026-11-01"]
KINDS = ["community_team", "core_squad", "expert_group"]


class Walk:
    """Random steps of one who may write everything of a province, beside others."""

    def __init__(self, lao_cai: Province, shared: list[list[str]], seed: int) -> None:
        self.lao_cai, self.dice = lao_cai, random.Random(seed)
        self.teams, self.people, self.units = shared

    async def begin(self) -> None:
        self.admin = await self.lao_cai.country.sign_in(Role.commune_admin, at=LAO_CAI)

    def day(self) -> str:
        return self.dice.choice([*FOUNDED, str(clock.today()), str(clock.today() - timedelta(3))])

    def one(self, of: list[str]) -> str:
        return self.dice.choice(of)

    async def change(self, path: str, **changes: Any) -> None:
        await self.admin.patch(path, json=changes, headers=ANYHOW)

    async def found(self) -> None:
        team = {"name": "Tổ", "kind": self.one(KINDS), "unit_id": self.one(self.units)}
        made = await self.admin.post("/v1/teams", json=team | {"founded_on": self.day()})
        if made.status_code == 201:
            self.teams.append(made.json()["id"])

    async def alter(self) -> None:
        change: dict[str, Any] = self.dice.choice(
            [
                {"dissolved_on": self.day()},
                {"dissolved_on": None},
                {"kind": self.one(KINDS)},
                {"unit_id": self.one(self.units)},
                {"founded_on": self.day()},
                {"zalo_group_url": self.dice.choice(["https://zalo.me/g/1", None])},
            ]
        )
        await self.change(f"/v1/teams/{self.one(self.teams)}", **change)

    async def hide(self) -> None:
        noun, known = self.dice.choice([("teams", self.teams), ("members", self.people)])
        path = f"/v1/{noun}/{self.one(known)}"
        if (await self.admin.delete(path, headers=ANYHOW)).status_code == 404:
            await self.admin.post(f"{path}:undelete", headers=ANYHOW)

    async def enter(self) -> None:
        stays = [{"team_id": team, "joined_on": self.day()} for team in {self.one(self.teams)}]
        person = {"full_name": "Giàng A Sa", "birth_year": self.dice.choice([1970, 1996, 2010])}
        made = await self.admin.post("/v1/members", json=person | {"memberships": stays})
        if made.status_code == 201:
            self.people.append(made.json()["id"])

    async def join(self) -> None:
        path = f"/v1/memberships/{self.one(self.teams)}/{self.one(self.people)}"
        await self.admin.put(path, json={"role": "member", "joined_on": self.day()})

    async def leave(self) -> None:
        await self.admin.delete(f"/v1/memberships/{self.one(self.teams)}/{self.one(self.people)}")

    async def grow(self) -> None:
        change: dict[str, Any] = self.dice.choice(
            [
                {"birth_year": self.dice.choice([1970, 1996, 2010, None])},
                {"is_youth_union_member": self.dice.random() < 0.5},
                {"trained_on": self.dice.choice([self.day(), None])},
            ]
        )
        await self.change(f"/v1/members/{self.one(self.people)}", **change)

    async def gather(self) -> None:
        body: dict[str, Any] = {"kind": "training", "title": "Lớp", "organiser": "team"}
        body |= {"unit_id": self.one(self.units), "held_on": self.day()}
        body["attendee_ids"] = self.dice.sample(self.people, min(len(self.people), 2))
        made = await self.admin.post("/v1/activities", json=body)
        if made.status_code == 201 and self.dice.random() < 0.5:
            path = f"/v1/activities/{made.json()['id']}"
            await self.change(path, participants=9, kind=self.dice.choice(["course", "meeting"]))
            if self.dice.random() < 0.5:
                await self.admin.delete(path, headers=ANYHOW)

    async def register(self) -> None:
        body = {"unit_id": self.one(self.units), "head_name": "Chủ hộ"}
        made = await self.admin.post("/v1/households", json=body)
        if made.status_code == 201 and self.dice.random() < 0.5:
            path = f"/v1/households/{made.json()['id']}"
            await self.change(path, unit_id=self.one(self.units))
            if self.dice.random() < 0.5:
                await self.admin.delete(path, headers=ANYHOW)

    async def step(self) -> str:
        steps = {
            self.found: 2,
            self.alter: 4,
            self.hide: 3,
            self.enter: 2,
            self.join: 5,
            self.leave: 2,
            self.grow: 3,
            self.gather: 2,
            self.register: 2,
        }
        does = self.dice.choices([*steps], [*steps.values()])[0]
        await does()
        return str(does.__name__)


async def begin(lao_cai: Province, walkers: int) -> list[Walk]:
    """Return walkers who know the same teams, people and units."""
    places = (lao_cai.muong_khuong, lao_cai.bao_thang)
    units = [str(place.unit_id) for place in places] + [place.village["id"] for place in places]
    shared = [[place.team["id"] for place in places], [place.leader["id"] for place in places]]
    walks = [Walk(lao_cai, [*shared, units], seed) for seed in range(walkers)]
    for walk in walks:
        await walk.begin()
    return walks
