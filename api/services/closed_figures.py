"""The figures of a closed period: counted once, kept with a hash, compared with the live ones.

They are what `/observations` tells with boundary=as_recorded to somebody who reads everything,
so that it makes no difference who closes or who looks. Figures about people are apart: a copy of
them that stays while the live ones move would give small places away, so it is only for whoever
reads the people of the whole unit (and so is its hash, by which a few people could be guessed).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller, enter, written
from api.auth.loading import resolve
from api.auth.permissions import FACT_READS, Permission
from api.models.observations import (
    OBSERVATIONS,
    Boundary,
    By,
    Observation,
    ObservationQuery,
)
from api.models.types import Level
from api.services.formulas import FORMULAS
from api.services.observation_basis import Basis
from api.services.observations import observe

BY_SERVICE: Final = ("events.count", "events.quantity", "events.quantity_verified")
"""What is told by service too, for the unit itself."""
BELOW: Final = {
    Level.nation: Level.province,
    Level.province: Level.commune,
    Level.district: Level.commune,
    Level.commune: Level.village,
}
"""The units whose figures are frozen with those of a unit."""
_LEVELS: Final = list(Level)
_LEVEL_OF: Final = {"communes": Level.commune, "districts": Level.district}

type Cell = tuple[str, str, str]
"""Indicator, unit's id and service's code, empty where there is none."""


class Figures(NamedTuple):
    """What was counted, and what that rests on."""

    items: list[Observation]
    data_version: str
    verified_share: float | None
    definition_versions: dict[str, int]
    bases: tuple[Basis, ...]


def codes_for(level: Level, known: Iterable[str]) -> list[str]:
    """Return the computed indicators that say something about a unit of a level.

    Not those that say nothing without a parameter of the reader's.
    """
    lowest = _LEVELS.index(level)
    return [
        code
        for code in known
        if code in FORMULAS
        and FORMULAS[code].needs is None
        and _LEVELS.index(_LEVEL_OF.get(code.partition(".")[0], Level.village)) >= lowest
    ]


def question(
    codes: Sequence[str], unit_id: UUID, period: str, level: Level | None, by: By | None = None
) -> ObservationQuery:
    """Return the query of a unit's figures as recorded; of more indicators than one may ask for."""
    query = ObservationQuery(
        indicator=["teams.active"],
        unit_id=unit_id,
        period=period,
        level=level,
        by=by,
        boundary=Boundary.as_recorded.value,
    )
    return query.model_copy(update={"indicator": list(codes)})


async def everywhere(session: AsyncSession, caller: Caller) -> Caller:
    """Return who counts for a closed period: everything in reach, people included."""
    nation = await session.scalar(text("select key from admin_unit where level = 'nation'"))
    roots = frozenset({int(nation or 0)})
    reach = (await resolve(session, {roots}, caller.tree))[roots]
    reaches = dict.fromkeys((Permission.aggregates_read, Permission.people_read), reach)
    scopes = written({**reaches, **dict.fromkeys(FACT_READS, reach)})
    return replace(caller, grants=(), reaches=reaches, scopes=scopes)


async def count(
    session: AsyncSession,
    caller: Caller,
    unit_id: UUID,
    level: Level,
    period: str,
    codes: Sequence[str],
) -> Figures:
    """Count a unit, the units directly below it, and its events by service, in one snapshot.

    The session is the caller's again when it is done.
    """
    counter = await everywhere(session, caller)
    asked = [question(codes_for(level, codes), unit_id, period, None)]
    if below := BELOW.get(level):
        asked.append(question(codes_for(below, codes), unit_id, period, below))
    if by_service := [code for code in BY_SERVICE if code in codes]:
        asked.append(question(by_service, unit_id, period, None, By.service_type))
    items, bases, versions, definitions = [], [], [], dict[str, int]()
    verified_share = None
    for query in asked:
        if not query.indicator:
            continue
        await enter(session, counter)
        observed = await observe(session, counter, query)
        answer = observed.answer
        items += answer.items
        bases.append(observed.basis)
        versions.append(answer.meta.data_version)
        definitions |= answer.meta.definition_versions
        verified_share = verified_share or answer.meta.verified_share
    await enter(session, caller)
    version = hashlib.sha256(" ".join(versions).encode()).hexdigest()[:16]
    return Figures(items, version, verified_share, definitions, tuple(bases))


