"""Lists of events as rows: one statement a page, whose cost is that of the page.

Each source's own first rows are read from its index, which holds them in the order of the list,
and the page is the best of them. Where there are many sources, few rows of each tell first how
far down the page can reach at most (`edge`), and nothing behind that is read: so the nation costs
little more than a village. A cursor is a condition that each index begins at: the last page costs
what the first does.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import prod
from typing import Any, Final, NamedTuple
from uuid import UUID

from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import Reach
from api.driver import ENTERED, Connection
from api.models.support_events import EventSort, EventStatus, Outcome, SupportEventQuery
from api.services.event_duplicates import COLUMNS, earliest, own_of
from api.services.event_list_sources import Source, Sources
from api.services.event_list_totals import find_total

_FEW: Final = 4
"""Sources of which each may be asked for a whole page."""
_SHOWN: Final = (
    *("id", "version", "created_at", "updated_at", "team_id", "member_ids", "unit_id"),
    *("household_id", "service_type", "occurred_at", "quantity", "outcome", "mode", "channel"),
    *("status", "external_ids", "lat", "lon", "note", "created_by", "unit_key", "commune_key"),
    *("province_key", "team_unit_key", "team_commune_key", "beneficiary_age_band"),
    *("beneficiary_gender", "beneficiary_hash", "campaign_id"),
)
_NEEDED: Final = ", ".join(dict.fromkeys((*_SHOWN, *COLUMNS.split(", "))))
_KEYS: Final = {
    "id": "uuid",
    "household_id": "uuid",
    "team_id": "uuid",
    "province_key": "integer",
    "commune_key": "integer",
    "unit_key": "integer",
    "team_commune_key": "integer",
    "team_unit_key": "integer",
}
# An event is kept under its team's unit (`update_team`), and found by its team: no index of events
# begins with the team's unit.
_TEAMS_IN: Final = """
    (select t.id from entered cross join lateral (
        select id from team
        where unit_key = any ({units}) and entered.scopes is not null offset 0) t)
"""


@dataclass
class _Statement:
    """A statement being written, with the values of its parameters."""

    values: list[Any] = field(default_factory=list)

    def say(self, value: Any, kind: str) -> str:
        """Return the parameter that stands for a value."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


class _Walk(NamedTuple):
    """A walk down an index for each value of its columns: column -> array."""

    columns: Mapping[str, str]
    number: int


async def find_page(
    database: Connection,
    caller: Caller,
    query: SupportEventQuery,
    sources: Sources,
    behind: tuple[datetime, UUID] | None,
) -> tuple[list[Any], int | None]:
    """Return the rows of a page and one more, with their possible duplicates; and the total.

    The total is counted in the same statement where it is asked for, else `None`.
    """
    statement = _Statement([caller.scopes, caller.context])
    conditions = _conditions(statement, caller, query, sources)
    walks = [_walk(statement, query, source) for source in sources.walked]
    counted = "null::bigint"
    if query.include_total:
        counted = _count(walks, conditions)
        if told := find_total(statement.say, caller, query, sources):
            counted = told.rolled
            if told.rest:
                rest = query.model_copy(update={"status": told.rest})
                counted += f" + {_count(walks, _conditions(statement, caller, rest, sources))}"
    newest = query.sort is EventSort.newest
    if behind:
        moment, event_id = behind
        sign = "<" if newest else ">"
        last = f"({statement.say(moment, 'timestamptz')}, {statement.say(event_id, 'uuid')})"
        conditions = [*conditions, f"(e.occurred_at, e.id) {sign} {last}"]
    page = _page(statement, walks, conditions, query.limit + 1, newest=newest)
    twin = "null::uuid"
    joined = ""
    if caller.has(Permission.people_read) or own_of(caller):
        twin = "twin.id"
        joined = (
            f"left join lateral ({earliest(statement.say(own_of(caller), 'uuid'))}) twin on true"
        )
    way = "desc" if newest else "asc"
    text = f"""
        {ENTERED}, {page}
        select e.*, {twin} as possible_duplicate_of, counted.total
        from (select {counted} as total offset 0) counted
        left join (best cross join entered cross join lateral (
            select {_NEEDED} from support_event
            where id = best.id and entered.scopes is not null offset 0) e) on true
        {joined}
        order by e.occurred_at {way}, e.id {way}
    """  # noqa: S608 - constants and parameters
    rows = await database.fetch(text, *statement.values)
    total = rows[0]["total"] if rows else None
    return [row for row in rows if row["id"] is not None], total


def _walk(statement: _Statement, query: SupportEventQuery, source: Source) -> _Walk:
    """Return the walk of a source: with a filter where an index knows its columns, too.

    A province has too many rows to read them for the few of a service or a status.
    """
    column, values = source
    array = statement.say(sorted(values), f"{_KEYS[column]}[]")
    if column == "team_unit_key":
        return _Walk({"team_id": f"array{_TEAMS_IN.format(units=array)}"}, len(values))
    more: dict[str, Collection[str]] = {}
    if column == "province_key" and query.service_type:
        more = {"service_type": query.service_type, "status": query.status or EventStatus}
    elif column == "province_key" and (query.status or query.outcome):
        more = {"status": query.status or EventStatus, "outcome": query.outcome or Outcome}
    texts = {name: sorted({str(one) for one in wanted}) for name, wanted in more.items()}
    arrays = {name: statement.say(wanted, "text[]") for name, wanted in texts.items()}
    return _Walk({column: array} | arrays, len(values) * prod(map(len, texts.values())))


