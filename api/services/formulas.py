"""What is counted: every computed indicator, as the contract's table of observations defines it.

A new indicator is a new declaration here and a row in `data/indicators.csv`; no other code knows
one indicator from another.
"""

from dataclasses import replace
from typing import Final

from api.models.observations import By
from api.services.measures import (
    AT_LEAST,
    DISTINCT,
    OF_ACTIVITIES,
    OF_EVENTS,
    OF_TEAMS,
    Formula,
    Measure,
    declared,
)


def _share(numerator: Measure, denominator: Measure) -> Formula:
    return Formula(numerator, denominator, share=True)


_ACTIVE = "t.deleted_at is null and t.founded_on <= p.at and coalesce(t.dissolved_on >= p.at, true)"
_STAYS = """
    membership s
    join team t on t.id = s.team_id and t.deleted_at is null
    join person m on m.id = s.member_id
"""
_STAYING = "s.joined_on <= p.at and coalesce(s.left_on >= p.at, true)"
_YOUNG = """(
    m.is_youth_union_member or extract(year from p.at)::integer - m.birth_year between 16 and 30
)"""
_TRAINED_SINCE = """
    join (select member_id, min(day) as day from (
              select id as member_id, trained_on as day from person where trained_on is not null
              union all select member_id, held_on from training_attended) either
          group by member_id) trained on trained.member_id = m.id
"""
_TRAINED = "trained.day <= p.at"
_COUNTED = "e.status in ('submitted', 'verified')"
_HELPED = "e.outcome in ('completed', 'guided')"
_VERIFIED = "e.status = 'verified'"
_IN_PERIOD = "between cast(:first as date) and cast(:last as date)"
WITHIN = f"""
    e.occurred_on {_IN_PERIOD}
    and e.occurred_at >= cast(cast(:first as date) as timestamp) at time zone 'Asia/Ho_Chi_Minh'
    and e.occurred_at < cast(cast(:last as date) + 1 as timestamp) at time zone 'Asia/Ho_Chi_Minh'
"""
_KIND = frozenset({By.kind})
_STANDING = """
    u.deleted_at is null and u.key in (
        select unit_key from placement where ancestor_key = any(cast(:roots as integer[])))
"""

TEAMS = Measure(
    "team t",
    "t.unit_key",
    life="daterange(t.founded_on, t.dissolved_on, '[]')",
    where=("t.deleted_at is null",),
    dimensions=_KIND,
    filters=OF_TEAMS,
)
TEAMS_FOUNDED = Measure(
    "team t",
    "t.unit_key",
    day="t.founded_on",
    where=("t.deleted_at is null", f"t.founded_on {_IN_PERIOD}"),
    dimensions=_KIND,
    filters=OF_TEAMS,
)
TEAMS_WITH_YOUTH_CORE = Measure(
    "period p cross join team t",
    "t.unit_key",
    where=(
        _ACTIVE,
        f"""
        (p.n, t.id) in (
            select p.n, s.team_id from period p cross join {_STAYS}
            where {_STAYING}
            group by p.n, s.team_id
            having bool_or(s.role = 'leader' and {_YOUNG})
                or 2 * count(*) filter (where {_YOUNG}) >= count(*))
        """,  # noqa: S608 - put together from constants
    ),
    dimensions=_KIND,
    filters=OF_TEAMS,
)

MEMBERS = Measure(
    f"period p cross join {_STAYS}",
    "t.unit_key",
    where=(_STAYING,),
    value=DISTINCT,
    thing="m.id",
    dimensions=_KIND,
    filters=OF_TEAMS,
)
MEMBERS_YOUNG = MEMBERS.only(_YOUNG)
MEMBERS_TRAINED = replace(MEMBERS.only(_TRAINED), facts=MEMBERS.facts + _TRAINED_SINCE)

