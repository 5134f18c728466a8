"""Sums of an indicator's numbers over months, services and teams: the figures of many targets."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from api.services.measures import Formula
from api.services.observation_cells import Cells, Figure, Figures
from api.services.observation_counts import services_of
from api.services.observation_units import Asked
from api.services.periods import Period
from api.services.target_questions import Kind, Need

type _Sum = dict[tuple[int, str | None], float]
"""Unit and part, if these are told apart -> number."""


@dataclass(frozen=True)
class Sums:
    """An indicator's numbers: a table for each of its formula's measures."""

    asked: Asked
    indicator: Any
    formula: Formula
    tables: Sequence[Figures]
    catalogue: Sequence[Any]

    def of(self, needs: Collection[Need]) -> Iterator[tuple[Need, Figure]]:
        """Give the figures of needs; those of the same days and services are added up together."""
        alike: dict[tuple[date, date, tuple[str, ...]], list[Need]] = {}
        for need in needs:
            alike.setdefault((need.first, need.last, need.services), []).append(need)
        units = {unit.key: unit for unit in self.asked.roots}
        for (first, last, services), several in alike.items():
            asked = replace(self.asked, services=services_of(self.catalogue, services))
            cells = Cells(asked, self.indicator, self.formula, None)
            whole = Period(asked.whole.label, first, last)
            of_services = several[0].question.kind is Kind.services
            sums = [
                self._add(table, whole, asked if of_services else None) for table in self.tables
            ]
            nothing = [None if measure.declared else 0 for measure in self.formula.measures]
            for need in several:
                numbers: list[float | None] = []
                if cells.exist(units[need.unit_key], whole):
                    key = (need.unit_key, str(need.team_id) if need.team_id else None)
                    numbers = [
                        found.get(key, none) for found, none in zip(sums, nothing, strict=True)
                    ]
                yield need, cells.figure(numbers)

    def _add(self, table: Figures, whole: Period, among: Asked | None) -> _Sum:
        """Add numbers up over the periods in a whole one and, if some are named, their services."""
        pieces = enumerate(self.asked.pieces, 1)
        inside = {n for n, piece in pieces if whole.first <= piece.first <= whole.last}
        sums: _Sum = {}
        for (unit, n), parts in table.items():
            if unit is None or n not in inside:
                continue
            for part, number in parts.items():
                if among is None:
                    sums[unit, part] = sums.get((unit, part), 0) + number
                elif part in among.services:
                    sums[unit, None] = sums.get((unit, None), 0) + number
        return sums
