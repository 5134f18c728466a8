"""A year of support events in plausible shapes."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from api.auth.secrets import Secrets
from api.demo import seasons
from api.demo.catalogue import Catalogue, Service
from api.demo.geography import LAO_CAI, PHO_LU, near
from api.demo.households import Register
from api.demo.people import Team
from api.demo.records import CampaignRow, running
from api.demo.seed import GENERATED, Seed, apportion
from api.models.members import Gender
from api.models.support_events import AgeBand, Channel, EventStatus, Mode, Outcome

_OUTCOMES = {
    Outcome.completed: 70.0,
    Outcome.guided: 20.0,
    Outcome.attempted: 8.0,
    Outcome.referred: 2.0,
}
_MODES = {Mode.assisted: 60.0, Mode.self_served: 25.0, Mode.on_behalf: 15.0}
_STATUSES = {EventStatus.verified: 60.0, EventStatus.submitted: 39.0, EventStatus.rejected: 1.0}
_CHANNELS = {
    Channel.household_visit: 44.0,
    Channel.one_stop_desk: 15.0,
    Channel.meeting: 12.0,
    Channel.market: 8.0,
    Channel.online: 7.0,
    Channel.training: 6.0,
    Channel.campaign_day: 5.0,
    Channel.cooperative: 3.0,
}
_WEEKEND = {Channel.one_stop_desk: 0.0, Channel.market: 2.5, Channel.online: 1.5}
_CAMPAIGN = {Channel.campaign_day: 4.0, Channel.training: 1.5}
_AGES = [  # of each 25 people
    *(AgeBand.under_16,) * 1,
    *(AgeBand.from_16_to_30,) * 6,
    *(AgeBand.from_31_to_59,) * 13,
    *(AgeBand.from_60,) * 5,
]
_GENDERS = [Gender.female, Gender.male]
_PASSERS_BY = len(_AGES) * len(_GENDERS)  # people of a village who come back
_CROWDS = {Channel.meeting, Channel.training, Channel.campaign_day}
_PHO_LU_FACTOR = 2.5


class EventRow(NamedTuple):
    """A row of `support_event`."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    unit_id: UUID
    unit_key: int
    commune_key: int
    province_key: int
    team_id: UUID
    team_unit_key: int
    team_commune_key: int
    member_ids: str
    household_id: UUID | None
    campaign_id: UUID | None
    service_type: str
    occurred_at: datetime
    quantity: int
    outcome: str
    mode: str
    channel: str
    status: str
    beneficiary_age_band: str | None
    beneficiary_gender: str | None
    beneficiary_hash: bytes | None
    beneficiary_key: int
    lat: float | None
    lon: float | None
    note: str = GENERATED
    external_ids: str = "{}"
    version: int = 1


class Beneficiary(NamedTuple):
    """Who was helped, as far as it was noted."""

    age_band: AgeBand | None = None
    gender: Gender | None = None
    hash: bytes | None = None


class World(NamedTuple):
    """What events are about."""

    seed: Seed
    secrets: Secrets
    catalogue: Catalogue
    registers: Mapping[UUID, Register]
    authors: Mapping[UUID, UUID]
    campaigns: Sequence[CampaignRow]


def plan(world: World, province: str, teams: Sequence[Team], total: int) -> list[EventRow]:
    """Invent the events of all teams, in the order in which they were recorded."""
    counts = apportion(total, [_diligence(world.seed, province, team) for team in teams])
    events = [
        _event(world, team) for team, count in zip(teams, counts, strict=True) for _ in range(count)
    ]
    return sorted(events, key=lambda event: event.created_at)


def _diligence(seed: Seed, province: str, team: Team) -> float:
    busy = (province, team.village.commune.code) == (LAO_CAI, PHO_LU)
    work = seed.random.lognormvariate(0, 0.5) * seasons.share(team.row.founded_on)
    return work * (_PHO_LU_FACTOR if busy else 1)


def _event(world: World, team: Team) -> EventRow:
    seed = world.seed
    day = seasons.draw(seed, team.row.founded_on)
    channel = _channel(seed, day)
    service = world.catalogue.draw(seed, channel, day)
    desk, visit = channel is Channel.one_stop_desk, channel is Channel.household_visit
    occurred = seed.moment(day, 8, 16) if desk else seed.moment(day)
    recorded = occurred + _delay(seed)
    household = None
    if visit:
        household = seed.one(world.registers[team.row.id].known_at(occurred)).id
    place, commune = team.row, team.village.commune
    lat, lon = _point(seed, team, desk=desk)
    beneficiary = _beneficiary(world, team, noted=0.6 if visit else 0.7)
    people = seed.random.sample(team.members, 2 if seed.chance(0.3) else 1)
    return EventRow(
        id=seed.new_id(recorded),
        created_at=recorded,
        updated_at=recorded,
        created_by=world.authors.get(place.id),
        unit_id=commune.id if desk else place.unit_id,
        unit_key=commune.key if desk else place.unit_key,
        commune_key=place.commune_key,
        province_key=place.province_key,
        team_id=place.id,
        team_unit_key=place.unit_key,
        team_commune_key=place.commune_key,
        member_ids="{" + ",".join(str(member.id) for member in people) + "}",
        household_id=household,
        campaign_id=running(world.campaigns, day) if channel is Channel.campaign_day else None,
        service_type=service.code,
        occurred_at=occurred,
        quantity=_quantity(seed, channel, service),
        outcome=seed.weighted(_OUTCOMES),
        mode=seed.weighted(_MODES),
        channel=channel,
        status=seed.weighted(_STATUSES),
        beneficiary_age_band=beneficiary.age_band,
        beneficiary_gender=beneficiary.gender,
        beneficiary_hash=beneficiary.hash,
        beneficiary_key=world.secrets.generation,
        lat=lat,
        lon=lon,
    )


def _channel(seed: Seed, day: date) -> Channel:
    weights = dict(_CHANNELS)
    if seasons.is_weekend(day):
        weights |= {each: weights[each] * factor for each, factor in _WEEKEND.items()}
    if seasons.in_campaign(day):
        weights |= {each: weights[each] * factor for each, factor in _CAMPAIGN.items()}
    return seed.weighted(weights)


def _delay(seed: Seed) -> timedelta:
    """Return how long it took to record: minutes, or the days without a network."""
    minutes = 24 * 60 * 3 if seed.chance(0.15) else 60
    return timedelta(seconds=seed.random.randint(60, minutes * 60))


def _quantity(seed: Seed, channel: Channel, service: Service) -> int:
    """Return mostly 1; a crowd is taught at once, a household may bring several dossiers."""
    if service.unit_of_count in {"turn", "person"} and channel in _CROWDS and seed.chance(0.4):
        return seed.random.randint(3, 30)
    return seed.random.randint(2, 3) if seed.chance(0.05) else 1


def _point(seed: Seed, team: Team, *, desk: bool) -> tuple[float | None, float | None]:
    if not seed.chance(0.3):
        return None, None
    where = team.village.commune if desk else team.village.row
    return near(seed, where.lat, where.lon, 0.004)


def _beneficiary(world: World, team: Team, noted: float) -> Beneficiary:
    seed = world.seed
    if not seed.chance(noted):
        return Beneficiary()
    person = seed.random.randrange(_PASSERS_BY)
    known = None
    if seed.chance(0.25):
        known = world.secrets.hash_beneficiary(f"{team.row.decision_number} {person}")
    return Beneficiary(_AGES[person // 2], _GENDERS[person % 2], known)
