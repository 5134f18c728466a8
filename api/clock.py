"""The only source of time: tests replace these two functions."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

REPORTING_ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
"""Reporting days, weeks, months, quarters and years are this zone's."""


def now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


def today() -> date:
    """Return the reporting day that is running now."""
    return reporting_day(now())


def reporting_day(moment: datetime) -> date:
    """Return the reporting day of a moment, e.g. 17:00Z belongs to the next day."""
    return moment.astimezone(REPORTING_ZONE).date()
