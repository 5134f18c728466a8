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
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller, Tree
from api.auth.scope import Reach
from api.driver import Connection
from api.services.measures import Formula, Measure
from api.services.observation_units import Asked, Unit

_ALWAYS: Final = frozenset({"tree", "indicator", "service_type", "support_event"})
_NOUNS: Final = {
    "team": "team",
    "membership": "membership",
    "person": "member",
    "household": "household",
    "activity": "activity",
    "training_attended": "activity",
    "statistic": "statistic",
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
            self.everywhere,
            list(self.places.provinces),
            list(self.places.communes),
            list(self.places.units),
            *self.days,
        )
        if row["snapshot"] == self.snapshot:
            return self
        return replace(self, snapshot=row["snapshot"]) if row["holds"] else None


_HOLDS: Final = """
    select now.snapshot, case
        when now.snapshot = $1 then true
        when changes_of($2) <> $3 then false
        when $4 then not events_changed($1, $5, $6, $7, $8, $9, $10)
        else true end as holds
    from (select pg_current_snapshot()::text as snapshot) now
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
    measures = {m for f in formulas for m in (*f.measures, f.among, f.grows) if m}
    read = {word for m in measures for word in _words(m)}
    nouns = sorted(_ALWAYS | also | {noun for table, noun in _NOUNS.items() if table in read})
    flows = not widened and all(measure.day for measure in measures)
    now = (await session.execute(_NOW, {"nouns": nouns})).one()
    return Basis(
        now.snapshot,
        tuple(nouns),
        now.changes,
        "support_event" in read,
        asked.nation is not None,
        places,
        (asked.whole.first, asked.whole.last) if flows else _EVER,
    )


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
