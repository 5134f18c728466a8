"""The cells of an answer: each indicator in each unit, period and part."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from api.models.observations import By, Observation, ObservationStatus
from api.services.measures import FORMULAS, Formula
from api.services.observation_units import Asked, Unit
from api.services.periods import Period

type Counts = dict[tuple[int | None, int], dict[str | None, int]]
"""(target's key or `None` for unallocated, number of the period) -> part of `by` -> number."""


def items_of(
    asked: Asked, indicator: Any, targets: Sequence[Unit], counted: Mapping[Any, Counts]
) -> Iterator[Observation]:
    """Give an indicator's cells: each target's periods in order, then what is unallocated.

    A target that did not stand, a period that has not begun and a declared indicator have one
    cell without a value; otherwise there is one cell, or one for each part of `by` with facts.
    """
    formula = FORMULAS.get(indicator.code)
    by = asked.by(formula) if formula else None
    tables = [counted.get((measure, by), {}) for measure in formula.measures] if formula else []
    cells = _Cells(asked, indicator, formula, by)
    for unit in (*targets, None):
        for n, piece in enumerate(asked.pieces, 1):
            if unit and not cells.exist(unit, piece):
                yield cells.cell(unit, piece, None, [])
                continue
            parts = [table.get((unit.key if unit else None, n), {}) for table in tables]
            named = sorted(set().union(*parts), key=str) if by or not unit else [None]
            for part in named:
                yield cells.cell(unit, piece, part, [numbers.get(part, 0) for numbers in parts])


@dataclass(frozen=True)
class _Cells:
    """The cells of one indicator, in units (`None`: unallocated) and periods."""

    asked: Asked
    indicator: Any
    formula: Formula | None
    by: By | None

    def exist(self, unit: Unit, piece: Period) -> bool:
        """Tell whether there is something to count: the period has begun, the unit stood in it."""
        return (
            self.formula is not None
            and piece.first <= self.asked.today
            and unit.stands(*self.asked.window(piece, self.formula))
        )

    @cached_property
    def unit_of_count(self) -> str | None:
        """What is counted; `None` for services with several units of count at once."""
        if self.indicator.unit_of_count != "service":
            return str(self.indicator.unit_of_count)
        units = set(self.asked.services.values())
        return units.pop() if len(units) == 1 else None

    def _counted(self, part: str | None) -> str | None:
        if part and self.by is By.service_type and self.indicator.unit_of_count == "service":
            return self.asked.services.get(part)
        return self.unit_of_count

    def cell(
        self, unit: Unit | None, piece: Period, part: str | None, numbers: Sequence[int]
    ) -> Observation:
        """Return a cell with its numbers: those of the formula's measures, or none."""
        share = self.formula is not None and self.formula.share
        unit_of_count = self._counted(part)
        numerator, denominator = (*numbers, None, None)[:2]
        value: float | None = numerator if unit_of_count and not share else None
        if share and numerator is not None and denominator:
            value = 100 * numerator / denominator
        status = ObservationStatus.ok if value is not None else ObservationStatus.not_computable
        code, name = unit.called(self.asked.tree(piece)) if unit else (None, None)
        return Observation(
            indicator=self.indicator.code,
            period=piece.label,
            unit_id=unit.id if unit else None,
            unit_code=code,
            unit_name=name,
            service_type=part if self.by is By.service_type else None,
            channel=part if self.by is By.channel else None,
            outcome=part if self.by is By.outcome else None,
            kind=part if self.by is By.kind else None,
            value=value,
            numerator=numerator if share else None,
            denominator=denominator if share else None,
            unit_of_count=unit_of_count,
            status=status if unit else ObservationStatus.unallocated,
        )
