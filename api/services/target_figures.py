"""The figures that targets rest on: counted as observations are, many targets at once.

The number of statements follows that of the different questions (see `target_questions`), not that
of the targets; a question whose facts have not changed since is not asked again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import Caller
from api.errors import ValidationFailed
from api.models.observations import (
    Boundary,
    By,
    Every,
    ObservationQuery,
    ObservationStatus,
)
from api.services import periods
from api.services.event_rolls import ROLLED, Rolls, find_rolls
from api.services.formulas import formula_of
from api.services.measures import FILTERS, TEAM, Formula, Measure
from api.services.observation_basis import Basis, Change, find_basis
from api.services.observation_cells import Figure
from api.services.observation_cells import Figures as Numbers
from api.services.observation_counts import (
    count_in_columns,
    enter_territory,
    find_catalogue,
    find_figures,
    services_of,
)
from api.services.observation_land import Land, find_land
from api.services.observation_people import check_allowed, is_hidden
from api.services.observation_tables import Pages
from api.services.observation_units import Asked, Unit
from api.services.periods import Period
from api.services.target_events import Events, Told, add_events, count_events
from api.services.target_questions import Kind, Need, Question
from api.services.target_sums import Sums

type Figures = Mapping[Question, Mapping[Need, Figure]]
"""The figure of every need, by the question that it belongs to."""


@dataclass(frozen=True)
class Part:
    """A question, understood, with everything that is asked in it."""

    question: Question
    asked: Asked
    indicators: Sequence[Any]
    needs: Collection[Need]
    catalogue: Sequence[Any]

    @property
    def formulas(self) -> list[Formula]:
        """How what is asked is worked out."""
        return [formula_of(indicator.code) for indicator in self.indicators]

    @property
    def counts_events(self) -> bool:
        """Whether any figure of it is of events."""
        return any(By.service_type in formula.dimensions for formula in self.formulas)

    @property
    def by(self) -> str | None:
        """What its numbers are told apart by, to be added up."""
        return TEAM if self.question.kind is Kind.teams else self.asked.query.by

    def is_masked(self, indicator: Any) -> bool:
        """Tell whether an indicator counts people whom the caller does not read."""
        return self.question.masked and formula_of(indicator.code).people


class Found(NamedTuple):
    """The figures of all questions, and what they were made of."""

    figures: Figures
    events: Mapping[Question, Events]
    basis: Basis


_DEFINITIONS = text("""
    select code, unit_of_count from indicator where code = any(cast(:codes as text[]))
""")
_LISTS: Final = frozenset(FILTERS)
_UNDERSTOOD_BY: Final = frozenset({"tree", "indicator", "service_type"})
"""The nouns by which a question is understood."""
_FEW_UNITS: Final = 10
"""With more of them, whole provinces are shown: the database would look for each row's unit in a
list of thousands. Each fact is placed when it is counted, so that this adds nothing."""
_HIDDEN: Final = Figure(None, None, None, ObservationStatus.suppressed)


async def find_parts(
    session: AsyncSession, needs: Iterable[Need], units: Mapping[int, Unit], as_of: date
) -> list[Part]:
    """Put together what is one question; the units of one level do not lie in each other."""
    together: dict[Question, set[Need]] = {}
    for need in needs:
        together.setdefault(need.question, set()).add(need)
    codes = sorted({need.indicator for several in together.values() for need in several})
    found = await session.execute(_DEFINITIONS, {"codes": codes})
    definitions = {row.code: row for row in found}
    catalogue = await find_catalogue(session)
    parts = []
    for question, several in together.items():
        services = {code for need in several for code in need.services}
        asked = _asked(question, several, units, as_of, services_of(catalogue, services))
        indicators = [definitions[code] for code in asked.query.indicator]
        parts.append(Part(question, asked, indicators, several, catalogue))
    return parts


def _asked(
    question: Question,
    needs: Collection[Need],
    units: Mapping[int, Unit],
    as_of: date,
    services: Mapping[str, str],
) -> Asked:
    filters = dict(question.filters)
    if codes := {code for need in needs for code in need.services}:
        filters["service_type"] = sorted(codes)
    first, last = min(n.first for n in needs), max(n.last for n in needs)
    whole = Period(f"{first}/{last}", first, last)
    return Asked(
        query=ObservationQuery.model_construct(
            **{name: filters.get(name, []) for name in _LISTS},
            **{name: value for name, value in filters.items() if name not in _LISTS},
            indicator=sorted({need.indicator for need in needs}),
            period=whole.label,
            boundary=Boundary.as_recorded.value if question.masked else question.day.isoformat(),
            by=By.service_type if question.kind is Kind.services else None,
        ),
        today=as_of,
        whole=whole,
        pieces=tuple(periods.cut(whole, Every.month)) if question.kind.in_months else (whole,),
        level=None,
        roots=tuple(units[key] for key in sorted({need.unit_key for need in needs})),
        services=services,
        teams=tuple(sorted({need.team_id for need in needs if need.team_id})),
    )


async def count_parts(
    session: AsyncSession,
    caller: Caller,
    parts: Sequence[Part],
    units: Mapping[int, Unit],
    before: Found | None = None,
    change: Change | None = None,
) -> Found:
    """Return the figure of every need, as the observation of its unit under its tree.

    And what they all rest on, targets included. Of those from `before` the `change` only what it
    alters is counted. From here on the transaction shows what lies in the units, and no longer the
    caller's rows.
    """
    held, moved = _standing(parts, before, change)
    anew = [p for p in parts if p.question not in held and p.question not in moved]
    pages = {p.question: page for p in parts if (page := await _pages(session, caller, p))}
    rolls = {p.question: r for p in anew if (r := await _rolls(session, caller, p))}
    lands = [page.land for page in pages.values()]
    if len(units) > _FEW_UNITS:
        lands.append(await find_land(session, caller, list(units.values())))
    told_by = [each for each, _ in rolls.values()]
    basis = await _enter(session, caller, parts, anew, lands, told_by, units)
    events = await count_events(session, rolls)
    figures: dict[Question, Mapping[Need, Figure]] = {}
    for part in anew:
        question = part.question
        told = events[question].told if question in events else {}
        figures[question] = await _count(session, part, told, pages.get(question))
    if before:
        figures |= {question: before.figures[question] for question in held}
        events |= {question: before.events[question] for question in held & before.events.keys()}
        known = {question: before.events[question] for question in moved}
        added = await add_events(session, known, before.basis.snapshot)
        for part in parts:
            if found := added.get(part.question):
                events[part.question] = found.events
                few = await _count(session, part, found.events.told, None, found.units)
                figures[part.question] = {**before.figures[part.question], **few}
    return Found(figures, events, basis)


def _standing(
    parts: Sequence[Part], before: Found | None, change: Change | None
) -> tuple[set[Question], set[Question]]:
    """Return the questions that need not be asked again, and those to which only events came."""
    if not before or not change or not _UNDERSTOOD_BY.isdisjoint(change.nouns):
        return set(), set()
    same = {p.question for p in parts if before.figures.get(p.question, {}).keys() == p.needs}
    held = {question for question in same if not change.alters(question.facts)}
    moved = {q for q in (same - held) & before.events.keys() if q.facts.isdisjoint(change.nouns)}
    return held, moved


async def _rolls(
    session: AsyncSession, caller: Caller, part: Part
) -> tuple[Rolls, list[str]] | None:
    """Return how a question's events are counted by which columns of rolls; `None` if not so."""
    measures = dict.fromkeys(m for formula in part.formulas for m in formula.measures)
    columns = [ROLLED[measure] for measure in measures if measure in ROLLED]
    if part.question.kind is Kind.teams or not columns:
        return None
    rolls = await find_rolls(session, caller, part.asked, part.asked.query.by)
    return (rolls, columns) if rolls else None


