"""Reorganisations: changes of the tree of units, on a day, by a legal document."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime
from pydantic import Field as Bound
from sqlalchemy import BigInteger, Column, Identity, Integer, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from api.models.base import Record
from api.models.pages import Page
from api.models.types import (
    Creation,
    Day,
    Flag,
    Input,
    Level,
    Name,
    Output,
    PageQuery,
    Paragraph,
    ShortCode,
)


class Reorganisation(Record, table=True):
    """An applied reorganisation, and what it takes to undo it."""

    number: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), nullable=False)
    )
    effective_on: date
    document_number: str
    document_issued_on: date
    document_issuer: str
    changes: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    affected: dict[str, int] = Field(sa_column=Column(JSONB, nullable=False))
    unplaced: list[UUID] = Field(sa_column=Column(ARRAY(Uuid), nullable=False))
    unit_ids: list[UUID] = Field(sa_column=Column(ARRAY(Uuid), nullable=False))
    touched: list[int] = Field(sa_column=Column(ARRAY(Integer), nullable=False))
    created: list[int] = Field(sa_column=Column(ARRAY(Integer), nullable=False))
    undo: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    reverted_at: AwareDatetime | None = None
    reverted_by: UUID | None = None
    revert_reason: str | None = None


class LegalDocument(Input):
    """The document that orders a reorganisation; it is applied once."""

    number: Name = Field(description="E.g. 1673/NQ-UBTVQH15")
    issued_on: Day
    issuer: Name


class ChangeKind(StrEnum):
    """What a change does. Open: others may come."""

    create = "create"
    rename = "rename"
    move = "move"
    merge = "merge"
    split = "split"  # type: ignore[assignment]  # hides a method that nobody calls
    dissolve = "dissolve"


class NewUnit(Input):
    """A unit that begins on the day."""

    id: UUID | None = Field(
        default=None,
        description="Of the client's own, for later changes of the document to refer to; else the"
        " official one of the code and the day, or a new one",
    )
    level: Level
    name: Name
    type: Name
    code: ShortCode | None = Field(default=None, description="Villages have none")
    parent_id: UUID | None = Field(
        default=None, description="May be left out where the predecessors' own parent is meant"
    )


class Part(Input):
    """One of the units that another is split into, and which of its own go there."""

    unit: NewUnit
    village_ids: Annotated[list[UUID], Bound(max_length=1000)] = Field(default_factory=list)


_Units = Annotated[list[UUID], Bound(min_length=1, max_length=1000)]


class Change(Input):
    """One change. Each kind takes its own fields and no other.

    `create` unit; `rename` unit_id, name, type?, code?; `move` unit_ids, parent_id;
    `merge` from_ids, to; `split` from_id, into; `dissolve` unit_id, successor_id?.
    """

    kind: ChangeKind
    unit: NewUnit | None = None
    unit_id: UUID | None = None
    name: Name | None = None
    type: Name | None = None
    code: ShortCode | None = None
    unit_ids: _Units | None = None
    parent_id: UUID | None = None
    from_ids: _Units | None = None
    to: NewUnit | None = None
    from_id: UUID | None = None
    into: Annotated[list[Part], Bound(min_length=1, max_length=100)] | None = None
    successor_id: UUID | None = None


class ReorganisationCreate(Creation):
    """Changes in the order in which they are made, all of them or none."""

    effective_on: Day
    document: LegalDocument
    changes: Annotated[list[Change], Bound(min_length=1, max_length=1000)]
    dry_run: Flag = Field(default=False, description="Answer what would happen; write nothing")


class ReorganisationRevert(Input):
    """Why it is taken back."""

    reason: Paragraph


class Affected(SQLModel):
    """What lies at or under the changed units, of any date."""

    villages: int = 0
    teams: int = 0
    members: int = 0
    households: int = 0
    support_events: int = 0
    targets: int = 0
    grants: int = 0


class TreeConflict(SQLModel):
    """Why a change cannot be made as the tree stands."""

    pointer: str
    code: str
    params: dict[str, Any] = Field(description="What the code names, `unit_ids` among it")


class ReorganisationPreview(SQLModel):
    """What a reorganisation would do."""

    affected: Affected
    unplaced: list[UUID] = Field(description="Villages that no commune is named for")
    conflicts: list[TreeConflict] = Field(description="Empty once it is applied")


class ReorganisationRead(ReorganisationPreview, Output):
    """An applied reorganisation."""

    effective_on: date
    document: LegalDocument
    changes: list[Change]
    unit_ids: list[UUID] = Field(description="The units that it created")
    reverted_at: datetime | None
    revert_reason: str | None


class ReorganisationPage(Page[ReorganisationRead]):
    """A page of reorganisations, by their day."""


class ReorganisationQuery(PageQuery):
    """Filters of the list of reorganisations."""

    unit_id: list[UUID] = Field(
        default_factory=list, max_length=100, description="Units that were changed or created"
    )
    document_number: Annotated[list[Name], Bound(max_length=100)] = Field(default_factory=list)
    effective_on_gte: Day | None = None
    effective_on_lt: Day | None = None