def _page(
    statement: _Statement,
    walks: Sequence[_Walk],
    conditions: Sequence[str],
    limit: int,
    *,
    newest: bool,
) -> str:
    """Write the table `best`: the moments and ids of the page's rows."""
    way, far, reaches = ("desc", "-infinity", ">=") if newest else ("asc", "infinity", "<=")
    order = f"order by occurred_at {way}, id {way}"
    full = statement.say(limit, "integer")

    def first(each: str, edge: str = "", condition: str = "") -> str:
        return " union ".join(
            f"""
            select b.occurred_at, b.id
            from entered {edge} {_unnested(walk)} cross join lateral (
                select e.occurred_at, e.id from support_event e
                where {_found(walk)} and {" and ".join(conditions)} {condition}
                  and entered.scopes is not null
                order by e.occurred_at {way}, e.id {way} limit {each}) b
            """  # noqa: S608 - constants and parameters
            for walk in walks
        )

    number = sum(walk.number for walk in walks)
    if number <= _FEW:
        return f"best as materialized (select * from ({first(full)}) u {order} limit {full})"  # noqa: S608
    few = statement.say(2 * limit // number + 1, "integer")
    nearer = first(full, "cross join edge", f"and e.occurred_at {reaches} edge.moment")
    return f"""
        edge as materialized (
            select coalesce((select occurred_at from ({first(few)}) u
                             {order} offset {full} - 1 limit 1), '{far}') as moment
        ), best as materialized (
            select * from ({nearer}) u {order} limit {full})
    """  # noqa: S608 - constants and parameters


def _unnested(walk: _Walk) -> str:
    return " ".join(
        f"cross join unnest({array}) as by_{column} ({column})"
        for column, array in walk.columns.items()
    )


def _found(walk: _Walk) -> str:
    return " and ".join(f"e.{column} = by_{column}.{column}" for column in walk.columns)


def _count(walks: Sequence[_Walk], conditions: Sequence[str]) -> str:
    walked = " or ".join(
        f"e.{column} = any ({array})"
        for walk in walks
        for column, array in list(walk.columns.items())[:1]
    )
    return f"""
        (select count(*) from entered cross join lateral (
            select from support_event e
            where ({walked}) and {" and ".join(conditions)}
              and entered.scopes is not null offset 0) t)
    """  # noqa: S608 - constants and parameters


def _conditions(
    statement: _Statement, caller: Caller, query: SupportEventQuery, sources: Sources
) -> list[str]:
    """Return what each row `e` must meet besides being found by a source."""
    say = statement.say
    found = ["e.deleted_at is null"]
    if not sources.own:
        found.append(_within(statement, caller.reach(Permission.events_read)))
    if query.household_id:  # which household it was is personal: a filter must not tell it
        readable = _within(statement, caller.reach(Permission.people_read))
        if own := own_of(caller):
            readable = f"({readable} or e.created_by = {say(own, 'uuid')})"
        found.append(readable)
    named: dict[str, tuple[Sequence[Any], str]] = {
        "e.service_type = any ({})": (query.service_type, "text[]"),
        "e.status = any ({})": (list(map(str, query.status)), "text[]"),
        "e.outcome = any ({})": (list(map(str, query.outcome)), "text[]"),
        "e.team_id = any ({})": (query.team_id, "uuid[]"),
        "e.household_id = any ({})": (query.household_id, "uuid[]"),
        "e.campaign_id = any ({})": (query.campaign_id, "uuid[]"),
        "e.member_ids && {}": (query.member_id, "uuid[]"),
    }
    found += [term.format(say(wanted, kind)) for term, (wanted, kind) in named.items() if wanted]
    for sign, moment in ((">=", query.occurred_at_gte), ("<", query.occurred_at_lt)):
        if moment:
            found.append(f"e.occurred_at {sign} {say(moment, 'timestamptz')}")
    return found + _lying(statement, sources)


def _lying(statement: _Statement, sources: Sources) -> list[str]:
    """Return the condition that an event lies in the units asked for, unless sources tell it."""
    if not sources.within:
        return []
    keys, levels, days = (list(column) for column in zip(*sources.within, strict=True))
    kinds = ((keys, "integer[]"), (levels, "text[]"), (days, "date[]"))
    asked = ", ".join(statement.say(*one) for one in kinds)
    return [
        f"""exists (
            select from unnest({asked}) as a (key, level, day)
            join placement p on p.unit_key = e.unit_key and p.level = a.level
             and p.ancestor_key = a.key and p.during @> a.day)
        """
    ]


def _within(statement: _Statement, reach: Reach) -> str:
    """Return the condition that an event lies in a reach, by its place or by its team."""
    keys = {
        "province_key": reach.provinces,
        "commune_key": reach.communes,
        "unit_key": reach.units,
        "team_commune_key": reach.communes,
        "team_unit_key": reach.units,
        "team_id": reach.teams,
    }
    terms = [
        f"e.{column} = any ({statement.say(sorted(values), f'{_KEYS[column]}[]')})"
        for column, values in keys.items()
        if values
    ]
    return f"({' or '.join(terms)})" if terms else "false"
