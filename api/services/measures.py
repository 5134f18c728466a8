"""The vocabulary of indicators: a measure is a selection of facts, a formula one or two measures.

What is counted by them is declared in `formulas.py`; `counting.py` makes the statement. Fragments
of SQL speak of `e` support_event, `t` team, `s` membership, `m` person, `h` household, `a`
activity, `u` admin_unit, `c` placement, and of `p`, the periods asked for: `p.n` their number,
`p.at` their last day (today, if the period runs) and `p.tree` the day of the tree in which stocks
are placed. Parameters: `:first` and `:last` day of all periods together, `:firsts` the first day of
each; the filters by their names.
"""

from dataclasses import dataclass, replace
from typing import Final

from api.models.observations import By

COUNT: Final = "count(*)"
DISTINCT: Final = "count(distinct thing)"
AT_LEAST: Final = "count(*) >= :minimum_per_unit"

COLUMNS: Final = {
    By.service_type: "e.service_type",
    By.channel: "e.channel",
    By.outcome: "e.outcome",
    By.kind: "kind",
}
"""Where each dimension is read, in whatever measure has it; the kind: of team or activity."""

FILTERS: Final = {
    "service_type": "e.service_type = any(cast(:service_type as text[]))",
    "channel": "e.channel = any(cast(:channel as text[]))",
    "team_kind": "t.kind = any(cast(:team_kind as text[]))",
    "activity_kind": "a.kind = any(cast(:activity_kind as text[]))",
    "campaign_id": "campaign_id = any(cast(:campaign_id as uuid[]))",
}
"""Parameter -> the condition that it puts, in whatever measure has it."""
OF_TEAMS: Final = frozenset({"team_kind"})
OF_EVENTS: Final = frozenset({"service_type", "channel", "team_kind", "campaign_id"})
OF_ACTIVITIES: Final = frozenset({"activity_kind", "campaign_id"})
TEAM: Final = "team"
"""What only targets split by: whatever tells kinds of teams tells teams apart."""


@dataclass(frozen=True)
class Measure:
    """Facts, the unit where each counts, and how they make a number.

    Facts with a `day` are flows, placed in the tree of that day. Facts with a `life`, the range of
    their days, count on the last day of every period in it; those with neither say themselves in
    which `p` they count. Both of these are stocks, placed in the tree of `p.tree`. `value` is
    `COUNT`, a sum, or `DISTINCT` of `thing`; `AT_LEAST` counts the units with so many facts.
    """

    facts: str
    unit: str
    day: str | None = None
    life: str | None = None
    where: tuple[str, ...] = ()
    value: str = COUNT
    thing: str = "null"
    dimensions: frozenset[By] = frozenset()
    filters: frozenset[str] = frozenset()
    elsewhere: bool = False
    """Whether the events behind it may lie in other units than where it counts."""
    declared: str | None = None
    """The declared indicator whose latest statistics it is: these are not counted."""

    @property
    def team(self) -> str:
        """Where the team of a fact is read, in a measure that has the dimension `kind`."""
        return "e.team_id" if "support_event e" in self.facts else "t.id"

    def only(self, *conditions: str) -> "Measure":
        """Return the measure of those of the facts that also meet the conditions."""
        return replace(self, where=self.where + conditions)


@dataclass(frozen=True)
class Formula:
    """A number as it is, or 100 · Σ numerator / Σ denominator."""

    numerator: Measure
    denominator: Measure | None = None
    share: bool = False
    people: bool = False
    """Whether it counts people by age, households or beneficiaries: few are not shown to all."""
    among: Measure | None = None
    """What everybody may know that it is a part of: then a few others are as telling as a few."""
    needs: str | None = None
    """The parameter without which it says nothing."""
    grows: Measure | None = None
    """The same as a flow, where it only ever grows: then a few more are as telling as a few."""

    @property
    def measures(self) -> list[Measure]:
        """The measures to count."""
        return [m for m in (self.numerator, self.denominator) if m]

    @property
    def dimensions(self) -> frozenset[By]:
        """The dimensions that all of it has; none where a declared figure takes part."""
        return frozenset.intersection(*(m.dimensions for m in self.measures))

    @property
    def filters(self) -> frozenset[str]:
        """The parameters that filter all of it; none where a declared figure takes part.

        Of units with enough facts the facts only: the units are all that stand.
        """
        if self.numerator.value == AT_LEAST:
            return self.numerator.filters
        return frozenset.intersection(*(m.filters for m in self.measures))

    @property
    def parameters(self) -> frozenset[str]:
        """The parameters that it takes: filters, and what it needs."""
        return self.filters | ({self.needs} if self.needs else set())


def declared(code: str) -> Measure:
    """Return the statistics of a declared indicator, see `declared_figures`."""
    return Measure("statistic s", "s.unit_key", declared=code)