VILLAGES = Measure(
    "admin_unit u",
    "u.key",
    life="daterange(u.valid_from, u.valid_to, '[]')",
    where=("u.level = 'village'", _STANDING),
)
VILLAGES_COVERED = Measure(
    f"""
    (select u.key, unnest(range_agg(daterange(t.founded_on, t.dissolved_on, '[]'))
                          * datemultirange(daterange(u.valid_from, u.valid_to, '[]'))) as days
     from team t join admin_unit u on u.key = t.unit_key
     where t.deleted_at is null and u.level = 'village' and {_STANDING}
     group by u.key, u.valid_from, u.valid_to) covered
    """,  # noqa: S608 - put together from constants
    "covered.key",
    life="covered.days",
)


def _official(level: str) -> Measure:
    """Return the units of an official level that stand in the tree of the boundary."""
    return Measure(
        "period p cross join admin_unit u",
        "u.key",
        where=(
            f"u.level = '{level}'",
            _STANDING,
            "coalesce(u.valid_from <= p.tree, true) and coalesce(p.tree <= u.valid_to, true)",
        ),
    )


_PLACED = (
    "coalesce(lower(c.during) <= p.tree, true)",
    "coalesce(p.tree < upper(c.during), true)",
)


def _official_with(level: str, facts: str, *where: str) -> Measure:
    """Return those of them that hold one of the facts, each placed by its team's unit."""
    return Measure(
        f"period p cross join {facts} join placement c on c.unit_key = t.unit_key",
        "c.ancestor_key",
        where=(f"c.level = '{level}'", *_PLACED, *where),
        value=DISTINCT,
        thing="c.ancestor_key",
    )


EVENTS = Measure(
    "support_event e left join team t on t.id = e.team_id",
    "e.unit_key",
    day="e.occurred_on",
    where=(_COUNTED, WITHIN),
    dimensions=frozenset(By),
    filters=OF_EVENTS,
)
EVENTS_VERIFIED = EVENTS.only(_VERIFIED)
EVENTS_COMPLETED = replace(
    EVENTS.only("e.outcome = 'completed'"), dimensions=EVENTS.dimensions - {By.outcome}
)
QUANTITY = replace(EVENTS.only(_HELPED), value="sum(e.quantity)")
QUANTITY_VERIFIED = QUANTITY.only(_VERIFIED)
BENEFICIARIES = replace(
    EVENTS.only("e.beneficiary_hash is not null"), value=DISTINCT, thing="e.beneficiary_hash"
)

ACTIVITIES = Measure(
    "activity a",
    "a.unit_key",
    day="a.held_on",
    where=("a.deleted_at is null", f"a.held_on {_IN_PERIOD}"),
    dimensions=_KIND,
    filters=OF_ACTIVITIES,
)
PARTICIPANTS = replace(
    ACTIVITIES, value="sum(coalesce(a.participants, cardinality(a.attendee_ids)))"
)


def _official_hosting(level: str) -> Measure:
    """Return the units of a level, in the tree of the boundary, that hosted enough activities."""
    return Measure(
        "period p join activity a on p.n = width_bucket(a.held_on, cast(:firsts as date[]))"
        " join placement c on c.unit_key = a.unit_key",
        "c.ancestor_key",
        where=(
            "a.deleted_at is null",
            f"a.held_on {_IN_PERIOD}",
            f"c.level = '{level}'",
            *_PLACED,
        ),
        value=AT_LEAST,
        filters=OF_ACTIVITIES,
    )


def _min_activities(level: str) -> Formula:
    share = _share(_official_hosting(level), _official(level))
    return replace(share, needs="minimum_per_unit")


