"""Teams and their members, at the scale and in the proportions published for Lào Cai in 2023."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from api.demo.geography import BAO_YEN, LAO_CAI, Village
from api.demo.names import BAN_4_VANH, person
from api.demo.seed import YEAR, Seed
from api.models.members import Gender, MembershipRole
from api.models.teams import EstablishingBody, TeamKind

MEMBERS_PER_TEAM = 7363 / 1562
YOUTH_SHARE = 0.4
_SIZES = {3: 16.0, 4: 30.0, 5: 31.0, 6: 14.0, 7: 6.0, 8: 3.0}
_BAN_4_VANH_SIZE = 5
_FOUNDING = {  # first and last days of the waves, and how many teams each brought
    (date(2022, 3, 15), date(2022, 6, 30)): 35.0,
    (date(2022, 7, 1), date(2022, 12, 20)): 57.0,
    (date(2023, 1, 3), date(2023, 2, 28)): 8.0,
}
_LAST_TRAINING = date(YEAR, 12, 15)
_YOUNG_JOBS = ["Đoàn viên", "Giáo viên", "Nông dân", "Sinh viên", "Kinh doanh", "Công nhân"]
_OTHER_JOBS = ["Nông dân", "Chi hội viên", "Công an viên", "Cán bộ y tế", "Kinh doanh", "Hưu trí"]


class TeamRow(NamedTuple):
    """A row of `team`."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    created_by: UUID
    unit_id: UUID
    unit_key: int
    commune_key: int
    province_key: int
    name: str
    founded_on: date
    decision_number: str
    zalo_group_url: str | None
    kind: str = TeamKind.community_team
    establishing_body: str = EstablishingBody.commune
    external_ids: str = "{}"
    version: int = 1


class MemberRow(NamedTuple):
    """A row of `member`."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    created_by: UUID
    full_name: str
    birth_year: int
    gender: str
    phone: str
    occupation: str
    is_youth_union_member: bool
    trained_on: date | None
    external_ids: str = "{}"
    version: int = 1


class MembershipRow(NamedTuple):
    """A row of `membership`."""

    team_id: UUID
    member_id: UUID
    joined_on: date
    role: str
    unit_id: UUID
    unit_key: int
    commune_key: int
    province_key: int


class Team(NamedTuple):
    """A team with its people: the leader first, then the deputy."""

    row: TeamRow
    village: Village
    members: list[MemberRow]

    def memberships(self) -> list[MembershipRow]:
        """Return the stays of its people, from the founding on."""
        roles = [MembershipRole.leader, MembershipRole.deputy]
        roles += [MembershipRole.member] * len(self.members)
        place = self.row.unit_id, self.row.unit_key, self.row.commune_key, self.row.province_key
        return [
            MembershipRow(self.row.id, member.id, self.row.founded_on, role, *place)
            for member, role in zip(self.members, roles, strict=False)
        ]


def plan(
    seed: Seed,
    province: tuple[str, int],
    villages: Sequence[Village],
    keys: Mapping[UUID, int],
    author: UUID,
) -> list[Team]:
    """Found a team in each village; `province` is the old code and its key."""
    sizes = _sizes(seed, [village.name == BAN_4_VANH for village in villages])
    youth = _youth(seed, sizes)
    teams = []
    for number, village in enumerate(villages, start=1):
        key = keys[village.row.id]
        row = _team(seed, number, village, (key, province[1]), author, province[0])
        members = [
            _member(seed, row, village, leads=place == 0, young=(number - 1, place) in youth)
            for place in range(sizes[number - 1])
        ]
        teams.append(Team(row, village, members))
    return teams


def _sizes(seed: Seed, fixed: Sequence[bool]) -> list[int]:
    """Return the size of each team; together they have the published number of members."""
    total = round(len(fixed) * MEMBERS_PER_TEAM)
    sizes = [_BAN_4_VANH_SIZE if known else seed.weighted(_SIZES) for known in fixed]
    while difference := total - sum(sizes):
        i = seed.random.randrange(len(sizes))
        wanted = sizes[i] + (1 if difference > 0 else -1)
        if not fixed[i] and wanted in _SIZES:
            sizes[i] = wanted
    return sizes


def _youth(seed: Seed, sizes: Sequence[int]) -> set[tuple[int, int]]:
    """Return who is youth, as (team, place in the team): few leaders, the exact share of all."""
    leaders = [(team, 0) for team in range(len(sizes))]
    others = [(team, place) for team, size in enumerate(sizes) for place in range(1, size)]
    total = round(sum(sizes) * YOUTH_SHARE)
    leading = seed.random.sample(leaders, round(len(leaders) * 0.15))
    return {*leading, *seed.random.sample(others, total - len(leading))}


def _team(
    seed: Seed,
    number: int,
    village: Village,
    keys: tuple[int, int],
    author: UUID,
    province: str,
) -> TeamRow:
    founded = seed.day(*seed.weighted(_FOUNDING))
    made = seed.moment(founded, 8, 16)
    has_zalo = (province, village.commune.district) == (LAO_CAI, BAO_YEN) or seed.chance(0.89)
    return TeamRow(
        id=seed.new_id(made),
        created_at=made,
        updated_at=made,
        created_by=author,
        unit_id=village.row.id,
        unit_key=keys[0],
        commune_key=village.commune.key,
        province_key=keys[1],
        name=f"Tổ công nghệ số cộng đồng {village.name}",
        founded_on=founded,
        decision_number=f"DEMO-{number:04d}/QĐ-UBND",
        zalo_group_url=f"https://zalo.example/g/demo-{number:04d}" if has_zalo else None,
    )


def _member(seed: Seed, team: TeamRow, village: Village, *, leads: bool, young: bool) -> MemberRow:
    """Invent somebody; youth stays young for years, the others are clearly older."""
    gender = Gender.female if seed.chance(0.3 if leads else 0.52) else Gender.male
    in_union = young and seed.chance(0.6)
    if in_union and seed.chance(0.1):  # an older cadre of the union counts as youth, too
        age = seed.random.randint(31, 34)
    else:
        age = seed.random.randint(18, 26) if young else seed.random.randint(36, 64)
    trained_on = None
    if seed.chance(0.7):
        trained_on = seed.day(team.founded_on, _LAST_TRAINING)
    return MemberRow(
        id=seed.new_id(team.created_at),
        created_at=team.created_at,
        updated_at=team.created_at,
        created_by=team.created_by,
        full_name=person(seed, gender),
        birth_year=YEAR - age,
        gender=gender,
        phone=seed.phone(),
        occupation=_occupation(seed, village, leads=leads, young=young),
        is_youth_union_member=in_union,
        trained_on=trained_on,
    )


def _occupation(seed: Seed, village: Village, *, leads: bool, young: bool) -> str:
    if leads:
        of_union = young and village.name != BAN_4_VANH  # that one is known to be the head
        return "Bí thư chi đoàn" if of_union else f"Trưởng {village.type}"
    return seed.one(_YOUNG_JOBS if young else _OTHER_JOBS)
