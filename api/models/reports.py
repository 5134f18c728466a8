"""Reports: all that a unit sends upward for a period, in one answer."""

from datetime import date, datetime
from uuid import UUID

from sqlmodel import Field

from api.models.closed_periods import Revision
from api.models.observations import ObservationStatus
from api.models.target_progress import ProgressStatus
from api.models.targets import Comparator, TargetMeasure, TargetOwner
from api.models.types import Body, Number, PeriodText, Query

MOST_LISTED = 500


class ReportQuery(Query):
    """Which period is reported."""

    period: PeriodText = Field(
        description="2023, 2023-Q1, 2023-03, 2023-W10, 2023-03-26 or 2023-01-01/2023-03-31"
    )


class ReportUnit(Body):
    """A unit by its name in the period."""

    unit_id: UUID
    code: str | None
    name: str


class ReportIndicator(Body):
    """An indicator in the period, beside what it was in the one before."""

    indicator: str
    name_vi: str
    name_en: str
    unit_of_count: str | None
    value: Number | None
    numerator: Number | None
    denominator: Number | None
    previous_value: Number | None
    change: Number | None = Field(description="`value` - `previous_value`; null where either is")
    status: ObservationStatus


class ReportService(Body):
    """What was done for one service."""

    service_type: str
    name_vi: str
    name_en: str
    unit_of_count: str
    events: int
    quantity: int = Field(description="Of events completed or guided")
    quantity_verified: int


class ReportActivities(Body):
    """The activities of one kind that units hosted."""

    kind: str
    activities: int
    participants: int


class ReportSubunit(Body):
    """A unit directly below, or what lies in the unit but in none below that can be told."""

    unit_id: UUID | None
    code: str | None
    name: str | None
    teams: int | None
    members: int | None
    events: int | None
    villages: int | None
    villages_covered: int | None


class ReportTarget(Body):
    """A target of the unit whose period and this one have days in common, and its progress."""

    target_id: UUID
    indicator: str
    name_vi: str
    name_en: str
    owner: TargetOwner
    period: str
    measure: TargetMeasure
    comparator: Comparator
    target: Number
    value: Number | None = Field(description="As of the report's last day (today, if it runs)")
    attainment: float | None = Field(description="`value` ÷ `target`, not capped")
    status: ProgressStatus
    document: str | None


class ReportVillage(Body):
    """A village without an active team of its own on the period's last day."""

    unit_id: UUID
    name: str
    commune_name: str | None


class ReportTeam(Body):
    """A team that was active on the period's last day, without a counted event in it."""

    team_id: UUID
    name: str
    unit_name: str


class ReportClosing(Body):
    """A closed period of the unit within this one, with its revisions as last looked at."""

    closed_period_id: UUID
    period: str
    closed_at: datetime
    hash: str
    revision_count: int
    revisions: list[Revision] = Field(description="The newest 50 of the unit's own figures")


class Report(Body):
    """A unit's report of a period. Villages and teams are 500 at most; their counts tell of all."""

    unit: ReportUnit
    addressed_to: ReportUnit | None = Field(description="The unit above; null for the nation")
    period: str
    first_on: date
    last_on: date
    complete_through: date
    generated_at: datetime
    data_version: str = Field(description="Changes when any figure of the report does; opaque")
    definition_versions: dict[str, int]
    verified_share: float | None = Field(description="Verified ÷ counted events, 0-100")
    previous_period: str
    indicators: list[ReportIndicator]
    services: list[ReportService]
    activities: list[ReportActivities]
    targets: list[ReportTarget] = Field(description="200 at most")
    units: list[ReportSubunit]
    uncovered_village_count: int | None
    uncovered_villages: list[ReportVillage] = Field(description="None for the nation")
    idle_team_count: int | None = Field(description="null for the nation")
    idle_teams: list[ReportTeam] = Field(description="None for whoever reads no teams")
    closed_periods: list[ReportClosing]
