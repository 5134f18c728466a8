"""One account a role: who may try what, in the places that the demo is about."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, NamedTuple
from uuid import UUID

from api.clock import REPORTING_ZONE
from api.demo.geography import LAO_CAI, MUONG_KHUONG
from api.demo.people import Team
from api.demo.seed import SAMPLE, YEAR, Seed
from api.models.principals import PrincipalKind
from api.models.role_grants import Role

PASSWORD = "noidai-demo"  # noqa: S105 - printed at every start, of data that is all invented
OPENED = datetime.combine(date(YEAR - 1, 1, 1), time(7), REPORTING_ZONE)
_TITLES = {
    Role.national_admin: "Quản trị quốc gia",
    Role.province_admin: "Quản trị tỉnh",
    Role.commune_admin: "Quản trị xã",
    Role.youth_coordinator: "Điều phối Đoàn Thanh niên",
    Role.ioc_reader: "Trung tâm điều hành thông minh",
    Role.portal_client: "Cổng dịch vụ của tỉnh",
    Role.partner: "Đối tác",
    Role.auditor: "Kiểm toán",
    Role.dpo: "Bảo vệ dữ liệu cá nhân",
}
ROLES = [role for role in Role if role is not Role.break_glass]
"""The roles that are given: breaking a glass is everybody's own doing."""
_AT_A_TEAM = {Role.team_leader: 0, Role.team_member: 2}  # which of the team's members


class Account(NamedTuple):
    """An account to try the service with; its password is `noidai-demo`."""

    role: Role
    username: str
    place: str


class PrincipalRow(NamedTuple):
    """A row of `principal`."""

    id: UUID
    login: str
    secret_hash: str
    name: str
    member_id: UUID | None
    created_by: UUID | None
    created_at: datetime = OPENED
    updated_at: datetime = OPENED
    kind: str = PrincipalKind.user
    must_change_password: bool = False
    version: int = 1


class GrantRow(NamedTuple):
    """A row of `role_grant`."""

    id: UUID
    created_by: UUID
    principal_id: UUID
    role: str
    team_id: UUID | None
    unit_id: UUID
    unit_key: int
    commune_key: int | None
    province_key: int | None
    created_at: datetime = OPENED
    updated_at: datetime = OPENED
    version: int = 1


class Place(NamedTuple):
    """A unit as it stands today."""

    unit_id: UUID
    unit_key: int
    commune_key: int | None
    province_key: int | None
    name: str


class Home(NamedTuple):
    """Where the accounts are: today's units, and a team in that commune."""

    team: Team
    nation: Place
    province: Place
    commune: Place
    village: Place


_TODAY = """
    select u.id, u.key, commune.ancestor_key,
           coalesce(province.ancestor_key, case u.level when 'nation' then u.key end), s.name
    from admin_unit given
    join placement here
      on here.unit_key = given.key and here.level = given.level and here.during @> $2::date
    join admin_unit u on u.key = here.ancestor_key
    join admin_unit_state s on s.unit_key = u.key and s.during @> $2::date
    left join placement commune
      on commune.unit_key = u.key and commune.level = 'commune' and commune.during @> $2::date
    left join placement province
      on province.unit_key = u.key and province.level = 'province' and province.during @> $2::date
    where given.key = $1
"""


def identities(seed: Seed) -> dict[Role, UUID]:
    """Return the ids of the accounts to come."""
    return {role: seed.new_id(OPENED) for role in ROLES}


async def find_home(
    connection: Any, today: date, nation: int, province: tuple[str, int], teams: Sequence[Team]
) -> Home:
    """Find the units of today: Mường Khương town's, or of a commune that was not split."""
    preferred = [
        team
        for team in teams
        if (province[0], team.village.commune.code) == (LAO_CAI, MUONG_KHUONG)
    ]
    for team in [*preferred, *teams]:
        keys = nation, province[1], team.row.commune_key, team.row.unit_key
        rows = [await connection.fetchrow(_TODAY, key, today) for key in keys]
        if all(rows):
            return Home(team, *(Place(*row) for row in rows))
    raise LookupError("every commune was split: no account could be given a place")


def authors(who: Mapping[Role, UUID], teams: Sequence[Team], home: Home) -> dict[UUID, UUID]:
    """Return who recorded the households and events of which team.

    The leader for the team of the accounts, the portal for every tenth, nobody known for others.
    """
    by_team = {team.row.id: who[Role.portal_client] for team in teams[::10]}
    return by_team | {home.team.row.id: who[Role.team_leader]}


def plan(
    seed: Seed, who: Mapping[Role, UUID], home: Home, secret_hash: str
) -> list[tuple[Account, PrincipalRow, GrantRow]]:
    """Open the accounts, each with one grant."""
    return [_open(seed, who, home, secret_hash, role) for role in ROLES]


def _open(
    seed: Seed, who: Mapping[Role, UUID], home: Home, secret_hash: str, role: Role
) -> tuple[Account, PrincipalRow, GrantRow]:
    admin = who[Role.national_admin]
    where = _place(home, role)
    name, member_id, team_id, place = f"{_TITLES.get(role)} {SAMPLE}", None, None, where.name
    if role in _AT_A_TEAM:
        member = home.team.members[_AT_A_TEAM[role]]
        name, member_id, team_id = member.full_name, member.id, home.team.row.id
        place = f"{home.team.row.name}, {home.commune.name}"
    account = Account(role, f"demo.{role}", place)
    author = None if role is Role.national_admin else admin
    principal = PrincipalRow(who[role], account.username, secret_hash, name, member_id, author)
    grant = GrantRow(
        id=seed.new_id(OPENED),
        created_by=admin,
        principal_id=principal.id,
        role=role,
        team_id=team_id,
        unit_id=where.unit_id,
        unit_key=where.unit_key,
        commune_key=where.commune_key,
        province_key=where.province_key,
    )
    return account, principal, grant


def _place(home: Home, role: Role) -> Place:
    match role:
        case Role.national_admin:
            return home.nation
        case Role.commune_admin:
            return home.commune
        case Role.team_leader | Role.team_member:
            return home.village
        case _:
            return home.province
