"""What targets ask: what differs only in unit, team or indicator is one question, if of one fact.

Months of events answer for all periods that are made of them.
"""

from collections.abc import Mapping
from datetime import date
from enum import Enum, auto
from typing import Any, Final, NamedTuple
from uuid import UUID

from api.models.observations import Every
from api.models.types import Level
from api.services import periods
from api.services.event_rolls import ROLLED
from api.services.formulas import formula_of
from api.services.observation_basis import EVENT, nouns_of
from api.services.observation_units import Unit

type Filters = tuple[tuple[str, Any], ...]
"""Parameters of observations with their values, in order."""


class Kind(Enum):
    """How a question is asked."""

    whole = auto()
    """Of a period, as an observation is."""
    teams = auto()
    """Told of single teams."""
    months = auto()
    """Of events by months, which add up to any period made of them."""
    services = auto()
    """The same, by service too."""

    @property
    def in_months(self) -> bool:
        """Whether it is months that are added up."""
        return self in {Kind.months, Kind.services}


class Question(NamedTuple):
    """What many targets may have in common."""

    kind: Kind
    first: date
    last: date
    """`_ANY` where months are added up."""
    day: date
    """The day of the tree."""
    level: Level
    filters: Filters
    masked: bool
    """Whether it is about people whom the caller does not read."""
    facts: frozenset[str]
    """The nouns whose changes alter it: as long as none does, it is not asked again."""


class Need(NamedTuple):
    """One figure that a target rests on."""

    question: Question
    indicator: str
    unit_key: int
    team_id: UUID | None
    first: date
    last: date
    services: tuple[str, ...]


_ANY: Final = date.min
_MOST_MONTHS: Final = 36


def need_of(
    indicator: str,
    unit: Unit,
    days: tuple[date, date],
    day: date,
    *,
    filters: Mapping[str, Any] | None = None,
    team_id: UUID | None = None,
    masked: bool = False,
) -> Need:
    """Return the need of an indicator in a unit, from day to day, under the tree of a `day`."""
    given, (first, last) = dict(filters or {}), days
    services = tuple(sorted(given.get("service_type", ())))
    kind = Kind.teams if team_id else Kind.whole
    formula = formula_of(indicator)
    rolled = all(measure in ROLLED for measure in formula.measures)
    facts = nouns_of(formula)
    if rolled and "team_kind" not in given:
        facts &= {EVENT}  # a team is looked up for its kind
    if kind is Kind.whole and rolled and given.keys() <= {"service_type"} and _months(first, last):
        kind, given = (Kind.services if services else Kind.months), {}
        first = last = _ANY
    known = sorted((name, _hashable(value)) for name, value in given.items())
    question = Question(kind, first, last, day, unit.level, tuple(known), masked, facts)
    return Need(question, indicator, unit.key, team_id, *days, services)


def _hashable(value: Any) -> Any:
    return tuple(sorted(value)) if isinstance(value, list) else value


def _months(first: date, last: date) -> bool:
    """Tell whether days are whole months, and not too many."""
    whole = first.day == 1 and last == periods.piece_of(last, Every.month).last
    return whole and (last.year - first.year) * 12 + last.month - first.month < _MOST_MONTHS
