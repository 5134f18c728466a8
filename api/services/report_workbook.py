"""A report as a workbook, as officers know it: one sheet a subject, sums that can be checked."""

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from api.models.reports import Report, ReportIndicator
from api.models.targets import Comparator
from api.problems import LANGUAGES
from api.services.workbooks import Book, Cell, Formula, cell_name, word

_SIGNS: Final = {
    Comparator.gte: "≥",
    Comparator.gt: ">",
    Comparator.lte: "≤",
    Comparator.lt: "<",
    Comparator.eq: "=",
}
_NOTHING: Final[list[Cell]] = [None] * 6
_TEXTS: Final = Path(__file__).parents[1] / "data" / "report.toml"


@cache
def texts() -> dict[str, dict[str, list[str]]]:
    """Return the words of reports: Vietnamese first, then English."""
    return tomllib.loads(_TEXTS.read_text(encoding="utf-8"))


def workbook_of(report: Report, language: str) -> bytes:
    """Return a report as XLSX; `language` is `vi` or `en`."""
    return _Writer(report, LANGUAGES.index(language)).write()


class _Writer:
    def __init__(self, report: Report, language: int) -> None:
        self.report, self.language = report, language
        self.book = Book(self.word("heading", "title"), report.generated_at)

    def word(self, kind: str, name: str) -> str:
        words: dict[str, Any] = texts()
        return word(words, kind, name, self.language)

    def columns(self, *names: str) -> list[str]:
        return [self.word("column", name) for name in names]

    def counted(self, unit_of_count: str | None) -> str:
        return self.word("unit_of_count", unit_of_count) if unit_of_count else ""

    def name(self, row: Any) -> str:
        return str(row.name_en if self.language else row.name_vi)

    def write(self) -> bytes:
        """Write all sheets."""
        self.summary()
        self.targets()
        self.services()
        self.activities()
        self.units()
        self.villages()
        self.teams()
        self.closings()
        return self.book.finish()

    def summary(self) -> None:
        report = self.report
        sheet = self.book.sheet(self.word("sheet", "summary"))
        sheet.title(self.word("heading", "title"))
        above = report.addressed_to
        days = f"{report.first_on:%d/%m/%Y} – {report.last_on:%d/%m/%Y}"
        facts: list[tuple[str, Cell]] = [
            ("unit", report.unit.name),
            ("addressed_to", above.name if above else None),
            ("period", report.period),
            ("days", days),
            ("previous", report.previous_period),
            ("generated_at", report.generated_at),
            ("complete_through", report.complete_through),
            ("data_version", report.data_version),
            ("verified_share", report.verified_share),
        ]
        for name, value in facts:
            sheet.fact(self.word("heading", name), value)
        sheet.row += 1
        names = ("indicator", "unit_of_count", "value", "numerator", "denominator")
        headings = self.columns(*names, "previous_value", "change", "status")
        sheet.table(headings, (48, 20, 14, 12, 12, 14, 14, 36), freeze=False)
        for indicator in report.indicators:
            sheet.add(self.indicator(indicator, sheet.row))

    def indicator(self, item: ReportIndicator, row: int) -> list[Cell]:
        value: Cell = item.value
        if item.value is not None and item.denominator:
            share = f"100*{cell_name(row, 3)}/{cell_name(row, 4)}"
            value = Formula(f'=IF({cell_name(row, 4)}=0,"",{share})', item.value)
        now, before = cell_name(row, 2), cell_name(row, 5)
        change = Formula(f'=IF(OR({now}="",{before}=""),"",{now}-{before})', item.change)
        return [
            self.name(item),
            self.counted(item.unit_of_count),
            value,
            item.numerator,
            item.denominator,
            item.previous_value,
            change,
            self.word("status", item.status.value),
        ]

    def targets(self) -> None:
        sheet = self.book.sheet(self.word("sheet", "targets"))
        names = ("indicator", "period", "compared", "target", "value", "attainment", "status")
        sheet.table(self.columns(*names, "document"), (48, 24, 12, 14, 14, 18, 24, 40))
        for row in self.report.targets:
            plan, reached = cell_name(sheet.row, 3), cell_name(sheet.row, 4)
            share = None if row.attainment is None else 100 * row.attainment
            done: Cell = share
            if row.comparator in {Comparator.gte, Comparator.gt, Comparator.eq}:
                empty = f'OR({plan}=0,{reached}="")'
                done = Formula(f'=IF({empty},"",100*{reached}/{plan})', share)
            status = self.word("progress", row.status.value)
            sign = _SIGNS.get(row.comparator, row.comparator.value)
            told = [self.name(row), row.period, sign, row.target, row.value, done, status]
            sheet.add([*told, row.document])

    def services(self) -> None:
        sheet = self.book.sheet(self.word("sheet", "services"))
        names = ("code", "service", "unit_of_count", "events", "quantity", "quantity_verified")
        sheet.table(self.columns(*names), (20, 48, 16, 14, 14, 18))
        first, rows = sheet.row, self.report.services
        for row in rows:
            unit = self.counted(row.unit_of_count)
            numbers = (row.events, row.quantity, row.quantity_verified)
            sheet.add([row.service_type, self.name(row), unit, *numbers])
        events = sheet.sum(3, first, [row.events for row in rows])
        last = sheet.row
        sheet.add([self.word("row", "total"), None, None, events, None, None], "total")
        for unit_of_count in sorted({row.unit_of_count for row in rows}):
            some = [row for row in rows if row.unit_of_count == unit_of_count]
            by = cell_name(sheet.row, 2)
            sums = [
                Formula(f"=SUMIF($C${first + 1}:$C${last},{by},{name}{first + 1}:{name}{last})", n)
                for name, n in (
                    ("D", sum(row.events for row in some)),
                    ("E", sum(row.quantity for row in some)),
                    ("F", sum(row.quantity_verified for row in some)),
                )
            ]
            label = self.word("row", "total_of")
            sheet.add([label, None, self.counted(unit_of_count), *sums], "total")

    def activities(self) -> None:
        sheet = self.book.sheet(self.word("sheet", "activities"))
        sheet.table(self.columns("kind", "activities", "participants"), (40, 16, 20))
        first, rows = sheet.row, self.report.activities
        for row in rows:
            sheet.add([self.word("activity_kind", row.kind), row.activities, row.participants])
        held = sheet.sum(1, first, [row.activities for row in rows])
        came = sheet.sum(2, first, [row.participants for row in rows])
        sheet.add([self.word("row", "total"), held, came], "total")

    def units(self) -> None:
        sheet = self.book.sheet(self.word("sheet", "units"))
        names = ("code", "name", "team_count", "member_count", "events", "villages")
        headings = self.columns(*names, "villages_covered", "coverage")
        sheet.table(headings, (12, 40, 12, 14, 14, 14, 16, 16))
        first, rows = sheet.row, self.report.units
        for row in rows:
            told = row.name or self.word("row", "unallocated")
            numbers = (row.teams, row.members, row.events, row.villages, row.villages_covered)
            covered = _coverage(sheet.row, row.villages_covered, row.villages)
            sheet.add([row.code, told, *numbers, covered])
        columns: Sequence[tuple[int, list[Any]]] = (
            (2, [row.teams for row in rows]),
            (4, [row.events for row in rows]),
            (5, [row.villages for row in rows]),
            (6, [row.villages_covered for row in rows]),
        )
        sums = {column: sheet.sum(column, first, values) for column, values in columns}
        total = [sums.get(column) for column in range(2, 7)]
        covered = _coverage(sheet.row, sums[6].value, sums[5].value)
        sheet.add([None, self.word("row", "total"), *total, covered], "total")

    def villages(self) -> None:
        report = self.report
        sheet = self.book.sheet(self.word("sheet", "villages"))
        sheet.table(self.columns("number", "village", "commune"), (8, 44, 40))
        for number, row in enumerate(report.uncovered_villages, 1):
            sheet.add([number, row.name, row.commune_name])
        sheet.add([None, self.word("row", "all"), report.uncovered_village_count], "total")

    def teams(self) -> None:
        report = self.report
        sheet = self.book.sheet(self.word("sheet", "teams"))
        sheet.table(self.columns("number", "team", "name"), (8, 60, 40))
        for number, row in enumerate(report.idle_teams, 1):
            sheet.add([number, row.name, row.unit_name])
        sheet.add([None, self.word("row", "all"), report.idle_team_count], "total")

    def closings(self) -> None:
        sheet = self.book.sheet(self.word("sheet", "closings"))
        names = ("period", "closed_at", "hash", "revised_at", "indicator", "service")
        headings = self.columns(*names, "was", "is", "difference")
        sheet.table(headings, (12, 18, 68, 18, 40, 16, 12, 12, 12))
        known = {item.indicator: self.name(item) for item in self.report.indicators}
        for closed in self.report.closed_periods:
            sheet.add([closed.period, closed.closed_at, closed.hash, *_NOTHING])
            for r in closed.revisions:
                was, became = cell_name(sheet.row, 6), cell_name(sheet.row, 7)
                difference = Formula(
                    f'=IF(OR({was}="",{became}=""),"",{became}-{was})', r.difference
                )
                name = known.get(r.indicator, r.indicator)
                told: list[Cell] = [r.at, name, r.service_type, r.was, r.became, difference]
                sheet.add([closed.period, None, None, *told])


def _coverage(row: int, covered: float | None, villages: float | None) -> Formula:
    part, whole = cell_name(row, 6), cell_name(row, 5)
    value = 100 * (covered or 0) / villages if villages else None
    return Formula(f'=IF(N({whole})=0,"",100*{part}/{whole})', value)
