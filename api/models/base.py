"""What tables share: the record-keeping of a row, and where it is placed."""

from uuid import UUID

from pydantic import AwareDatetime
from sqlmodel import Field, SQLModel

metadata = SQLModel.metadata


class Record(SQLModel):
    """Identity, version and trace of a row that clients create and change."""

    id: UUID = Field(primary_key=True)
    version: int = 1
    created_at: AwareDatetime
    updated_at: AwareDatetime
    deleted_at: AwareDatetime | None = None
    created_by: UUID | None = None
    content_hash: bytes | None = None
    """Keyed hash of the body as first accepted: tells a repeated create from a conflict."""


class Placed(SQLModel):
    """Where a row stood on its own day: the unit, and its commune and province of that day.

    The three keys never change with a reorganisation; scope and totals are read through them.
    """

    unit_id: UUID
    unit_key: int = Field(foreign_key="admin_unit.key")
    commune_key: int | None = Field(default=None, foreign_key="admin_unit.key")
    province_key: int | None = Field(default=None, foreign_key="admin_unit.key")
