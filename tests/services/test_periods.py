"""Periods: the contract's notations, and series without gaps."""

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import FieldError, ValidationFailed
from api.models.observations import Every
from api.services.periods import MOST_PIECES, Period, parse


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2023", date(2023, 1, 1), date(2023, 12, 31)),
        ("2023-Q1", date(2023, 1, 1), date(2023, 3, 31)),
        ("2023-Q4", date(2023, 10, 1), date(2023, 12, 31)),
        ("2023-03", date(2023, 3, 1), date(2023, 3, 31)),
        ("2024-02", date(2024, 2, 1), date(2024, 2, 29)),
        ("2023-W10", date(2023, 3, 6), date(2023, 3, 12)),
        ("2020-W53", date(2020, 12, 28), date(2021, 1, 3)),
        ("2026-W01", date(2025, 12, 29), date(2026, 1, 4)),
        ("2023-03-26", date(2023, 3, 26), date(2023, 3, 26)),
        ("2023-01-01/2023-03-31", date(2023, 1, 1), date(2023, 3, 31)),
        ("1900", date(1900, 1, 1), date(1900, 12, 31)),
        ("2200-12-31", date(2200, 12, 31), date(2200, 12, 31)),
    ],
)
def test_a_period_is_written_as_people_write_it(text: str, first: date, last: date) -> None:
    assert parse(text) == [Period(text, first, last)]


@pytest.mark.parametrize(
    "text",
    [
        *("", "23", "2023-Q0", "2023-Q5", "2023-q1", "2023-13", "2023-00", "2023-3", "2023-W00"),
        *("2023-W53", "2023-W1", "2023-02-29", "2023-01-01/", "/2023-01-01", "2023/2024"),
        *("2023-03-31/2023-03-01", "2023-01-01/2023-02-01/2023-03-01", "1899", "2201", "0000"),
        *("9999", "9999-W52", "2200-W53", "today", "2023-01-01T00:00:00", "２０２３", "2023\n01"),
        *("1899-12-31/1900-01-01", "2023-Q1/2023-Q2", "2023-01-01 / 2023-02-01", "-2023"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        parse(text)
    assert refused.value.errors == (FieldError("/query/period", "period_invalid"),)


@pytest.mark.parametrize(
    ("text", "every", "labels"),
    [
        ("2023-Q1", Every.month, ["2023-01", "2023-02", "2023-03"]),
        ("2023", Every.quarter, ["2023-Q1", "2023-Q2", "2023-Q3", "2023-Q4"]),
        ("2023", Every.year, ["2023"]),
        ("2023-03-30/2023-04-01", Every.day, ["2023-03-30", "2023-03-31", "2023-04-01"]),
        (
            "2023-01-15/2023-03-10",
            Every.month,
            ["2023-01-15/2023-01-31", "2023-02", "2023-03-01/2023-03-10"],
        ),
        ("2023-01", Every.year, ["2023-01-01/2023-01-31"]),
        (
            "2023-01",
            Every.week,
            [
                "2023-01-01/2023-01-01",
                *("2023-W01", "2023-W02", "2023-W03", "2023-W04"),
                "2023-01-30/2023-01-31",
            ],
        ),
    ],
)
def test_a_series_names_whole_pieces_and_clips_the_others(
    text: str, every: Every, labels: list[str]
) -> None:
    assert [piece.label for piece in parse(text, every)] == labels


days = st.dates(date(1900, 1, 1), date(2200, 12, 31))


@given(days, st.integers(0, MOST_PIECES - 1), st.sampled_from(Every))
def test_a_series_covers_its_period_once_and_each_label_means_its_piece(
    first: date, length: int, every: Every
) -> None:
    last = min(first + timedelta(length), date(2200, 12, 31))
    pieces = parse(f"{first}/{last}", every)
    assert pieces[0].first == first
    assert pieces[-1].last == last
    for piece, following in pairwise(pieces):
        assert following.first == piece.last + timedelta(1)
    for piece in pieces:
        assert parse(piece.label) == [piece]


def test_a_series_is_bounded() -> None:
    first = date(2020, 1, 1)
    longest = f"{first}/{first + timedelta(MOST_PIECES - 1)}"
    assert len(parse(longest, Every.day)) == MOST_PIECES
    for text in (f"{first}/{first + timedelta(MOST_PIECES)}", "1900-01-01/2200-12-31"):
        with pytest.raises(ValidationFailed):
            parse(text, Every.day)
