"""Loading the demo: everything in one transaction, as the application, under its policies."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

from api import clock, ids
from api.auth.passwords import hash_secret
from api.auth.permissions import Permission
from api.auth.secrets import Secrets
from api.db import APP_ROLE
from api.demo import accounts, catalogue, events, geography, households, people, records
from api.demo.accounts import PASSWORD, Account
from api.demo.seed import Seed
from api.demo.writing import insert
from api.models.activities import Activity
from api.models.admin_units import AdminUnit
from api.models.campaigns import Campaign
from api.models.commendations import Commendation
from api.models.households import Household
from api.models.members import Member, Membership
from api.models.principals import Principal
from api.models.role_grants import Role, RoleGrant
from api.models.support_events import SupportEvent
from api.models.teams import Team

type Progress = Callable[[str, float], None]

_LOCK = "select pg_advisory_xact_lock(hashtext('noidai demo'))"
_GENERATED = "select set_config('noidai.generated', 'on', true)"
"""The audit keeps one entry a statement, with the number of rows that were generated."""
_TABLES = (
    *(AdminUnit, Team, Member, Membership, Principal, RoleGrant, Household, SupportEvent),
    *(Campaign, Activity, Commendation),
)
_ANALYZE = ", ".join(
    ["admin_unit_state", "placement", *(str(table.__tablename__) for table in _TABLES)]
)


class DemoError(Exception):
    """One line that says why there is no demo."""


_ACCOUNTS = """
    select g.role, p.login, coalesce(t.name, s.name) as place
    from principal p
    join role_grant g on g.principal_id = p.id
    left join team t on t.id = g.team_id
    join admin_unit_state s on s.unit_key = g.unit_key and s.during @> $2::date
    where p.login = any ($1)
    order by array_position($1, p.login)
"""


async def list_accounts(app_url: str) -> list[Account]:
    """Return the demo's accounts, in the order of the roles; none where there is no demo."""
    async with _transaction(app_url) as connection:
        await _reach_all(connection)
        logins = [f"demo.{role}" for role in accounts.ROLES]
        rows = await connection.fetch(_ACCOUNTS, logins, clock.today())
    return [Account(Role(row["role"]), row["login"], row["place"]) for row in rows]


async def is_empty(app_url: str) -> bool:
    """Tell whether there is neither a principal nor a team yet, deleted ones included."""
    async with _transaction(app_url) as connection:
        await _reach_all(connection)
        used = "select exists (select from principal) or exists (select from team)"
        return not await connection.fetchval(used)


async def load_demo(
    app_url: str,
    secrets: Secrets,
    *,
    province: str = geography.LAO_CAI,
    teams: int = 1562,
    events: int = 60_000,
    progress: Progress | None = None,
    owner_url: str | None = None,
) -> list[Account]:
    """Load a province (its code before 2025-07-01) with generated teams, people and events.

    All or nothing. `progress` hears the step and the part done, 0 to 1. With `owner_url` the
    statistics of the tables are refreshed at once, rather than by autovacuum. Refuses with
    `DemoError`: no such province, no team asked for, or the demo is there already.
    """
    if teams < 1 or events < 0:
        raise DemoError("a demo has at least one team, and no fewer than 0 events")
    tell = progress or (lambda _label, _part: None)
    tell("waiting for the database", 0)
    password = await hash_secret(PASSWORD)
    async with _transaction(app_url) as connection:
        await connection.execute(_LOCK)
        await connection.execute(_GENERATED)
        demo = _Demo(connection, Seed(province), province, tell)
        await demo.enter()
        await demo.found(teams, password)
        await demo.work(secrets, events)
    if owner_url:
        tell("statistics", 0.97)
        await _analyze(owner_url)
    tell("done", 1)
    return demo.accounts


