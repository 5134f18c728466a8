"""The campaigns that a set of events names, and whether each event may be part of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, NamedTuple
from uuid import UUID

from api.errors import FieldError

CAMPAIGNS: Final = """
    campaign as (
        select c.* from entered cross join lateral (
            select id, unit_key, starts_on, ends_on, service_types from campaign
            where id = any ($9::uuid[]) and deleted_at is null
              and entered.scopes is not null offset 0) c
    ), spot as (
        select distinct u.id, u.key
        from unnest($10::uuid[], $11::uuid[]) as fact (team_id, unit_id)
        join home on home.id = fact.team_id
        join admin_unit u on u.id = coalesce(fact.unit_id, home.unit_id))
"""
"""Common tables behind `entered` and `home`: what the caller may see of some campaigns, and the
units of the events that name them."""
FOUND: Final = """
    select 'campaign' as kind, id, null::uuid as other_id, starts_on, ends_on,
        (select string_agg(code, ' ') from service_type
         where code = any (service_types) or parent_code = any (service_types)),
        null::integer, null::integer, null::integer
    from campaign
    union all select 'inside', c.id, spot.id, null, null, null, null, null, null
    from campaign c cross join spot
    join placement p on p.unit_key = spot.key and p.ancestor_key = c.unit_key
         and p.during @> c.starts_on
"""
"""Their rows, and which of the units lie in theirs, in the tree of their first day."""


class Campaign(NamedTuple):
    """What of a campaign its events need."""

    starts_on: date
    ends_on: date
    services: frozenset[str]
    """Codes, children included; none: every service."""


@dataclass
class Campaigns:
    """What is known of the campaigns that some events name."""

    known: dict[UUID, Campaign] = field(default_factory=dict)
    inside: set[tuple[UUID, UUID]] = field(default_factory=set)
    """(campaign, unit): the unit lies in the campaign's."""

    def learn(self, row: Mapping[str, Any]) -> None:
        """Take in a row of `FOUND`."""
        if row["kind"] == "inside":
            self.inside.add((row["id"], row["other_id"]))
            return
        services = frozenset((row["name"] or "").split())
        self.known[row["id"]] = Campaign(row["first"], row["last"], services)

    def fault(
        self, campaign_id: UUID | None, day: date, service_type: str, unit_id: UUID
    ) -> FieldError | None:
        """Refuse a campaign of other days or services, or whose unit does not hold the place."""
        if campaign_id is None:
            return None
        campaign = self.known.get(campaign_id)
        if campaign is None:
            return FieldError("/campaign_id", "not_found")
        if not campaign.starts_on <= day <= campaign.ends_on:
            days = {"starts_on": str(campaign.starts_on), "ends_on": str(campaign.ends_on)}
            return FieldError("/campaign_id", "outside_campaign", days)
        if campaign.services and service_type not in campaign.services:
            return FieldError("/campaign_id", "not_of_campaign")
        if (campaign_id, unit_id) not in self.inside:
            return FieldError("/campaign_id", "outside_campaign_unit")
        return None
