"""Periods as people write them: a year, quarter, month, ISO week, day or interval, and series."""

import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import Final

from api.errors import FieldError, ValidationFailed
from api.models.observations import Every
from api.models.types import EARLIEST, LATEST

MOST_PIECES: Final = 1_000
DAY: Final = timedelta(days=1)
_YEAR: Final = re.compile(r"([0-9]{4})")
_QUARTER: Final = re.compile(r"([0-9]{4})-Q([1-4])")
_MONTH: Final = re.compile(r"([0-9]{4})-([0-9]{2})")
_WEEK: Final = re.compile(r"([0-9]{4})-W([0-9]{2})")
_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")


@dataclass(frozen=True)
class Period:
    """Reporting days from `first` to `last`, both included, and how that is written."""

    label: str
    first: date
    last: date


def parse(text: str, every: Every | None = None, pointer: str = "/query/period") -> list[Period]:
    """Read a period, or cut it into the pieces of a series: in order, without gaps.

    The first and the last piece are clipped to the period; a clipped one is labelled as an
    interval. 422 `period_invalid` at the pointer for anything else than the contract's notations,
    for days outside 1900-2200 and for more than 1,000 pieces.
    """
    try:
        return list(_parse(text.strip(), every))
    except (ValueError, OverflowError) as error:
        raise ValidationFailed(FieldError(pointer, "period_invalid")) from error


def _parse(text: str, every: Every | None) -> Iterator[Period]:
    whole = _read(text)
    if not EARLIEST <= whole.first <= whole.last <= LATEST:
        raise ValueError(text)
    pieces = _cut(whole, every) if every else iter([whole])
    yield from islice(pieces, MOST_PIECES)
    if next(pieces, None):
        raise ValueError(text)


def _read(text: str) -> Period:
    first, slash, last = text.partition("/")
    if slash:
        return Period(text, _day(first), _day(last))
    if match := _YEAR.fullmatch(text):
        return piece_of(date(int(match[1]), 1, 1), Every.year)
    if match := _QUARTER.fullmatch(text):
        return piece_of(date(int(match[1]), 3 * int(match[2]) - 2, 1), Every.quarter)
    if match := _MONTH.fullmatch(text):
        return piece_of(date(int(match[1]), int(match[2]), 1), Every.month)
    if match := _WEEK.fullmatch(text):
        return piece_of(date.fromisocalendar(int(match[1]), int(match[2]), 1), Every.week)
    return piece_of(_day(text), Every.day)


def _day(text: str) -> date:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return date(*map(int, match.groups()))


def piece_of(day: date, every: Every) -> Period:
    """Return the whole day, week, month, quarter or year that a day lies in."""
    match every:
        case Every.day:
            return Period(day.isoformat(), day, day)
        case Every.week:
            year, week, weekday = day.isocalendar()
            first = day - (weekday - 1) * DAY
            return Period(f"{year:04}-W{week:02}", first, first + 6 * DAY)
        case Every.month:
            return _months(f"{day.year:04}-{day.month:02}", day.year, day.month, day.month)
        case Every.quarter:
            last = (day.month + 2) // 3 * 3
            return _months(f"{day.year:04}-Q{last // 3}", day.year, last - 2, last)
        case Every.year:
            return _months(f"{day.year:04}", day.year, 1, 12)


def _months(label: str, year: int, first: int, last: int) -> Period:
    return Period(label, date(year, first, 1), date(year, last, monthrange(year, last)[1]))


def cut(whole: Period, every: Every) -> list[Period]:
    """Cut a period into pieces: in order, without gaps, the first and the last clipped to it."""
    return list(_cut(whole, every))


def _cut(whole: Period, every: Every) -> Iterator[Period]:
    day = whole.first
    while day <= whole.last:
        piece = piece_of(day, every)
        first, last = max(piece.first, whole.first), min(piece.last, whole.last)
        clipped = (first, last) != (piece.first, piece.last)
        yield Period(f"{first}/{last}" if clipped else piece.label, first, last)
        day = last + DAY
