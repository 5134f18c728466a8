"""Upserts: a portal writes a row under an id of its own, without asking whether it is there."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller
from api.models.households import HouseholdCreate, HouseholdRead, HouseholdUpdate
from api.models.members import MemberCreate, MemberRead, MemberRewrite
from api.models.teams import TeamCreate, TeamRead, TeamUpdate
from api.models.types import Creation, Input, Output
from api.services import external_ids, households, members, teams
from api.services.writing import ANY_VERSION


@dataclass(frozen=True)
class Noun[Read: Output]:
    """How the rows of one resource are created, changed and brought back."""

    resource: str
    creation: type[Creation]
    change: type[Input]
    create: Callable[..., Awaitable[tuple[Read, bool]]]
    update: Callable[..., Awaitable[Read]]
    undelete: Callable[..., Awaitable[object]]


TEAMS: Noun[TeamRead] = Noun(
    teams.RESOURCE,
    TeamCreate,
    TeamUpdate,
    teams.create_team,
    teams.update_team,
    teams.undelete_team,
)
MEMBERS: Noun[MemberRead] = Noun(
    members.RESOURCE,
    MemberCreate,
    MemberRewrite,
    members.create_member,
    members.rewrite_member,
    members.bring_member_back,
)
HOUSEHOLDS: Noun[HouseholdRead] = Noun(
    households.RESOURCE,
    HouseholdCreate,
    HouseholdUpdate,
    households.create_household,
    households.update_household,
    households.bring_household_back,
)


async def put[Read: Output](
    session: AsyncSession, caller: Caller, noun: Noun[Read], name: tuple[str, str], given: Input
) -> tuple[Read, bool]:
    """Create the row of an external id (system, id), or give it the fields that were sent.

    A deleted row comes back. 409 `external_id_conflict` when the system's name is another
    client's. Returns the row as it is now and whether it is new.
    """
    body: dict[str, Any] = given.model_dump()
    body["external_ids"] = external_ids.with_name(body["external_ids"], *name)
    row_id, is_new = await external_ids.reserve(session, caller, noun.resource, *name)
    if is_new:
        creation = noun.creation.model_validate(body | {"id": row_id})
        return await noun.create(session, caller, creation)
    await noun.undelete(session, caller, row_id, ANY_VERSION)
    sent = {field: body[field] for field in given.model_fields_set | {"external_ids"}}
    change = noun.change.model_validate(sent)
    return await noun.update(session, caller, row_id, ANY_VERSION, change), False
