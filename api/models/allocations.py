"""Allocations: a target shared out over the units below it."""

from enum import StrEnum
from uuid import UUID

from sqlmodel import Field

from api.models.types import Body, Figure, Input, Number


class AllocateBy(StrEnum):
    """What the parts follow: all alike, declared households, or active members."""

    even = "even"
    households = "households"
    members = "members"


class AllocationGiven(Input):
    """One unit's part, or one team's there."""

    unit_id: UUID
    team_id: UUID | None = None
    value: Figure


class TargetAllocate(Input):
    """Every part, or by what the units directly below get theirs."""

    allocations: list[AllocationGiven] | None = Field(default=None, max_length=1_000, min_length=1)
    by: AllocateBy | None = None


class Allocation(Body):
    """A part: a target of its own."""

    target_id: UUID
    unit_id: UUID
    team_id: UUID | None
    value: Number


class Allocations(Body):
    """The parts that stand, and what no unit was given (negative: more was given than there is)."""

    allocations: list[Allocation]
    unallocated: Number
