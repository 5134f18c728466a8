"""Chance that repeats itself, and the marks by which generated data is told from real data.

Four marks. Names of generated villages, people and shops end in `(mẫu)`; addresses and notes say
`dữ liệu minh hoạ`; decisions of teams are numbered `DEMO-…`; and the id of every generated row
reads `xxxxxxxx-xxxx-7de0-8de0-xxxxxxxxxxxx`.
"""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from random import Random
from uuid import UUID

from api.clock import REPORTING_ZONE

YEAR = 2023
SAMPLE = "(mẫu)"
GENERATED = "Dữ liệu minh hoạ (generated)"
_MARK = (0x7DE0 << 64) | (0x8DE0 << 48)


class Seed:
    """The one source of chance of a demo: the same seed gives the same data."""

    def __init__(self, province: str) -> None:
        """`province` is an old code: another province gives other ids."""
        self.random = Random(f"{YEAR} {province}")  # noqa: S311 - nothing here is a secret
        self._phones = 0

    def new_id(self, moment: datetime) -> UUID:
        """Return a UUIDv7 of that moment that carries the mark."""
        millis = int(moment.timestamp() * 1000)
        return UUID(int=(millis << 80) | _MARK | self.random.getrandbits(48))

    def chance(self, share: float) -> bool:
        """Come true in that share of the cases."""
        return self.random.random() < share

    def one[T](self, choices: Sequence[T]) -> T:
        """Return one of the choices, each as likely."""
        return self.random.choice(choices)

    def weighted[T](self, weights: dict[T, float]) -> T:
        """Return one of the keys, as likely as its weight."""
        return self.random.choices(list(weights), list(weights.values()))[0]

    def moment(self, day: date, first_hour: int = 7, last_hour: int = 20) -> datetime:
        """Return a moment of a day, between two hours of Vietnam, the last one included."""
        seconds = self.random.randrange(first_hour * 3600, (last_hour + 1) * 3600)
        return datetime.combine(day, time(), REPORTING_ZONE) + timedelta(seconds=seconds)

    def day(self, first: date, last: date) -> date:
        """Return a day from the first to the last."""
        return first + timedelta(days=self.random.randint(0, (last - first).days))

    def phone(self) -> str:
        """Return a number that nobody can have: a digit too long for Vietnam."""
        self._phones += 1
        return f"+8490000{self._phones % 100_000:05d}"


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Share a total out in whole numbers, as near to the weights as can be (largest remainder)."""
    scale = total / sum(weights)
    exact = [weight * scale for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares
