"""Bounded field types: every string, number and date that a client sends has its limits here."""

import re
import unicodedata
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError
from sqlalchemy import Text, TypeDecorator
from sqlmodel import SQLModel

EARLIEST = date(1900, 1, 1)
LATEST = date(2200, 12, 31)
"""Whole years: `_in_range` compares these only."""
DECIMAL_PLACES = 4
LARGEST = 100_000_000_000
"""Of a declared figure: 15 digits, which a JSON number carries exactly."""
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_CONTROL = re.compile(r"[^\n\t\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")
"""Unicode's categories Cc and Cs, but for line breaks and tabs."""


def clean(value: str) -> str:
    """Normalise to NFC; refuse control characters, NUL among them (line breaks may stay, as LF)."""
    value = value.replace("\r\n", "\n")
    if _CONTROL.search(value):
        raise PydanticCustomError("control_character", "control character")
    return unicodedata.normalize("NFC", value)


def _written_as_date(value: Any) -> Any:
    """Take a date only as `YYYY-MM-DD`: numbers and times of day are mistakes."""
    if type(value) is date or (isinstance(value, str) and _DATE.fullmatch(value)):
        return value
    raise PydanticCustomError("date_invalid", "not YYYY-MM-DD")


def _written_as_time(value: Any) -> Any:
    """Take a time only as RFC 3339 text."""
    if isinstance(value, datetime) or (isinstance(value, str) and "T" in value.upper()):
        return value
    raise PydanticCustomError("datetime_invalid", "not RFC 3339")


def _in_range[T: date](value: T) -> T:
    if not EARLIEST.year <= value.year <= LATEST.year:
        raise PydanticCustomError("date_out_of_range", "absurd date")
    return value


def _in_utc(value: datetime) -> datetime:
    """Forget the offset: the same moment is the same content."""
    return value.astimezone(UTC)


def _in_order(values: dict[str, str]) -> dict[str, str]:
    """Forget the order: the same names are the same content."""
    return dict(sorted(values.items()))


def _to_four_places(value: float) -> float:
    """Refuse what could not be kept exactly: 11 digits before and 4 behind the point."""
    if round(value, DECIMAL_PLACES) != value:
        raise PydanticCustomError(
            "decimal_places", "too many decimal places", {"decimal_places": DECIMAL_PLACES}
        )
    return value


def number(value: float) -> "Number":
    """Return a whole number as one, since a count is written without a point."""
    return int(value) if value == int(value) else value


def _text(longest: int, shortest: int = 1) -> tuple[StringConstraints, AfterValidator]:
    constraints = StringConstraints(strip_whitespace=True, min_length=shortest, max_length=longest)
    return constraints, AfterValidator(clean)


Name = Annotated[str, *_text(200)]
Line = Annotated[str, *_text(500)]
Paragraph = Annotated[str, *_text(2000)]
Identifier = Annotated[str, *_text(64, 4)]
ShortCode = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=40, pattern=r"^[A-Za-z0-9_.\-]+$")
]
SystemName = Annotated[
    str, StringConstraints(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")
]
ExternalId = Annotated[str, *_text(200)]
QualifiedId = Annotated[
    str, StringConstraints(pattern=r"^[^:]+:.+$", max_length=250), AfterValidator(clean)
]
ExternalIds = Annotated[
    dict[SystemName, ExternalId], Field(max_length=10), AfterValidator(_in_order)
]
Phone = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^\+84[0-9]{9,10}$")]
WebUrl = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=500, pattern=r"^https://[^\s]+$")
]
Day = Annotated[date, BeforeValidator(_written_as_date), AfterValidator(_in_range)]
Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_written_as_time),
    AfterValidator(_in_range),
    AfterValidator(_in_utc),
]
Quantity = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[int | float, WithJsonSchema({"type": "number"})]
"""Counts are whole, shares are not; both are one JSON type."""
Figure = Annotated[
    float,
    Field(ge=-LARGEST, le=LARGEST, strict=True, allow_inf_nan=False),
    AfterValidator(_to_four_places),
]
PeriodText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=40, pattern=r"^[0-9]{4}[-/0-9QW]*$"),
]
"""As `services.periods` reads it."""
Latitude = Annotated[float, Field(ge=-90, le=90, strict=True, allow_inf_nan=False)]
Longitude = Annotated[float, Field(ge=-180, le=180, strict=True, allow_inf_nan=False)]


class _TextEnum(TypeDecorator[StrEnum]):
    """A text column whose values are those of an enum.

    (An enum type of the database's own is not leakproof: row-level security loses its index.)
    """

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: StrEnum | str | None, _dialect: Any) -> str | None:
        """Store the text."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, _dialect: Any) -> StrEnum | None:
        """Read the enum's member."""
        return None if value is None else self.kind(value)


def text_enum(kind: type[StrEnum]) -> Any:
    """Return the column type of an enum that is kept as text."""
    return _TextEnum(kind)


class Body(SQLModel):
    """What comes in or goes out, and never becomes a row.

    So it needs nothing of what the toolkit prepares rows with, which triples the cost of each.
    """

    __init__ = BaseModel.__init__

    def __new__(cls, *_args: Any, **_values: Any) -> Self:
        """Make one as Pydantic does."""
        return object.__new__(cls)

    @classmethod
    def model_validate(cls, obj: Any, **how: Any) -> Self:
        """Validate as Pydantic does."""
        return super(SQLModel, cls).model_validate(obj, **how)


class Input(Body):
    """A body: unknown fields are refused, since a typo is never ignored."""

    model_config = ConfigDict(extra="forbid")  # type: ignore[assignment]


class Creation(Input):
    """A body that makes a row, whose id the client may choose."""

    id: UUID | None = Field(default=None, description="A UUIDv7 of the client's own")


class Query(Input):
    """Query parameters: repeats mean OR, unknown ones are refused."""


class PageQuery(Query):
    """The parameters of every list."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str, StringConstraints(max_length=2000)] | None = None
    include_total: bool = False


class RecordQuery(PageQuery):
    """The filters that lists of placed rows share."""

    unit_id: list[UUID] = Field(
        default_factory=list,
        max_length=100,
        description="The whole subtree as it stands today, of a retired unit as on its last day",
    )
    external_id: list[QualifiedId] = Field(
        default_factory=list, max_length=100, description="`system:id`"
    )


class Output(Body):
    """What every resource carries."""

    id: UUID
    version: int
    created_at: datetime
    updated_at: datetime


class Level(StrEnum):
    """Levels of administrative units, from the top."""

    nation = "nation"
    province = "province"
    district = "district"
    commune = "commune"
    village = "village"
