"""What an activity refers to, and whether it may: host, team, campaign, attendees."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.errors import FieldError, ValidationFailed, not_found_at
from api.models.campaigns import Campaign
from api.models.members import Member
from api.models.teams import Team
from api.models.types import Level
from api.services.places import Place, place

ALL_LEVELS: Final = frozenset(Level)
TEAM_LEVELS: Final = frozenset({Level.village, Level.commune})
_PLACED: Final = frozenset({"host_unit_id", "held_on", "team_id"})
_INSIDE = text("""
    select exists (
        select from placement
        where unit_key = :unit_key and ancestor_key = :above and during @> cast(:day as date))
""")


async def check_activity(
    session: AsyncSession, caller: Caller, wanted: Mapping[str, Any], changed: Collection[str]
) -> dict[str, Any]:
    """Check what has changed of an activity as it shall be; return the columns of its place.

    What is not changed is not judged again: a member may have been hidden since.
    """
    listed = len(wanted["attendee_ids"])
    if wanted["participants"] is not None and wanted["participants"] < listed:
        raise ValidationFailed(FieldError("/participants", "greater_than_equal", {"ge": listed}))
    if "held_on" in changed and wanted["held_on"] > clock.today():
        raise ValidationFailed(FieldError("/held_on", "in_the_future"))
    if _PLACED.isdisjoint(changed) and "campaign_id" not in changed:
        return {}
    where = await _host(session, caller, wanted)
    if wanted["campaign_id"]:
        await _check_campaign(session, caller, wanted, where)
    return where.columns()


async def _host(session: AsyncSession, caller: Caller, wanted: Mapping[str, Any]) -> Place:
    """Return where the host lies on the day: in the caller's units, or in its team's commune."""
    writes = caller.reach(Permission.activities_write)
    team = await _team(session, caller, wanted["team_id"], wanted["held_on"])
    by_team = team is not None and team.id in writes.teams
    levels = ALL_LEVELS if writes.units or writes.communes or writes.provinces else TEAM_LEVELS
    day = wanted["held_on"]
    where = await place(session, wanted["host_unit_id"], day, levels, "/host_unit_id")
    if writes.covers(where):
        return where
    if by_team and team is not None:
        home = await place(session, team.unit_id, day, ALL_LEVELS, "/team_id")
        if where.commune_key is not None and where.commune_key == home.commune_key:
            return where
    if writes.teams and not by_team:
        raise ValidationFailed(FieldError("/team_id", "missing" if team is None else "not_found"))
    raise not_found_at("/host_unit_id")


async def _team(
    session: AsyncSession, caller: Caller, team_id: UUID | None, day: date
) -> Team | None:
    if team_id is None:
        return None
    found = visible(Team, caller, Permission.teams_read).where(col(Team.id) == team_id)
    team: Team | None = await session.scalar(found)
    if team is None:
        raise not_found_at("/team_id")
    if day < team.founded_on:
        founded = {"founded_on": team.founded_on.isoformat()}
        raise ValidationFailed(FieldError("/held_on", "before_founding", founded))
    if team.dissolved_on and day > team.dissolved_on:
        dissolved = {"dissolved_on": team.dissolved_on.isoformat()}
        raise ValidationFailed(FieldError("/held_on", "after_dissolution", dissolved))
    return team


async def _check_campaign(
    session: AsyncSession, caller: Caller, wanted: Mapping[str, Any], where: Place
) -> None:
    """Refuse a campaign of other days, or whose unit does not hold the host (on its first day)."""
    found = visible(Campaign, caller, Permission.campaigns_read).where(
        col(Campaign.id) == wanted["campaign_id"]
    )
    campaign = await session.scalar(found)
    if campaign is None:
        raise not_found_at("/campaign_id")
    if not campaign.starts_on <= wanted["held_on"] <= campaign.ends_on:
        days = {"starts_on": str(campaign.starts_on), "ends_on": str(campaign.ends_on)}
        raise ValidationFailed(FieldError("/campaign_id", "outside_campaign", days))
    asked = {
        "unit_key": where.unit_key,
        "above": campaign.unit_key,
        "day": campaign.starts_on,
    }
    if not await session.scalar(_INSIDE, asked):
        raise ValidationFailed(FieldError("/campaign_id", "outside_campaign_unit"))


async def check_attendees(
    session: AsyncSession, caller: Caller, given: Sequence[UUID], known: Collection[UUID] = ()
) -> None:
    """Refuse (422) attendees who are no members in scope, as a set; `known` ones may stay."""
    new = set(given) - set(known)
    if not new:
        return
    found = visible(Member, caller, Permission.members_read).where(
        col(Member.id).in_(new), col(Member.redacted_at).is_(None)
    )
    members = set(await session.scalars(found.with_only_columns(col(Member.id))))
    missing = [n for n, member in enumerate(given) if member in new - members]
    if missing:
        faults = (FieldError(f"/attendee_ids/{n}", "not_found") for n in missing[:50])
        raise ValidationFailed(*faults)
