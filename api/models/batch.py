"""A batch: what a phone or a portal gathered, sent at once, item by item answered."""

from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from api.models.support_events import SupportEventCreate
from api.models.types import ExternalId, Flag, Input, Moment, Name, SystemName

LARGEST = 500
"""Items of the largest batch, all resources together."""


class Operation(StrEnum):
    """What to do with an item."""

    create = "create"
    update = "update"
    delete = "delete"
    upsert = "upsert"


class ExternalName(BaseModel):
    """A row's id in another system."""

    model_config = ConfigDict(extra="forbid")

    system: SystemName
    id: ExternalId


class BatchItem(BaseModel):
    """One change; `if_match` is the ETag's text, quotes included.

    An `upsert` names its row by `external_id`, everything else by `id`.
    """

    model_config = ConfigDict(extra="forbid")

    op: Operation
    id: UUID | None = Field(default=None, validate_default=True)
    external_id: ExternalName | None = Field(default=None, validate_default=True)
    if_match: Annotated[str, StringConstraints(max_length=20)] | None = None
    data: dict[str, Any] = Field(default_factory=dict, description="The resource's own body")

    @field_validator("id", "external_id")
    @classmethod
    def _named(cls, value: Any, info: ValidationInfo) -> Any:
        """Ask for one of the two names, the one that the operation takes."""
        upserts = info.data.get("op") is Operation.upsert
        wanted = upserts == (info.field_name == "external_id")
        if wanted and value is None and "op" in info.data:
            raise PydanticCustomError("missing", "missing")
        if value is not None and not wanted:
            other = "external_id" if upserts else "id"
            raise PydanticCustomError("not_together", "not together", {"other": other})
        return value

    @property
    def place(self) -> tuple[bool, str]:
        """Where the item stands in the order in which rows are locked."""
        if self.external_id is None:
            return False, str(self.id)
        return True, f"{self.external_id.system}:{self.external_id.id}"


class NewEventItem(BaseModel):
    """A create of an event that is right as far as it tells itself: its body is read already."""

    model_config = ConfigDict(extra="forbid")

    op: Literal[Operation.create]
    id: UUID
    data: SupportEventCreate

    @property
    def body(self) -> SupportEventCreate:
        """The event under the item's id (assigned by the toolkit it would cost as much again)."""
        vars(self.data)["id"] = self.id
        return self.data


Items = Annotated[list[BatchItem], Field(max_length=LARGEST)]


class BatchCreate(Input):
    """Up to 500 items in all."""

    teams: Items = Field(default_factory=list)
    members: Items = Field(default_factory=list)
    households: Items = Field(default_factory=list)
    support_events: Items = Field(default_factory=list)
    activities: Items = Field(default_factory=list)
    atomic: Flag = Field(default=False, description="All or nothing")
    dry_run: Flag = Field(default=False, description="Answer as if, write nothing")
    device_id: Name | None = None
    device_sequence: Annotated[int, Field(ge=0, le=2**53, strict=True)] | None = None
    sent_at: Moment | None = None

    @property
    def only_records(self) -> bool:
        """Whether it brings nothing but new events, each of which may fail alone."""
        others = self.teams or self.members or self.households or self.activities
        return not (others or self.atomic or self.dry_run) and all(
            item.op is Operation.create for item in self.support_events
        )

    @model_validator(mode="after")
    def _bounded(self) -> "BatchCreate":
        sent = (self.teams, self.members, self.households, self.support_events, self.activities)
        if sum(map(len, sent)) > LARGEST:
            raise PydanticCustomError("too_long", "too many", {"max_length": LARGEST})
        return self

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **how: Any) -> "BatchCreate":
        """Read a batch: its events together with it, if they are all new and right."""
        try:
            read: BatchCreate = _NewEvents.__pydantic_validator__.validate_json(json_data)
        except ValidationError:
            return super().model_validate_json(json_data, **how)
        return read


class _NewEvents(BatchCreate):
    support_events: Annotated[list[NewEventItem], Field(max_length=LARGEST)]  # type: ignore[assignment]  # narrower


class BatchOutcome(StrEnum):
    """What became of an item. Open: others may come."""

    created = "created"
    updated = "updated"
    unchanged = "unchanged"
    deleted = "deleted"
    conflict = "conflict"
    rejected = "rejected"
    deferred = "deferred"


class FieldConflict(BaseModel):
    """A field that was changed in the meantime."""

    pointer: str
    yours: Any = None
    current: Any = None
    changed_by: UUID | None = Field(default=None, description="The principal, where it is known")


class BatchResult(BaseModel):
    """The answer to one item."""

    resource: str
    index: int
    id: UUID | None = Field(description="Null only where an upsert was refused")
    status: int
    outcome: BatchOutcome
    etag: str | None = None
    problem: dict[str, Any] | None = None
    conflicts: list[FieldConflict] = Field(default_factory=list)


class BatchRead(BaseModel):
    """The answers, in the order sent."""

    results: list[BatchResult]