_REGISTERED_ON = "cast(h.created_at at time zone 'Asia/Ho_Chi_Minh' as date)"
HOUSEHOLDS = Measure(
    "household h",
    "h.unit_key",
    life=f"daterange({_REGISTERED_ON}, null)",
    where=("h.deleted_at is null",),
)
HOUSEHOLDS_REACHED = Measure(
    """
    support_event e
    join household h on h.id = e.household_id and h.deleted_at is null
    join period p on p.n = width_bucket(e.occurred_on, cast(:firsts as date[]))
    left join team t on t.id = e.team_id
    """,
    "h.unit_key",
    where=(_COUNTED, _HELPED, WITHIN),
    value=DISTINCT,
    thing="h.id",
    dimensions=frozenset(By),
    filters=OF_EVENTS,
    elsewhere=True,
)
_EVER_REACHED = f"""
    (select e.household_id, min(e.occurred_on) as day from support_event e
     where e.household_id is not null and {_COUNTED} and {_HELPED}
     group by e.household_id) reached
"""  # noqa: S608 - put together from constants
HOUSEHOLDS_EVER_REACHED = Measure(
    f"{_EVER_REACHED} join household h on h.id = reached.household_id",
    "h.unit_key",
    life="daterange(reached.day, null)",
    where=("h.deleted_at is null",),
    elsewhere=True,
)

HOUSEHOLDS_BY_DAY = replace(
    HOUSEHOLDS,
    life=None,
    day=_REGISTERED_ON,
    where=("h.deleted_at is null", f"{_REGISTERED_ON} <= cast(:last as date)"),
)
HOUSEHOLDS_REACHED_BY_DAY = replace(
    HOUSEHOLDS_EVER_REACHED,
    life=None,
    day="reached.day",
    where=("h.deleted_at is null", "reached.day <= cast(:last as date)"),
)

FORMULAS: Final = {
    "teams.active": Formula(TEAMS),
    "teams.founded": Formula(TEAMS_FOUNDED),
    "teams.zalo_share": _share(TEAMS.only("t.zalo_group_url is not null"), TEAMS),
    "teams.youth_core_share": _share(TEAMS_WITH_YOUTH_CORE, TEAMS),
    "members.active": Formula(MEMBERS),
    "members.youth": Formula(MEMBERS_YOUNG, people=True, among=MEMBERS),
    "members.youth_share": replace(_share(MEMBERS_YOUNG, MEMBERS), people=True, among=MEMBERS),
    "members.trained_share": _share(MEMBERS_TRAINED, MEMBERS),
    "villages.total": Formula(VILLAGES),
    "villages.covered": Formula(VILLAGES_COVERED),
    "villages.coverage": _share(VILLAGES_COVERED, VILLAGES),
    "communes.coverage": _share(_official_with("commune", "team t", _ACTIVE), _official("commune")),
    "communes.trained": _share(
        _official_with("commune", _STAYS + _TRAINED_SINCE, _STAYING, _TRAINED),
        _official("commune"),
    ),
    "districts.coverage": _share(
        _official_with("district", "team t", _ACTIVE), _official("district")
    ),
    "communes.min_activities": _min_activities("commune"),
    "districts.min_activities": _min_activities("district"),
    "events.count": Formula(EVENTS),
    "events.quantity": Formula(QUANTITY),
    "events.quantity_verified": Formula(QUANTITY_VERIFIED),
    "events.verified_share": _share(EVENTS_VERIFIED, EVENTS),
    "events.completed_share": _share(EVENTS_COMPLETED, EVENTS),
    "households.registered": Formula(HOUSEHOLDS, people=True, grows=HOUSEHOLDS_BY_DAY),
    "households.reached": Formula(HOUSEHOLDS_REACHED, people=True),
    "households.reached_share": replace(
        _share(HOUSEHOLDS_EVER_REACHED, declared("households.total")),
        people=True,
        grows=HOUSEHOLDS_REACHED_BY_DAY,
    ),
    "beneficiaries.distinct": Formula(BENEFICIARIES, people=True),
    "activities.count": Formula(ACTIVITIES),
    "activities.participants": Formula(PARTICIPANTS),
}
"""Every computed indicator by its code."""


def formula_of(code: str) -> Formula:
    """Return how an indicator is worked out: a declared one is its latest statistic."""
    return FORMULAS.get(code) or Formula(declared(code))
