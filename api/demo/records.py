"""Campaigns of the year, activities with who came, and commendations at its end."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import NamedTuple
from uuid import UUID

from api import ids
from api.clock import REPORTING_ZONE
from api.demo import seasons
from api.demo.people import Team
from api.demo.seed import GENERATED, SAMPLE, YEAR, Seed
from api.models.activities import ActivityKind, Organiser, Partner
from api.models.commendations import RecipientKind

_NAMES = ["Tháng Thanh niên", "Hè tình nguyện", "Ngày Chuyển đổi số quốc gia"]
_EVERY = 4  # of so many teams, one held something
_COMMENDED = 80  # of so many teams, one and its leader are commended
_KINDS = {
    ActivityKind.training: 40.0,
    ActivityKind.outreach: 25.0,
    ActivityKind.launch: 10.0,
    ActivityKind.meeting: 10.0,
    ActivityKind.contest: 8.0,
    ActivityKind.festival: 4.0,
    ActivityKind.club: 3.0,
}
_TITLES = {
    ActivityKind.training: "Tập huấn kỹ năng số",
    ActivityKind.outreach: "Tuyên truyền dịch vụ công trực tuyến",
    ActivityKind.launch: "Ra quân kích hoạt VNeID",
    ActivityKind.meeting: "Họp thôn về chuyển đổi số",
    ActivityKind.contest: "Hội thi tìm hiểu chuyển đổi số",
    ActivityKind.festival: "Ngày hội số",
    ActivityKind.club: "Câu lạc bộ công nghệ số",
}
_ORGANISERS = {Organiser.team: 60.0, Organiser.youth_union: 25.0, Organiser.government: 15.0}
_PARTNERS = {Partner.police: 4.0, Partner.telecom: 3.0, Partner.bank: 2.0, Partner.health: 1.0}
_LAST = date(YEAR, 12, 20)


class CampaignRow(NamedTuple):
    """A row of `campaign`."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    created_by: UUID
    unit_id: UUID
    unit_key: int
    province_key: int
    name: str
    starts_on: date
    ends_on: date
    service_types: str = "{}"
    version: int = 1


class ActivityRow(NamedTuple):
    """A row of `activity`."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    created_by: UUID
    unit_id: UUID
    unit_key: int
    commune_key: int
    province_key: int
    kind: str
    title: str
    organiser: str
    partners: str
    team_id: UUID
    held_on: date
    participants: int
    attendee_ids: str
    campaign_id: UUID | None
    external_ids: str = "{}"
    version: int = 1


class CommendationRow(NamedTuple):
    """A row of `commendation`."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    created_by: UUID
    unit_id: UUID
    unit_key: int
    commune_key: int
    province_key: int
    recipient_kind: str
    recipient_name: str
    team_id: UUID
    member_id: UUID | None
    awarded_on: date
    awarded_by: str
    document: str
    reason: str = GENERATED
    version: int = 1


def campaigns(seed: Seed, province: tuple[str, int], author: UUID) -> list[CampaignRow]:
    """Return the province's campaigns; `province` is the old code and its key."""
    unit = ids.official_unit_id("province", province[0])
    rows = []
    for name, (first, last) in zip(_NAMES, seasons.campaigns(), strict=True):
        made = datetime.combine(first, time(7), REPORTING_ZONE)
        key = province[1]
        row = CampaignRow(
            seed.new_id(made), made, made, author, unit, key, key, f"{name} {SAMPLE}", first, last
        )
        rows.append(row)
    return rows


def running(rows: Sequence[CampaignRow], day: date) -> UUID | None:
    """Return the campaign of a day."""
    return next((row.id for row in rows if row.starts_on <= day <= row.ends_on), None)


def activities(
    seed: Seed, teams: Sequence[Team], of_year: Sequence[CampaignRow], authors: Mapping[UUID, UUID]
) -> list[ActivityRow]:
    """Invent what some of the teams held."""
    return [_activity(seed, team, of_year, authors) for team in teams[::_EVERY]]


def _activity(
    seed: Seed, team: Team, of_year: Sequence[CampaignRow], authors: Mapping[UUID, UUID]
) -> ActivityRow:
    kind = seed.weighted(_KINDS)
    day = min(max(seasons.draw(seed, team.row.founded_on), team.row.founded_on), _LAST)
    came = [member for member in team.members if seed.chance(0.8)]
    if kind is ActivityKind.training:  # it is what these were trained by
        came = [member for member in team.members if member.trained_on]
        day = max((member.trained_on or day for member in came), default=day)
    made = seed.moment(day, 16, 20)
    place = team.row
    return ActivityRow(
        id=seed.new_id(made),
        created_at=made,
        updated_at=made,
        created_by=authors.get(place.id, place.created_by),
        unit_id=place.unit_id,
        unit_key=place.unit_key,
        commune_key=place.commune_key,
        province_key=place.province_key,
        kind=kind,
        title=f"{_TITLES[kind]} {SAMPLE}",
        organiser=seed.weighted(_ORGANISERS),
        partners="{%s}" % (seed.weighted(_PARTNERS) if seed.chance(0.5) else ""),
        team_id=place.id,
        held_on=day,
        participants=seed.random.randint(20, 80),
        attendee_ids="{" + ",".join(str(member.id) for member in came) + "}",
        campaign_id=running(of_year, day),
    )


def commendations(seed: Seed, teams: Sequence[Team]) -> list[CommendationRow]:
    """Commend some teams, and their leaders."""
    made = datetime.combine(_LAST, time(9), REPORTING_ZONE)
    rows = []
    for number, team in enumerate(teams[::_COMMENDED], start=1):
        row, leader = team.row, team.members[0]
        for kind, name, member in (
            (RecipientKind.collective, row.name, None),
            (RecipientKind.individual, leader.full_name, leader.id),
        ):
            rows.append(
                CommendationRow(
                    id=seed.new_id(made),
                    created_at=made,
                    updated_at=made,
                    created_by=row.created_by,
                    unit_id=row.unit_id,
                    unit_key=row.unit_key,
                    commune_key=row.commune_key,
                    province_key=row.province_key,
                    recipient_kind=kind,
                    recipient_name=name,
                    team_id=row.id,
                    member_id=member,
                    awarded_on=_LAST,
                    awarded_by=f"UBND tỉnh {SAMPLE}",
                    document=f"DEMO-{number:03d}/QĐ-KT",
                )
            )
    return rows
