"""Workbooks (XLSX): texts that stay texts, and formulas that bring their values along.

Programs that do not calculate (a phone's preview, a protected view) show the values; whoever
opens the file in a spreadsheet can check every sum.
"""

from collections.abc import Sequence
from datetime import date, datetime, time
from io import BytesIO
from typing import Any, Final, NamedTuple, Self

from xlsxwriter import Workbook
from xlsxwriter.format import Format
from xlsxwriter.utility import xl_col_to_name
from xlsxwriter.worksheet import Worksheet

from api.clock import REPORTING_ZONE

XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_LONGEST: Final = 32_000


class Formula(NamedTuple):
    """A formula and the value that it comes to; `None` where it is empty."""

    text: str
    value: float | None


type Cell = str | int | float | date | Formula | None


class Book:
    """A workbook under construction."""

    def __init__(self, title: str, made_at: datetime) -> None:
        """`title` and the moment go into the file's properties."""
        self._file = BytesIO()
        self._book = Workbook(
            self._file,
            {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False},
        )
        made = made_at.astimezone(REPORTING_ZONE).replace(tzinfo=None)
        self._book.set_properties({"title": title, "created": made})
        edge = {"border": 1, "valign": "top"}
        self.formats: dict[str, Format] = {
            name: self._book.add_format(given)
            for name, given in {
                "title": {"bold": True, "font_size": 14},
                "label": {"bold": True},
                "head": {"bold": True, "bg_color": "#DDE6F0", "text_wrap": True} | edge,
                "text": {"text_wrap": True} | edge,
                "inert": {"text_wrap": True, "quote_prefix": True} | edge,
                "whole": {"num_format": "#,##0"} | edge,
                "share": {"num_format": "#,##0.0"} | edge,
                "day": {"num_format": "dd/mm/yyyy"} | edge,
                "moment": {"num_format": "dd/mm/yyyy hh:mm"} | edge,
                "total": {"bold": True, "num_format": "#,##0"} | edge,
            }.items()
        }

    def sheet(self, name: str) -> "Sheet":
        """Add a sheet."""
        return Sheet(self, self._book.add_worksheet(name[:31]))

    def finish(self) -> bytes:
        """Return the file."""
        self._book.close()
        return self._file.getvalue()


class Sheet:
    """A sheet, written from the top."""

    def __init__(self, book: Book, sheet: Worksheet) -> None:
        """Write into `sheet` with the formats of `book`."""
        self._book, self._sheet = book, sheet
        self.row = 0
        """The next row, counted from 0."""
        sheet.set_landscape()
        sheet.set_paper(9)  # A4
        sheet.fit_to_pages(1, 0)

    def __enter__(self) -> Self:
        """Write the sheet within a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do."""

    def title(self, text: str) -> None:
        """Write a line above everything."""
        self._sheet.write_string(self.row, 0, text, self._book.formats["title"])
        self.row += 1

    def fact(self, label: str, value: Cell) -> None:
        """Write a label with its value."""
        self._sheet.write_string(self.row, 0, label, self._book.formats["label"])
        self._put(1, value)
        self.row += 1

    def table(self, headings: Sequence[str], widths: Sequence[int], *, freeze: bool = True) -> None:
        """Begin a table: its headings stay in sight and repeat on every page."""
        for column, (heading, width) in enumerate(zip(headings, widths, strict=True)):
            self._sheet.write_string(self.row, column, heading, self._book.formats["head"])
            self._sheet.set_column(column, column, width)
        self.row += 1
        if freeze:
            self._sheet.freeze_panes(self.row, 0)
            self._sheet.repeat_rows(self.row - 1)

    def add(self, cells: Sequence[Cell], form: str | None = None) -> None:
        """Write a row."""
        for column, value in enumerate(cells):
            self._put(column, value, form)
        self.row += 1

    def sum(self, column: int, first: int, values: Sequence[float | None]) -> Formula:
        """Return the sum of a column's rows above, from row `first` on."""
        name = xl_col_to_name(column)
        text = f"=SUM({name}{first + 1}:{name}{max(self.row, first + 1)})"
        return Formula(text, sum(value or 0 for value in values))

    def _put(self, column: int, value: Cell, form: str | None = None) -> None:
        sheet, formats = self._sheet, self._book.formats
        match value:
            case None:
                sheet.write_blank(self.row, column, None, formats[form or "text"])
            case Formula(text, number):
                found = "" if number is None else number
                kind = form or ("share" if isinstance(number, float) else "whole")
                sheet.write_formula(self.row, column, text, formats[kind], found)
            case datetime():
                local = value.astimezone(REPORTING_ZONE).replace(tzinfo=None)
                sheet.write_datetime(self.row, column, local, formats["moment"])
            case date():
                midnight = datetime.combine(value, time())
                sheet.write_datetime(self.row, column, midnight, formats["day"])
            case str():
                kind = "inert" if value.startswith(_FORMULA) else form or "text"
                sheet.write_string(self.row, column, value[:_LONGEST], formats[kind])
            case _:
                kind = form or ("share" if isinstance(value, float) else "whole")
                sheet.write_number(self.row, column, value, formats[kind])


def cell_name(row: int, column: int) -> str:
    """Return a cell's name, e.g. C7, from numbers counted from 0."""
    return f"{xl_col_to_name(column)}{row + 1}"


def word(texts: dict[str, Any], kind: str, name: str, language: int) -> str:
    """Return a word of the catalogue; itself where that has none."""
    pair = texts[kind].get(name)
    return str(pair[language]) if pair else name
