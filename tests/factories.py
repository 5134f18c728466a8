"""People, places and facts of the tests, made over HTTP as somebody, somewhere."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

import httpx
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.auth.passwords import hash_secret
from api.models.role_grants import Role


class Person(httpx.AsyncClient):
    """Somebody who is signed in."""

    principal_id: UUID


As = Callable[..., Awaitable[Person]]
PASSWORD = "a long enough password"

NATION = ids.official_unit_id("nation", "VN")
OLD_LAO_CAI = ids.official_unit_id("province", "10")
LAO_CAI = ids.official_unit_id("province", "15", "2025-07-01")
HA_NOI = ids.official_unit_id("province", "01", "2025-07-01")
MUONG_KHUONG = ids.official_unit_id("commune", "02761", "2025-07-01")
OLD_MUONG_KHUONG = ids.official_unit_id("commune", "02761")
OLD_PHO_LU = ids.official_unit_id("commune", "02905")
BAO_THANG = ids.official_unit_id("commune", "02905", "2025-07-01")
HOAN_KIEM = ids.official_unit_id("commune", "00070", "2025-07-01")


@dataclass
class Country:
    """The service, and the people who sign in; everything else is made over HTTP."""

    app: FastAPI
    superuser: AsyncEngine
    password_hash: str
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    @classmethod
    async def found(cls, app: FastAPI, superuser: AsyncEngine) -> Self:
        """Return the service with nobody signed in yet."""
        return cls(app, superuser, _HASH or await _hash())

    async def sign_in(
        self,
        *roles: Role,
        at: UUID = NATION,
        team: UUID | None = None,
        member: UUID | None = None,
    ) -> Person:
        """Return a client that is signed in as a new person with the roles at a unit."""
        person = ids.new_id()
        async with self.superuser.connect() as connection:
            await connection.execute(
                text("""
                    insert into principal (id, kind, login, secret_hash, name, member_id, version,
                                           created_at, updated_at)
                    values (:id, 'user', :login, :hash, :login, :member, 1, now(), now())
                """),
                {
                    "id": person,
                    "login": f"user.{person}",
                    "hash": self.password_hash,
                    "member": member,
                },
            )
            for role in roles:
                await self.grant(person, role, at, team)
        return self.client_of(person)

    def client_of(self, person: UUID) -> Person:
        """Return a client with a token of somebody who is known already."""
        token, _ = self.app.state.tokens.issue(person, "tests")
        client = Person(
            transport=httpx.ASGITransport(self.app),
            base_url="http://noidai.test",
            headers={"Authorization": f"Bearer {token}", "Accept-Language": "en"},
        )
        client.principal_id = person
        return client

    async def grant(self, person: UUID, role: Role, at: UUID, team: UUID | None = None) -> None:
        """Give a role, as the installation's first administrator would."""
        async with self.superuser.connect() as connection:
            await connection.execute(
                text("""
                    insert into role_grant (id, version, created_at, updated_at, principal_id, role,
                                            unit_id, unit_key, commune_key, province_key, team_id,
                                            expires_at, reason)
                    select :id, 1, now(), now(), :person, :role, u.id, u.key,
                           (select ancestor_key from placement p where p.unit_key = u.key
                            and p.level = 'commune' and p.during @> current_date),
                           coalesce((select ancestor_key from placement p where p.unit_key = u.key
                            and p.level = 'province' and p.during @> current_date), u.key), :team,
                           case :role when 'break_glass' then now() + interval '1 hour' end,
                           case :role when 'break_glass' then 'a test' end
                    from admin_unit u where u.id = :unit
                """),
                {
                    "id": ids.new_id(),
                    "person": person,
                    "role": role.value,
                    "unit": at,
                    "team": team,
                },
            )
        self.app.state.callers.forget(f"principal:{person}")  # as a worker that gave it would


_HASH = ""


async def _hash() -> str:
    global _HASH  # noqa: PLW0603 - argon2 is slow on purpose: once a run is enough
    _HASH = await hash_secret(PASSWORD)
    return _HASH


async def make(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    """POST and return what was created."""
    response = await client.post(f"/v1/{path}", json=body)
    assert response.status_code in {200, 201}, response.text
    created: dict[str, Any] = response.json()
    return created


@dataclass
class Place:
    """A commune with a village, a team there, its leader and a household."""

    unit_id: UUID
    village: dict[str, Any]
    team: dict[str, Any]
    leader: dict[str, Any]
    household: dict[str, Any]
    admin: Person

    @classmethod
    async def found(cls, country: Country, unit_id: UUID, name: str) -> Self:
        """Make a place, as its commune's administrator."""
        admin = await country.sign_in(Role.commune_admin, at=unit_id)
        village = await make(
            admin,
            "admin-units",
            level="village",
            name=f"Thôn {name}",
            type="thôn",
            parent_id=str(unit_id),
            valid_from="2025-07-01",
        )
        team = await make(
            admin,
            "teams",
            name=f"Tổ công nghệ số cộng đồng {name}",
            unit_id=village["id"],
            kind="community_team",
            founded_on="2025-07-02",
        )
        leader = await make(
            admin,
            "members",
            full_name=f"Giàng A {name}",
            birth_year=2000,
            phone="+84912345678",
            memberships=[{"team_id": team["id"], "role": "leader", "joined_on": "2025-07-02"}],
        )
        household = await make(
            admin,
            "households",
            unit_id=village["id"],
            head_name=f"Chủ hộ {name}",
            address="Số 1",
            phone="+84987654321",
        )
        return cls(unit_id, village, team, leader, household, admin)

    def event(self, **changes: Any) -> dict[str, Any]:
        """Return the body of an event of this place's team."""
        return {
            "team_id": self.team["id"],
            "service_type": "ID.ACTIVATE",
            "occurred_at": "2025-08-01T09:00:00+07:00",
            "outcome": "completed",
            "mode": "assisted",
            "channel": "household_visit",
        } | changes


@dataclass
class Province:
    """Lào Cai of today with two communes."""

    country: Country
    unit_id: UUID
    muong_khuong: Place
    bao_thang: Place

    @classmethod
    async def found(cls, country: Country) -> Self:
        """Make the province's two places."""
        return cls(
            country,
            LAO_CAI,
            await Place.found(country, MUONG_KHUONG, "Na Đẩy"),
            await Place.found(country, BAO_THANG, "Phú Thịnh"),
        )

    def written(self) -> str:
        """Return the places as text: they are made once, and copied with their database."""
        places = [
            vars(place) | {"unit_id": str(place.unit_id), "admin": str(place.admin.principal_id)}
            for place in (self.muong_khuong, self.bao_thang)
        ]
        return json.dumps(places)

    @classmethod
    def read(cls, country: Country, written: str) -> Self:
        """Return the province of a copied database."""
        places = [
            Place(
                **place
                | {
                    "unit_id": UUID(place["unit_id"]),
                    "admin": country.client_of(UUID(place["admin"])),
                }
            )
            for place in json.loads(written)
        ]
        return cls(country, LAO_CAI, *places)

    async def leader_of(self, place: Place) -> Person:
        """Sign in the leader of a place's team."""
        return await self.country.sign_in(
            Role.team_leader,
            at=UUID(place.village["id"]),
            team=UUID(place.team["id"]),
            member=UUID(place.leader["id"]),
        )