async def _pages(session: AsyncSession, caller: Caller, part: Part) -> Pages | None:
    """Return what hides small counts of people; `None` where none are asked, or all is hidden."""
    if part.question.kind is Kind.teams or not any(map(part.is_masked, part.indicators)):
        return None
    asked = part.asked
    try:
        check_allowed(replace(asked, today=clock.today()), dict(part.question.filters))
    except ValidationFailed:
        return None
    land = await find_land(session, caller, asked.roots)
    return Pages(session, count_in_columns, replace(asked, roots=land.provinces), land, asked.roots)


async def _enter(
    session: AsyncSession,
    caller: Caller,
    parts: Sequence[Part],
    anew: Sequence[Part],
    lands: Sequence[Land],
    rolls: Collection[Rolls],
    units: Mapping[int, Unit],
) -> Basis:
    """Let the database show what was ever recorded in any of the units.

    The kinds of teams from elsewhere only where they are counted `anew`.
    """
    first, last = parts[0].asked, parts[-1].asked
    roots = {unit.key: unit for unit in units.values()}
    roots |= {unit.key: unit for land in lands for unit in land.provinces}
    of_kinds = (p.asked.query for p in anew if p.asked.query.team_kind and p.counts_events)
    query = next(of_kinds, first.query.model_copy(update={"team_kind": []}))
    days = [day for p in parts for day in (p.asked.whole.first, p.asked.whole.last)]
    everything = replace(
        last,
        query=query,
        whole=Period("", min(days), max(days)),
        roots=tuple(roots[key] for key in sorted(roots)),
    )
    formulas = [formula for part in parts for formula in part.formulas]
    places = await enter_territory(session, caller, everything, units.values(), formulas, rolls)
    return await find_basis(session, everything, formulas, places, widened=True, also={"target"})


async def _count(
    session: AsyncSession,
    part: Part,
    events: Told,
    pages: Pages | None,
    among: Collection[int] | None = None,
) -> dict[Need, Figure]:
    """Return a question's figures, or those of some units.

    They are added up over months, parts and teams where it is so asked.
    """
    asked, units = part.asked, {unit.key: unit for unit in part.asked.roots}
    shown = [i for i in part.indicators if pages or not part.is_masked(i)]
    wanted = [need for need in part.needs if among is None or need.unit_key in among]
    tables: dict[Measure, Numbers] = {}
    for measure in dict.fromkeys(m for i in shown for m in formula_of(i.code).measures):
        told: Numbers | None = events.get(ROLLED.get(measure, ""))
        if told is None:
            told = await find_figures(session, asked, measure, part.by)
        elif among is not None:
            told = {key: numbers for key, numbers in told.items() if key[0] in among}
        tables[measure] = told
    figures: dict[Need, Figure] = dict.fromkeys(wanted, _HIDDEN)
    for indicator in shown:
        formula = formula_of(indicator.code)
        needs = [need for need in wanted if need.indicator == indicator.code]
        numbers = [tables[measure] for measure in formula.measures]
        sums = dict(Sums(asked, indicator, formula, numbers, part.catalogue).of(needs))
        if pages and part.is_masked(indicator):
            hidden, boundary = await pages.find(formula, None), asked.query.boundary
            for need, figure in sums.items():
                if is_hidden(hidden, [figure], boundary, units[need.unit_key], asked.whole):
                    sums[need] = _HIDDEN
        figures |= sums
    return figures