def is_people(code: str) -> bool:
    """Tell whether an indicator counts people by age, households or beneficiaries."""
    return code in FORMULAS and FORMULAS[code].people


def hash_of(
    unit_id: UUID, period: str, definitions: Mapping[str, int], items: Iterable[Observation]
) -> str:
    """Return the hash that `ClosedPeriodItem` describes: anybody can compute it from the answer.

    Of shares it takes the numbers that they are made of, so that nothing hangs on how a quotient
    is written.
    """
    ordered = sorted(items, key=cell_of)
    figures = [
        {
            "indicator": item.indicator,
            "unit_id": item.unit_id and str(item.unit_id),
            "service_type": item.service_type,
            "unit_of_count": item.unit_of_count,
            "status": item.status.value,
            "value": item.value if item.numerator is None else None,
            "numerator": item.numerator,
            "denominator": item.denominator,
        }
        for item in ordered
    ]
    told = {
        "unit_id": str(unit_id),
        "period": period,
        "definition_versions": {item.indicator: definitions[item.indicator] for item in ordered},
        "figures": figures,
    }
    canonical = json.dumps(told, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def cell_of(item: Observation) -> Cell:
    """Return which figure an item is."""
    return item.indicator, str(item.unit_id or ""), item.service_type or ""


class Known(NamedTuple):
    """A frozen figure, or a revision of one: the newest that is known of a cell."""

    cell: Cell
    was: float | None
    became: float | None


def changes(
    frozen: Sequence[Observation],
    revised: Mapping[Cell, float | None],
    live: Sequence[Observation],
) -> list[Known]:
    """Return what the live figures are, of those that are not as they were last known.

    What a sparse answer leaves out is nothing: 0 of a count, no share.
    """
    old = {cell_of(item): item for item in frozen}
    new = {cell_of(item): item for item in live}
    found = []
    for cell in sorted(old.keys() | new.keys() | revised.keys()):
        nothing = _nothing(old.get(cell) or new.get(cell))
        was = revised.get(cell, old[cell].value if cell in old else nothing)
        became = new[cell].value if cell in new else nothing
        if was != became:
            found.append(Known(cell, was, became))
    return found


def _nothing(item: Observation | None) -> float | None:
    is_share = item is None or item.numerator is not None
    return None if is_share else 0


_READ = text("""
    select people, hash, figures from closed_figures where closed_period_id = :id order by people
""")
_REVISIONS = text("""
    select people, number, at, indicator, unit_id, service_type, was, became
    from closed_period_revision where closed_period_id = :id order by at, people, number
""")


class Frozen(NamedTuple):
    """The figures of one kind, about people or not, with their hash."""

    people: bool
    hash: str
    items: list[Observation]


async def read_frozen(session: AsyncSession, closed_period_id: UUID) -> list[Frozen]:
    """Return what the caller may read of the frozen figures: those about people come second."""
    rows = await session.execute(_READ, {"id": closed_period_id})
    return [Frozen(r.people, r.hash, OBSERVATIONS.validate_python(r.figures)) for r in rows]


class RevisionRow(NamedTuple):
    """A kept revision."""

    people: bool
    number: int
    at: datetime
    indicator: str
    unit_id: UUID | None
    service_type: str | None
    was: float | None
    became: float | None

    @property
    def cell(self) -> Cell:
        """Return which figure it revises."""
        return self.indicator, str(self.unit_id or ""), self.service_type or ""


async def read_revisions(session: AsyncSession, closed_period_id: UUID) -> list[RevisionRow]:
    """Return the revisions that the caller may read, in the order in which they were seen."""
    rows = await session.execute(_REVISIONS, {"id": closed_period_id})
    return [RevisionRow(*row) for row in rows]
