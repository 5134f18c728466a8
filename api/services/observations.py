"""Observations: indicators counted straight from the facts, in the dated tree of units.

A fact belongs to the unit of a level in which `placement` puts it on a day: the one that the
boundary names, today under `current`; under `as_recorded` its own day or, for stocks, the period's
last day (today, if the period runs). Inside the root, but not placed at the level asked for:
unallocated.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.errors import FieldError, ResultTooLarge, ValidationFailed
from api.models.observations import (
    OBSERVATIONS,
    ObservationAnswer,
    ObservationMeta,
    ObservationQuery,
)
from api.services import periods
from api.services.event_rolls import ROLLED
from api.services.formulas import FORMULAS, formula_of
from api.services.masking import sees_all_people
from api.services.measures import FILTERS, Formula
from api.services.observation_basis import Basis, find_basis, find_boundary
from api.services.observation_cells import items_of
from api.services.observation_counts import (
    Folded,
    count,
    count_in_columns,
    count_measures,
    enter_territory,
    find_all_rolls,
    find_catalogue,
    services_of,
)
from api.services.observation_land import find_land
from api.services.observation_people import check_allowed, suppressed
from api.services.observation_tables import Pages
from api.services.observation_units import (
    Asked,
    find_roots,
    find_sites,
    find_targets,
)

MOST_CELLS: Final = 100_000
_VERIFIED_SHARE: Final = FORMULAS["events.verified_share"]


@dataclass(frozen=True)
class Observed:
    """An answer, and what it rests on."""

    answer: ObservationAnswer
    items: bytes
    """Those of the answer, as they are written."""
    basis: Basis

    def written(self) -> bytes:
        """Return the answer as JSON; its items are written once, for their version and for it."""
        return b'{"items":%b,"meta":%b}' % (self.items, self.answer.meta.model_dump_json().encode())


async def observe(session: AsyncSession, caller: Caller, query: ObservationQuery) -> Observed:
    """Count what is asked for: a fixed number of statements for any number of units and periods.

    404 for a root that is absent or out of scope. 422 `unknown_indicator`, `period_invalid`,
    `not_applicable` (a filter on an indicator without that dimension) or `wrong_level` (above the
    root) at the parameter; 422 `result_too_large` beyond 100,000 cells.
    """
    today = clock.today()
    pieces = tuple(periods.parse(query.period, query.every))
    whole = periods.parse(query.period)[0]
    indicators = await _indicators(session, query)
    services = services_of(await find_catalogue(session), query.service_type)
    roots = await find_roots(session, caller, query, today)
    asked = Asked(query, today, whole, pieces, query.level, roots, services)
    targets = await find_targets(session, caller, asked)
    if len(indicators) * len(targets) * len(pieces) > MOST_CELLS:
        raise ResultTooLarge
    formulas = [formula_of(indicator.code) for indicator in indicators]
    pages = await _shield(session, caller, asked, formulas)
    rolls = await find_all_rolls(session, caller, asked, formulas)
    shown = pages.widened(asked) if pages else asked
    places = await enter_territory(session, caller, shown, targets, formulas, rolls.values())
    also = _VERIFIED_SHARE.measures
    counted, folded = await count_measures(session, asked, formulas, rolls, also)
    items = [
        item for indicator in indicators for item in items_of(asked, indicator, targets, counted)
    ]
    if pages:
        people = {i.code: formula_of(i.code) for i in indicators}
        hidden = {c: await pages.find(f, asked.by(f)) for c, f in people.items() if f.people}
        items = suppressed(items, hidden, asked, targets)
    verified_share = None
    if any(indicator.code.startswith("events.") for indicator in indicators):
        verified_share = await _verified_share(session, asked, folded)
    versions = {indicator.code: indicator.definition_version for indicator in indicators}
    content = [query.boundary, versions, verified_share, str(min(today, whole.last)), bool(pages)]
    content.append(await find_boundary(session, caller, roots))
    if query.service_type:
        content.append(services)
    written = OBSERVATIONS.dump_json(items)
    meta = ObservationMeta(
        data_version=_digest(written, content),
        computed_at=clock.now(),
        complete_through=min(today, whole.last),
        boundary=query.boundary,
        definition_versions=versions,
        verified_share=verified_share,
    )
    basis = await find_basis(session, shown, formulas, places, widened=bool(pages))
    return Observed(ObservationAnswer(items=items, meta=meta), written, basis)


def _digest(data: bytes, more: Any) -> str:
    return hashlib.sha256(data + json.dumps(more, sort_keys=True).encode()).hexdigest()[:16]


_INDICATORS = text("""
    select code, unit_of_count, definition_version from indicator
    where code = any(cast(:codes as text[])) and deleted_at is null
""")


async def _indicators(session: AsyncSession, query: ObservationQuery) -> list[Any]:
    """Return the definitions in the order asked; refuse unknown ones and filters they lack."""
    codes = list(dict.fromkeys(query.indicator))
    found = {row.code: row for row in await session.execute(_INDICATORS, {"codes": codes})}
    if not found.keys() >= set(codes):
        raise ValidationFailed(FieldError("/query/indicator", "unknown_indicator"))
    lacking = [
        FieldError(f"/query/{name}", "not_applicable", {"indicator": code})
        for name in (*FILTERS, "minimum_per_unit")
        for code in codes
        if getattr(query, name) and name not in formula_of(code).parameters
    ]
    needed = [formula_of(code).needs for code in codes]
    lacking += [
        FieldError(f"/query/{name}", "missing")
        for name in dict.fromkeys(needed)
        if name and getattr(query, name) is None
    ]
    if lacking:
        raise ValidationFailed(*lacking)
    return [found[code] for code in codes]


async def _shield(
    session: AsyncSession, caller: Caller, asked: Asked, formulas: Sequence[Formula]
) -> Pages | None:
    """Return what hides small counts of people from whoever may not read them; else `None`."""
    if not any(formula.people for formula in formulas):
        return None
    if caller.has(Permission.people_read):
        sites = await find_sites(session, asked.roots, asked.today)
        if sees_all_people(caller, sites):
            return None
    check_allowed(asked, [name for name in FILTERS if getattr(asked.query, name)])
    land = await find_land(session, caller, asked.roots)
    return Pages(session, count_in_columns, replace(asked, roots=land.provinces), land, asked.roots)


async def _verified_share(session: AsyncSession, asked: Asked, folded: Folded) -> float | None:
    """Return verified ÷ counted events of the roots, the filters and the whole period, 0-100."""
    sums = []
    for measure in _VERIFIED_SHARE.measures:
        known = next((columns[ROLLED[measure]] for columns in folded.values()), None)
        if known is None:
            at_once = replace(asked, pieces=(asked.whole,), level=None)
            known = await count(session, at_once, measure, None)
        sums.append(sum(value for parts in known.values() for value in parts.values()))
    numerator, denominator = sums
    return 100 * numerator / denominator if denominator else None
