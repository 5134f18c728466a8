"""What an answer rests on, and whether any of it has changed since it was counted.

The tables that an answer reads have numbers of changes (`data_change`); events tell by their
transactions whether any in the territory and the days asked for came, changed or went. Both are
exact: whatever commits after the snapshot of an answer is seen by the next question. To see a
change that alters no figure costs a count, nothing else: an ETag is made of the figures.
"""

import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller, Tree
from api.auth.scope import Reach
from api.driver import Connection
from api.services.measures import Formula, Measure
from api.services.observation_units import Asked, Unit

EVENT: Final = "support_event"
_ALWAYS: Final = frozenset({"tree", "indicator", "service_type", EVENT})
_NOUNS: Final = {
    "team": "team",
    "membership": "membership",
    "person": "member",
    "household": "household",
    "activity": "activity",
    "training_attended": "activity",
    "statistic": "statistic",
    EVENT: EVENT,
}
"""A table, as measures name it -> the noun whose changes are counted."""
_EVER: Final = (date(1, 1, 1), date(9999, 12, 31))


@dataclass(frozen=True)
class Basis:
    """What an answer rests on, as of one snapshot of the database."""

    snapshot: str
    nouns: tuple[str, ...]
    changes: str
    """How often each of the nouns had changed."""
    events: bool
    everywhere: bool
    places: Reach
    days: tuple[date, date]

    @property
    def _where(self) -> tuple[object, ...]:
        """Where its events lie, and when, as `events_changed` takes it."""
        reach = self.places.provinces, self.places.communes, self.places.units
        return self.everywhere, *map(list, reach), *self.days

    async def holds(self, database: Connection) -> "Basis | None":
        """Return the same basis as of now if nothing of it has changed, in one statement.

        When nothing at all was committed since, the statement looks no further.
        """
        (row,) = await database.fetch(
            _HOLDS,
            self.snapshot,
            list(self.nouns),
            self.changes,
            self.events,
            *self._where,
        )
        if row["snapshot"] == self.snapshot:
            return self
        return replace(self, snapshot=row["snapshot"]) if row["holds"] else None

    async def since(self, database: Connection) -> "Change":
        """Return what has changed until now, in one statement."""
        (row,) = await database.fetch(
            _CHANGED,
            list(self.nouns),
            self.events,
            self.snapshot,
            *self._where,
        )
        differing = set(self.changes.split(", ")) ^ set(row["changes"].split(", "))
        return Change(frozenset(number.partition(" ")[0] for number in differing), row["events"])


class Change(NamedTuple):
    """What has changed of a basis."""

    nouns: frozenset[str]
    events: bool
    """Whether any came, went or became others; `nouns` has what else may happen to them."""

    def alters(self, facts: AbstractSet[str]) -> bool:
        """Tell whether figures that are made of some nouns may be others."""
        return not facts.isdisjoint(self.nouns) or (self.events and EVENT in facts)


_HOLDS: Final = """
    select now.snapshot, case
        when now.snapshot = $1 then true
        when changes_of($2) <> $3 then false
        when $4 then not events_changed($1, $5, $6, $7, $8, $9, $10)
        else true end as holds
    from (select pg_current_snapshot()::text as snapshot) now
"""
_CHANGED: Final = """
    select changes_of($1) as changes, $2 and events_changed($3, $4, $5, $6, $7, $8, $9) as events
"""
_NOW = text("""
    select pg_current_snapshot()::text as snapshot,
           changes_of(cast(:nouns as text[])) as changes
""")


async def find_basis(
    session: AsyncSession,
    asked: Asked,
    formulas: Sequence[Formula],
    places: Reach,
    *,
    widened: bool,
    also: AbstractSet[str] = frozenset(),
) -> Basis:
    """Return what the answer of this transaction rests on; its events lie in `places`.

    `widened`: more was read than the days asked for, to work out what is hidden. `also`: nouns that
    no measure reads.
    """
    measures = {measure for formula in formulas for measure in _measures(formula)}
    read = frozenset[str]().union(*map(nouns_of, formulas))
    nouns = sorted(_ALWAYS | also | read)
    flows = not widened and all(measure.day for measure in measures)
    now = (await session.execute(_NOW, {"nouns": nouns})).one()
    return Basis(
        now.snapshot,
        tuple(nouns),
        now.changes,
        EVENT in read,
        asked.nation is not None,
        places,
        (asked.whole.first, asked.whole.last) if flows else _EVER,
    )


@cache
def nouns_of(formula: Formula) -> frozenset[str]:
    """Return the nouns whose facts make up a figure."""
    read = {word for measure in _measures(formula) for word in _words(measure)}
    return frozenset(noun for table, noun in _NOUNS.items() if table in read)


def _measures(formula: Formula) -> list[Measure]:
    return [m for m in (*formula.measures, formula.among, formula.grows) if m]


def _words(measure: Measure) -> Iterable[str]:
    return re.findall(r"\w+", " ".join((measure.facts, *measure.where)))


# All that was ever said of the units in the roots; what happens elsewhere does not show in it.
_BOUNDARY = text("""
    select coalesce(sum(hashtextextended(concat_ws('|', s.unit_key, s.parent_key, s.during, s.code,
                                                   s.name), 0)), 0)::text
    from admin_unit_state s
    where s.unit_key in (select unit_key from placement
                         where ancestor_key = any(cast(:roots as integer[])))
""")
_KNOWN: dict[tuple[Tree, frozenset[int]], str] = {}
"""Boundaries already worked out: exact, since the tree's version is read with every request."""
_MOST_KNOWN: Final = 1_000


async def find_boundary(session: AsyncSession, caller: Caller, roots: Sequence[Unit]) -> str:
    """Return what changes with every reorganisation in the roots."""
    keys = frozenset(root.key for root in roots)
    if (caller.tree, keys) not in _KNOWN:
        found: dict[str, Any] = {"roots": sorted(keys)}
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[caller.tree, keys] = str(await session.scalar(_BOUNDARY, found))
    return _KNOWN[caller.tree, keys]