@asynccontextmanager
async def _transaction(app_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(app_url)
    try:
        await connection.execute(f"set role {APP_ROLE}")
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


async def _reach_all(connection: Any) -> None:
    """Reach into the whole country, of every date."""
    rows = await connection.fetch(
        "select key from admin_unit where level in ('nation', 'province')"
    )
    await _reach(connection, [row["key"] for row in rows])


async def _reach(connection: Any, provinces: Sequence[int]) -> None:
    """Give row-level security every permission in some recorded provinces (or the nation)."""
    everything = [permission.value for permission in Permission]
    scopes = json.dumps([{"permissions": everything, "provinces": list(provinces)}])
    await connection.execute("select set_config('noidai.scopes', $1, true)", scopes)


async def _analyze(owner_url: str) -> None:
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.execute(f"analyze {_ANALYZE}")
    finally:
        await connection.close()


class _Demo:
    """One load: the connection, the chance, and what one step leaves for the next."""

    def __init__(self, connection: Any, seed: Seed, province: str, tell: Progress) -> None:
        self.connection, self.seed, self.tell = connection, seed, tell
        self.code, self.nation, self.province = province, 0, 0
        self.who = accounts.identities(seed)
        self.accounts: list[Account] = []
        self.teams: list[people.Team] = []
        self.authors: dict[UUID, UUID] = {}

    async def enter(self) -> None:
        """Find the province of then and of now, and reach into both and the nation."""
        official = [("nation", "VN"), ("province", self.code)]
        keys = [
            await self.connection.fetchval(
                "select key from admin_unit where id = $1", ids.official_unit_id(*unit)
            )
            for unit in official
        ]
        if None in keys:
            raise DemoError(f"no province had the code {self.code!r} before 2025-07-01")
        self.nation, self.province = keys
        mine = "select exists (select from principal where login = any($1))"
        if await self.connection.fetchval(mine, [f"demo.{role}" for role in accounts.ROLES]):
            raise DemoError("the demo is here already")
        through_time = (
            "select distinct ancestor_key from placement where unit_key = $1 and level = 'province'"
        )
        rows = await self.connection.fetch(through_time, self.province)
        await _reach(self.connection, [self.nation, *(row[0] for row in rows)])

    async def found(self, count: int, password: str) -> None:
        """Found the villages, their teams and the accounts."""
        self.tell("villages", 0)
        author = self.who[Role.province_admin]
        communes = await geography.communes(self.connection, self.province)
        villages = geography.plan(self.seed, self.code, communes, count, author)
        await insert(self.connection, AdminUnit, [village.row for village in villages])
        keys = await geography.place(self.connection, villages)
        self.tell("teams and members", 0.06)
        province = self.code, self.province
        self.teams = people.plan(self.seed, province, villages, keys, author)
        stays = [stay for team in self.teams for stay in team.memberships()]
        members = [member for team in self.teams for member in team.members]
        await insert(self.connection, Team, [team.row for team in self.teams])
        await insert(self.connection, Membership, stays)
        await insert(self.connection, Member, members)
        await self._open_accounts(province, password)

    async def _open_accounts(self, province: tuple[str, int], password: str) -> None:
        self.tell("accounts", 0.15)
        home = await accounts.find_home(
            self.connection, clock.today(), self.nation, province, self.teams
        )
        self.authors = accounts.authors(self.who, self.teams, home)
        opened = accounts.plan(self.seed, self.who, home, password)
        self.accounts = [account for account, _, _ in opened]
        await insert(self.connection, Principal, [principal for _, principal, _ in opened])
        await insert(self.connection, RoleGrant, [grant for _, _, grant in opened])

    async def work(self, secrets: Secrets, count: int) -> None:
        """Register the households and record the year's events."""
        self.tell("households", 0.16)
        registers = households.plan(self.seed, self.teams, self.authors)
        rows = sorted(
            (row for register in registers.values() for row in register.rows),
            key=lambda row: row.created_at,
        )
        await insert(self.connection, Household, rows, self._part("households", 0.22, 0.36))
        services = await catalogue.read(self.connection)
        of_year = await self._record()
        world = events.World(self.seed, secrets, services, registers, self.authors, of_year)
        year = events.plan(world, self.code, self.teams, count)
        await insert(self.connection, SupportEvent, year, self._part("events", 0.6, 0.97))

    async def _record(self) -> list[records.CampaignRow]:
        """Run the year's campaigns, hold activities, commend; return the campaigns."""
        seed = Seed(f"{self.code} records")
        author = self.who[Role.province_admin]
        of_year = records.campaigns(seed, (self.code, self.province), author)
        await insert(self.connection, Campaign, of_year)
        held = records.activities(seed, self.teams, of_year, self.authors)
        await insert(self.connection, Activity, held)
        await insert(self.connection, Commendation, records.commendations(seed, self.teams))
        return of_year

    def _part(self, label: str, start: float, end: float) -> Callable[[float], None]:
        return lambda part: self.tell(label, start + part * (end - start))
