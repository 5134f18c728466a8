"""By when a data subject's request must be answered (Law 91/2025/QH15, Decree 356/2025)."""

from datetime import UTC, date, datetime, time, timedelta

from api.clock import REPORTING_ZONE, reporting_day
from api.models.data_subject_requests import RequestKind

WORKING_DAYS = 2
WITHDRAWAL_DAYS = 15
HOLIDAYS = {(1, 1), (4, 30), (5, 1), (9, 2)}
"""(Month, day) of the public holidays with a fixed solar date. Tet, the Hung kings' day and the
extra days that are decreed each year cannot be computed: over them an answer falls due too early,
never too late."""


def is_working(day: date) -> bool:
    """Tell whether offices are open: Monday to Friday, fixed holidays aside."""
    return day.isoweekday() <= 5 and (day.month, day.day) not in HOLIDAYS  # noqa: PLR2004 - Friday


def due_at(kind: RequestKind, received: datetime) -> datetime:
    """Return the end of the second working day after, of the fifteenth day for a withdrawal."""
    day = reporting_day(received)
    if kind is RequestKind.withdrawal:
        day += timedelta(days=WITHDRAWAL_DAYS)
    else:
        for _ in range(WORKING_DAYS):
            day += timedelta(days=1)
            while not is_working(day):
                day += timedelta(days=1)
    return datetime.combine(day, time(23, 59, 59), REPORTING_ZONE).astimezone(UTC)
