"""Households of the villages, registered in the course of the year."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from json import dumps
from typing import NamedTuple
from uuid import UUID

from api.clock import REPORTING_ZONE
from api.demo.names import person
from api.demo.people import Team
from api.demo.seed import SAMPLE, YEAR, Seed, apportion
from api.models.households import LegalBasis

PER_TEAM = 30_000 / 1562
_NEW_YEAR, _YEARS_END = date(YEAR, 1, 1), date(YEAR, 12, 31)
_DRIVE_DAYS = 90  # most are registered in a drive at the start
_SIZES = {1: 5.0, 2: 11.0, 3: 18.0, 4: 30.0, 5: 20.0, 6: 10.0, 7: 4.0, 8: 2.0}
_SHOPS = ["Tạp hóa", "Quán ăn", "Cửa hàng vật tư", "Homestay", "Sửa xe", "Nông sản"]


class HouseholdRow(NamedTuple):
    """A row of `household`."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    unit_id: UUID
    unit_key: int
    commune_key: int
    province_key: int
    head_name: str
    address: str
    phone: str | None
    people_count: int
    is_business: bool
    business_name: str | None
    consent: str
    external_ids: str = "{}"
    version: int = 1


class Register(NamedTuple):
    """The households of one team's village, the first registered first."""

    moments: list[datetime]
    rows: list[HouseholdRow]

    def known_at(self, moment: datetime) -> Sequence[HouseholdRow]:
        """Return those that were registered by then: one at least since the team's founding."""
        return self.rows[: bisect_right(self.moments, moment)]


def plan(seed: Seed, teams: Sequence[Team], authors: Mapping[UUID, UUID]) -> dict[UUID, Register]:
    """Invent the households that each team looks after, by team id."""
    weights = [seed.random.uniform(0.5, 1.5) for _ in teams]
    counts = apportion(round(len(teams) * PER_TEAM), weights)
    registers = {}
    for team, count in zip(teams, counts, strict=True):
        first = max(_NEW_YEAR, team.row.founded_on)
        opening = datetime.combine(first, time(6, 30), REPORTING_ZONE)
        moments = sorted([opening, *(_registered(seed, first) for _ in range(count - 1))])
        author = authors.get(team.row.id)
        rows = [_household(seed, team, moment, author) for moment in moments]
        registers[team.row.id] = Register(moments, rows)
    return registers


def _registered(seed: Seed, first: date) -> datetime:
    last = first + timedelta(days=_DRIVE_DAYS) if seed.chance(0.7) else _YEARS_END
    return seed.moment(seed.day(first, min(last, _YEARS_END)))


def _household(seed: Seed, team: Team, moment: datetime, author: UUID | None) -> HouseholdRow:
    gender = "female" if seed.chance(0.3) else "male"
    business = seed.chance(0.06)
    village, place = team.village, team.row
    return HouseholdRow(
        id=seed.new_id(moment),
        created_at=moment,
        updated_at=moment,
        created_by=author,
        unit_id=place.unit_id,
        unit_key=place.unit_key,
        commune_key=place.commune_key,
        province_key=place.province_key,
        head_name=person(seed, gender),
        address=f"{village.name}, {village.commune.name} (dữ liệu minh hoạ)",
        phone=seed.phone() if seed.chance(0.6) else None,
        people_count=seed.weighted(_SIZES),
        is_business=business,
        business_name=f"{seed.one(_SHOPS)} {seed.random.randint(1, 99)} {SAMPLE}"
        if business
        else None,
        consent=_consent(seed, moment),
    )


def _consent(seed: Seed, moment: datetime) -> str:
    asked = seed.chance(0.75)
    return dumps(
        {
            "basis": LegalBasis.consent if asked else LegalBasis.state_management,
            "notice_version": "2023-01" if asked else None,
            "method": seed.one(["paper", "verbal"]) if asked else None,
            "given_at": moment.isoformat() if asked else None,
            "withdrawn_at": None,
        }
    )
