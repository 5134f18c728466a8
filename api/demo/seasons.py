"""When teams are busy: the weeks and the campaigns of the year."""

from bisect import bisect_left
from datetime import date, timedelta
from itertools import accumulate

from api.demo.seed import YEAR, Seed

_FIRST = date(YEAR, 1, 1)
_DAYS = [_FIRST + timedelta(days=n) for n in range((date(YEAR + 1, 1, 1) - _FIRST).days)]
_WEEK = [1.0, 1.0, 1.0, 1.0, 1.15, 1.3, 0.8]
_SATURDAY = 5
_TET = date(2023, 1, 20), date(2023, 1, 27)
_CAMPAIGNS = {
    (date(YEAR, 3, 1), date(YEAR, 3, 31)): 1.8,  # Youth Month
    (date(YEAR, 6, 1), date(YEAR, 7, 31)): 1.5,  # the volunteers' summer
    (date(YEAR, 10, 1), date(YEAR, 10, 15)): 1.9,  # around National Digital Transformation Day
}
_DIGITAL_DAY, _DIGITAL_DAY_FACTOR = date(YEAR, 10, 10), 5.0


def campaigns() -> list[tuple[date, date]]:
    """Return the first and last days of the year's campaigns."""
    return list(_CAMPAIGNS)


def is_weekend(day: date) -> bool:
    """Tell whether offices are closed."""
    return day.weekday() >= _SATURDAY


def in_campaign(day: date) -> bool:
    """Tell whether a campaign is on."""
    return any(first <= day <= last for first, last in _CAMPAIGNS)


def _weight(day: date) -> float:
    weight = _WEEK[day.weekday()]
    if _TET[0] <= day <= _TET[1]:
        weight *= 0.08
    if day == _DIGITAL_DAY:
        weight *= _DIGITAL_DAY_FACTOR
    for (first, last), factor in _CAMPAIGNS.items():
        weight *= factor if first <= day <= last else 1
    return weight


_UP_TO = [0.0, *accumulate(map(_weight, _DAYS))]


def draw(seed: Seed, since: date) -> date:
    """Return a day of the year, not before `since`, as likely as it is busy."""
    before = _UP_TO[max(0, (since - _FIRST).days)]
    return _DAYS[bisect_left(_UP_TO, seed.random.uniform(before, _UP_TO[-1]), 1) - 1]


def share(since: date) -> float:
    """Return which part of the year's work is still to come on that day."""
    return 1 - _UP_TO[max(0, (since - _FIRST).days)] / _UP_TO[-1]
