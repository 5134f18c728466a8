"""Personal fields: who sees them in clear, and how they are hidden from everybody else."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import PlacedRow
from api.errors import Conflict, FieldError

PERSONAL: Final[dict[str, tuple[str, ...]]] = {
    "members": ("full_name", "birth_year", "phone"),
    "households": ("head_name", "address", "phone"),
    "commendations": ("recipient_name",),
    "support_events": ("household_id", "beneficiary", "lat", "lon", "note"),
}
"""Resource -> its personal fields: masked for whoever lacks the right, recorded when shown."""


def sees_people(
    caller: Caller, created_by: UUID | None, *places: tuple[PlacedRow, UUID | None]
) -> bool:
    """Tell whether the caller reads a row's personal fields in clear.

    By its place or its team, or, for a portal, because it wrote the row itself.
    """
    if created_by == caller.id and caller.has(Permission.own_people_read):
        return True
    reach = caller.reach(Permission.people_read)
    return any(reach.covers(row, team_id) for row, team_id in places)


def sees_all_people(caller: Caller, places: Collection[PlacedRow | None]) -> bool:
    """Tell whether the caller reads personal fields in clear wherever people are counted."""
    reach = caller.reach(Permission.people_read)
    return all(place is not None and reach.covers(place) for place in places)


def mask(values: dict[str, Any], hidden: Sequence[str]) -> dict[str, Any]:
    """Empty the hidden fields and name those that held something under `masked`."""
    held = [name for name in hidden if values.get(name) is not None]
    return values | dict.fromkeys(hidden) | {"masked": sorted(held)}


class Sealable(Protocol):
    """A person's row that a data subject's request may seal."""

    restricted_at: datetime | None
    redacted_at: datetime | None


def check_unsealed(row: Sealable) -> None:
    """Refuse (409) to change a person who was erased, or whose data may only be kept."""
    if row.redacted_at is not None:
        raise Conflict(FieldError("", "redacted"))
    if row.restricted_at is not None:
        raise Conflict(FieldError("", "restricted"))
