"""The progress of a campaign: what it came to, beside as many days before it."""

from collections import Counter
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller
from api.models.campaigns import (
    Campaign,
    CampaignFigure,
    CampaignProgress,
    CampaignProgressQuery,
)
from api.models.observations import By, Observation, ObservationQuery, ObservationStatus
from api.services.campaigns import baseline_of, find_campaign
from api.services.observations import observe

_QUANTITY: Final = "events.quantity"

type Part = tuple[str | None, str | None]
"""A service, or `None` for all of a unit of count; and the unit of count."""


async def get_progress(
    session: AsyncSession, caller: Caller, campaign_id: UUID, query: CampaignProgressQuery
) -> CampaignProgress:
    """Count a campaign and its baseline as any observation is counted.

    Both in the tree of the campaign's first day, in which its events were judged too, so that a
    reorganisation while it runs takes nothing away.
    """
    campaign = await find_campaign(session, caller, campaign_id)
    unit_id = query.unit_id or campaign.unit_id
    days = campaign.starts_on, campaign.ends_on
    period = "{}/{}".format(*days)
    before = "{}/{}".format(*baseline_of(*days, campaign.baseline_on))
    own = _asked(campaign, unit_id, period).model_copy(update={"campaign_id": [campaign.id]})
    answer = (await observe(session, caller, own)).answer
    baseline = (await observe(session, caller, _asked(campaign, unit_id, before))).answer
    return CampaignProgress(
        campaign_id=campaign.id,
        unit_id=unit_id,
        complete_through=answer.meta.complete_through,
        period=period,
        baseline_period=before,
        items=_figures(_added(answer.items), _added(baseline.items)),
    )


def _asked(campaign: Campaign, unit_id: UUID, period: str) -> ObservationQuery:
    return ObservationQuery(
        indicator=[_QUANTITY],
        unit_id=unit_id,
        by=By.service_type,
        service_type=campaign.service_types,
        period=period,
        boundary=campaign.starts_on.isoformat(),
    )


def _added(items: list[Observation]) -> Counter[Part] | None:
    """Return quantities by service and by unit of count; `None` where nothing can be told."""
    told = [item for item in items if item.service_type is not None]
    if not told and any(item.status is ObservationStatus.not_computable for item in items):
        return None
    sums: Counter[Part] = Counter()
    for item in told:
        sums[item.service_type, item.unit_of_count] += int(item.value or 0)
        sums[None, item.unit_of_count] += int(item.value or 0)
    return sums


def _figures(
    own: Mapping[Part, int] | None, baseline: Mapping[Part, int] | None
) -> list[CampaignFigure]:
    parts = sorted({*(own or ()), *(baseline or ())}, key=lambda part: (part[0] or "", part[1]))
    return [
        CampaignFigure(
            service_type=service,
            unit_of_count=unit,
            value=None if own is None else own.get((service, unit), 0),
            baseline=None if baseline is None else baseline.get((service, unit), 0),
            status=ObservationStatus.not_computable if own is None else ObservationStatus.ok,
        )
        for service, unit in parts
    ]
