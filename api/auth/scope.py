"""Scope, written once: where a caller may read or write, as a filter and as a check of one row.

A `Reach` is a set of recorded units: rows carry the unit, commune and province of their own day,
and the reach lists which of these lie in the caller's grants as the tree stands today. Row-level
security in the database applies the same arrays again (`scope_keys`, `scope_teams`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Select,
    Uuid,
    any_,
    false,
    func,
    literal,
    or_,
    select,
)
from sqlmodel import col

from api.auth.permissions import Permission
from api.models.base import Record
from api.models.devices import Device
from api.models.members import Member, Membership
from api.models.statistics import Statistic
from api.models.teams import Team

if TYPE_CHECKING:
    from api.auth.caller import Caller


class PlacedRow(Protocol):
    """What a row must tell for its scope."""

    @property
    def unit_key(self) -> int:
        """The unit itself."""

    @property
    def commune_key(self) -> int | None:
        """Its commune on the row's day."""

    @property
    def province_key(self) -> int | None:
        """Its province on the row's day; the nation's own key for what hangs on the nation."""


class Spot(NamedTuple):
    """Where something is placed."""

    unit_key: int
    commune_key: int | None
    province_key: int | None


def spot_of(row: Mapping[str, Any]) -> Spot:
    """Return where a row is placed."""
    return Spot(row["unit_key"], row["commune_key"], row["province_key"])


@dataclass(frozen=True)
class Reach:
    """The recorded units, and the teams, in which a permission holds."""

    provinces: frozenset[int] = frozenset()
    communes: frozenset[int] = frozenset()
    units: frozenset[int] = frozenset()
    teams: frozenset[UUID] = frozenset()

    def covers(self, row: PlacedRow, *teams: UUID | None) -> bool:
        """Tell whether a row lies within: by its place, or by its team."""
        return (
            row.province_key in self.provinces
            or row.commune_key in self.communes
            or row.unit_key in self.units
            or any(team in self.teams for team in teams)
        )

    def filter(self, table: Any) -> ColumnElement[bool]:
        """Return the condition that keeps the rows of `table` within."""
        columns = table.__table__.c
        terms = [
            *_within(columns.province_key, self.provinces, Integer),
            *_within(columns.commune_key, self.communes, Integer),
            *_within(columns.unit_key, self.units, Integer),
        ]
        if "team_commune_key" in columns:  # an event is also its team's
            terms += _within(columns.team_commune_key, self.communes, Integer)
            terms += _within(columns.team_unit_key, self.units, Integer)
        team = columns.id if table is Team else columns.get("team_id")
        if team is not None:
            terms += _within(team, self.teams, Uuid)
        return or_(false(), *terms)


def _within(column: Any, keys: frozenset[Any], kind: Any) -> list[ColumnElement[bool]]:
    return [column == any_(literal(sorted(keys), ARRAY(kind)))] if keys else []


def visible[Row: Record](
    table: type[Row], caller: "Caller", permission: Permission, *, hidden: bool = False
) -> Select[Row]:
    """Return `select(table)` narrowed to what the caller may see: every read starts here.

    Deleted rows are left out unless `hidden` asks for them.
    """
    reach = caller.reach(permission)
    if table is Member:
        own = select(Membership.member_id).where(reach.filter(Membership))  # type: ignore[call-overload]
        condition = Member.id.in_(own)  # type: ignore[attr-defined]
    elif table is Device:
        teams = select(Team.id).where(reach.filter(Team)).scalar_subquery()  # type: ignore[call-overload]
        condition = col(Device.team_ids).bool_op("&&")(func.array(teams))
    elif table is Statistic:  # a partner's own, or everybody's
        own = reach.filter(table) & (Statistic.created_by == caller.id)
        condition = caller.reach(Permission.all_statistics_read).filter(table) | own
    else:
        condition = reach.filter(table)
    statement = select(table).where(condition)
    return statement if hidden else statement.where(table.deleted_at.is_(None))  # type: ignore[union-attr]
