"""Totals of lists of events: by their rolls where these tell them, else row by row.

Rolls hold what counts, submitted and verified events, of whole provinces. So of a list of provinces
only what was rejected or voided is counted one by one, and what has changed since the last fold.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.models.support_events import EventStatus, SupportEventQuery
from api.services.event_list_sources import Sources

_ROLLED: Final = {
    frozenset({EventStatus.submitted, EventStatus.verified}): "events",
    frozenset({EventStatus.submitted}): "events - verified",
    frozenset({EventStatus.verified}): "verified",
}
"""Statuses -> what rolls hold of them."""


class Total(NamedTuple):
    """A total as rolls tell it: an expression, and the statuses to be counted besides."""

    rolled: str
    rest: Sequence[EventStatus]


def find_total(
    say: Callable[[Any, str], str], caller: Caller, query: SupportEventQuery, sources: Sources
) -> Total | None:
    """Return how many rows a list has by the rolls; `None` where these do not tell it.

    They tell whole provinces whose totals the caller may read, filtered by status, and by service
    or by outcome. Stands behind `ENTERED`; `say` writes a value as a parameter.
    """
    wanted = frozenset(query.status or EventStatus)
    column = _ROLLED.get(wanted & {EventStatus.submitted, EventStatus.verified})
    parts = query.service_type or query.outcome
    told = (
        sources.own
        and [source.column for source in sources.walked] == ["province_key"]
        and not (query.service_type and query.outcome)
        and not (query.campaign_id or query.occurred_at_gte or query.occurred_at_lt)
    )
    if not told or column is None:
        return None
    provinces = sources.walked[0].values
    if not caller.reach(Permission.aggregates_read).provinces.issuperset(provinces):
        return None
    keys = say(sorted(provinces), "integer[]")
    dimension, split, filtered = "", "", ""
    if parts:
        dimension = "service_type" if query.service_type else "outcome"
        names = say(sorted(map(str, parts)), "text[]")
        split, filtered = f"and part = any ({names})", f"and {dimension} = any ({names})"
    counted = say(sorted(map(str, wanted - _uncounted(wanted))), "text[]")
    rolled = f"""
        (select sum(t.number)::bigint from entered cross join lateral (
            select coalesce(sum({column}), 0) as number from event_roll
            where commune_key = 0 and unit_key = 0 and province_key = any ({keys})
              and every = 'month' and dimension = '{dimension}' {split}
              and entered.scopes is not null
            union all
            select coalesce(sum(sign), 0) from event_changes
            where province_key = any ({keys}) and status = any ({counted}) {filtered}
              and entered.scopes is not null offset 0) t)
    """  # noqa: S608 - constants and parameters
    return Total(rolled, sorted(_uncounted(wanted)))


def _uncounted(statuses: frozenset[EventStatus]) -> frozenset[EventStatus]:
    return statuses - {EventStatus.submitted, EventStatus.verified}
