"""Administrative units: lasting identities, dated states, successions, placements."""

from datetime import date
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import Column, Computed, Identity, Integer, Text
from sqlalchemy.dialects.postgresql import DATERANGE, Range
from sqlmodel import Field, SQLModel

from api.models.pages import Page
from api.models.types import (
    Creation,
    Day,
    Input,
    Latitude,
    Level,
    Longitude,
    Name,
    Output,
    PageQuery,
    Query,
    text_enum,
)


class AdminUnit(SQLModel, table=True):
    """A unit's identity: it survives renaming, recoding and moving."""

    __tablename__ = "admin_unit"

    id: UUID = Field(primary_key=True)
    key: int | None = Field(
        default=None, sa_column=Column(Integer, Identity(always=True), unique=True, nullable=False)
    )
    level: Level = Field(sa_type=text_enum(Level))
    valid_from: date | None = None
    valid_to: date | None = None
    lat: float | None = None
    lon: float | None = None
    version: int = 1
    created_at: AwareDatetime
    updated_at: AwareDatetime
    deleted_at: AwareDatetime | None = None
    created_by: UUID | None = None
    content_hash: bytes | None = None


class AdminUnitState(SQLModel, table=True):
    """What a unit was called, coded and placed under, and when."""

    __tablename__ = "admin_unit_state"

    unit_key: int = Field(foreign_key="admin_unit.key", primary_key=True)
    during: Range[date] = Field(sa_column=Column(DATERANGE, primary_key=True))
    name: str
    type: str
    code: str | None = None
    parent_key: int | None = Field(default=None, foreign_key="admin_unit.key")
    search: str | None = Field(
        default=None, sa_column=Column(Text, Computed("search_text(name)"), nullable=False)
    )

    model_config = {"arbitrary_types_allowed": True}


class UnitSuccession(SQLModel, table=True):
    """What became of a unit: `whole` when all of it went to that successor."""

    __tablename__ = "unit_succession"

    predecessor_key: int = Field(foreign_key="admin_unit.key", primary_key=True)
    successor_key: int = Field(foreign_key="admin_unit.key", primary_key=True)
    happened_on: date
    extent: str


class UnitBecame(SQLModel, table=True):
    """The same, looking onward, and for districts too: they went where their communes went."""

    __tablename__ = "unit_became"
    __table_args__ = {"info": {"view": True}}

    predecessor_key: int = Field(primary_key=True)
    successor_key: int = Field(primary_key=True)
    happened_on: date
    extent: str


class Placement(SQLModel, table=True):
    """Who stood above whom, and when: only where every candidate territory agrees."""

    __tablename__ = "placement"

    unit_key: int = Field(foreign_key="admin_unit.key", primary_key=True)
    level: Level = Field(primary_key=True, sa_type=text_enum(Level))
    during: Range[date] = Field(sa_column=Column(DATERANGE, primary_key=True))
    ancestor_key: int = Field(foreign_key="admin_unit.key")

    model_config = {"arbitrary_types_allowed": True}


class AdminUnitCreate(Creation):
    """A village. Official units come with their legal documents, by a reorganisation."""

    level: Level
    name: Name
    type: Name
    parent_id: UUID
    valid_from: Day
    valid_to: Day | None = None
    lat: Latitude | None = None
    lon: Longitude | None = None


class AdminUnitUpdate(Input):
    """A new name or type holds from today; the former one stays known for its days."""

    name: Name | None = None
    type: Name | None = None
    valid_to: Day | None = None
    lat: Latitude | None = None
    lon: Longitude | None = None


class MatchKind(StrEnum):
    """By which name a search found a unit. Open: others may come."""

    name = "name"
    former_name = "former_name"
    predecessor = "predecessor"


class NameMatch(SQLModel):
    """Why a search found a unit: by its own name, a former one, or that of a unit it came from."""

    kind: MatchKind
    name: str = Field(description="The name that was found, as it was written")
    code: str | None
    unit_id: UUID = Field(description="Whose name it is or was; a predecessor's id, or its own")
    until: date | None = Field(description="The last day of that name; null while it holds")


class AdminUnitRead(Output):
    """A unit as it is on the day asked (or was on its last)."""

    level: Level
    code: str | None
    name: str
    type: str
    parent_id: UUID | None
    valid_from: date | None
    valid_to: date | None
    lat: float | None
    lon: float | None
    match: NameMatch | None = Field(
        default=None, description="Why `q` found it, in the list; null when nothing was searched"
    )


class AdminUnitPage(Page[AdminUnitRead]):
    """A page of units."""


class UnitSort(StrEnum):
    """Orders of units: the best match of `q` first, or names, sorted without their accents.

    Without `q`, `relevance` is the order of names.
    """

    relevance = "relevance"
    name = "name"
    name_desc = "-name"


class AtQuery(Query):
    """The day a unit is asked for."""

    at: Day | None = Field(default=None, description="Default: today in Asia/Ho_Chi_Minh")


class AdminUnitQuery(PageQuery):
    """Filters of the list of units."""

    code: Annotated[list[Name], Field(max_length=100)] = Field(default_factory=list)
    level: list[Level] = Field(default_factory=list, max_length=5)
    parent_id: list[UUID] = Field(default_factory=list, max_length=100)
    within: list[UUID] = Field(
        default_factory=list, max_length=100, description="The whole subtree, the unit included"
    )
    q: Name | None = Field(
        default=None,
        description="A name, or the beginning of any of its words; accents, case and small typos "
        "aside, with or without the word for its kind. An old name finds what became of the unit. "
        "In the order of `relevance` the 500 best, else all",
    )
    at: Day | None = Field(default=None, description="Default: today in Asia/Ho_Chi_Minh")
    sort: UnitSort = UnitSort.relevance


class UnitReference(SQLModel):
    """One step of a lineage."""

    unit_id: UUID
    code: str | None
    name: str
    level: Level
    on: date
    extent: str = Field(description="`whole` or `part` of the predecessor")


class Lineage(SQLModel):
    """Where a unit came from and what became of it."""

    predecessors: list[UnitReference]
    successors: list[UnitReference]
