"""Rolls of what stands: whoever is founded, joins, leaves or is hidden, they are the facts."""

import asyncio
import random
from collections import Counter
from itertools import product
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.db import transaction
from api.models.role_grants import Role
from api.services import event_folding, observation_counts
from tests.factories import LAO_CAI, NATION, As, Province, make
from tests.services.test_event_rolls import keep_folding
from tests.services.test_people_rolls import BOUNDARIES, PLACES
from tests.services.test_plans import MEMBERS
from tests.services.test_reorganisations_at_work import MERGER
from tests.waiting import watch
from tests.walking import Walk, begin

WALKERS = 6
INDICATORS = [
    *("teams.active", "teams.founded", "teams.zalo_share", "members.active", "members.youth_share"),
    *("members.trained_share", "households.registered", "activities.count"),
    "activities.participants",
]
PERIODS = [
    {"period": "2025-07-01/2026-12-31", "every": "month"},
    {"period": "2025-07-01/2026-12-31", "every": "quarter"},
    {"period": "2025-12-30/2026-03-02", "every": "day"},
    {"period": "2026-02-15/2026-03-14"},
]
# All that was ever made lies in one province, whose rolls of a day are held against the facts.
EXACT = text("""
    with told as (
        select measure, sum(begun) as begun from (
            select measure, begun from standing_roll where commune_key = 0 and every = 'day'
            union all
            select measure, sign * (select count(*) from unnest(days))
            from (select measure, id, sign, range_agg(days) as days from standing_turns
                  group by 1, 2, 3) turn
        ) either group by measure
    ), counted as (
        select 'team' as measure, count(*) as begun from team where deleted_at is null
        union all
        select 'member', sum((select count(*) from unnest(days))) from (
            select range_agg(daterange(s.joined_on, s.left_on, '[]')) as days
            from membership s join team t on t.id = s.team_id and t.deleted_at is null
            join member m on m.id = s.member_id and m.deleted_at is null group by m.id) stay
        union all
        select 'household', count(*) from household where deleted_at is null
        union all
        select 'activity', count(*) from activity where deleted_at is null
    )
    select count(*) from counted left join told using (measure)
    where coalesce(told.begun, 0) <> coalesce(counted.begun, 0)
""")


async def ask(reader: httpx.AsyncClient, **query: Any) -> Counter[Any]:
    """Return the figures by indicator, period, unit and kind, those of a share undivided."""
    answer = await reader.get("/v1/observations", params=query)
    assert answer.status_code == 200, answer.text
    found: Counter[Any] = Counter()
    for item in answer.json()["items"]:
        key = item["indicator"], item["period"], item["unit_id"], item["kind"]
        above = item["value"] if item["numerator"] is None else item["numerator"]
        found[*key, "above"] += above or 0
        found[*key, "below"] += item["denominator"] or 0
    return +found


async def assert_told_as_counted(reader: httpx.AsyncClient, dice: random.Random) -> int:
    """Ask by rolls, and again where only the facts are looked at; return how much there was."""
    much = 0
    for boundary, place in dice.sample([*product(BOUNDARIES, PLACES)], 4):
        asked = place | {"boundary": boundary, "indicator": INDICATORS} | dice.choice(PERIODS)
        if "every" not in asked and dice.random() < 0.5:
            asked["by"] = "kind"
        told = await ask(reader, **asked)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(observation_counts, "count_standing", nothing_told)
            counted = await ask(reader, **asked)
        assert told == counted, (asked, told - counted, counted - told)
        much += told.total()
    return much


async def nothing_told(*_asked: Any) -> None:
    """Leave everything to be counted from the facts."""


async def test_a_walk_of_teams_is_told_as_it_is_counted(
    as_: As, lao_cai: Province, superuser: AsyncEngine
) -> None:
    reader = await as_(Role.ioc_reader, Role.commune_admin, at=NATION)
    (walk,) = await begin(lao_cai, 1)
    done: Counter[str] = Counter()
    for turn in range(12):
        done.update([await walk.step() for _ in range(20)])
        assert await assert_told_as_counted(reader, walk.dice)
        if turn % 3 == 1:
            async with transaction(superuser, snapshot=True) as session:
                await event_folding.fold(session)
            assert await assert_told_as_counted(reader, walk.dice)
        if turn == 6:
            nation = await lao_cai.country.sign_in(Role.national_admin)
            await make(nation, "reorganisations", **MERGER)
    assert min(done.values()) > 5, done
    assert not any(
        n for name, n in (await event_folding.differences(superuser)).items() if name != "rows"
    )
    assert await assert_told_as_counted(reader, walk.dice)


async def test_rolls_are_exact_in_a_storm_of_writers_and_folds(
    as_: As, lao_cai: Province, superuser: AsyncEngine, owner_url: str
) -> None:
    walks, over = await begin(lao_cai, WALKERS), asyncio.Event()

    async def go_on(walk: Walk) -> Counter[str]:
        return Counter([await walk.step() for _ in range(40)])

    async def work() -> Counter[str]:
        done = await asyncio.gather(*(go_on(walk) for walk in walks))
        over.set()
        return sum(done, Counter[str]())

    folding = asyncio.gather(
        *(keep_folding(owner_url, random.Random(n), over, dies=0.3) for n in range(3))
    )
    done, looks = await asyncio.gather(work(), watch(superuser, over, is_exact))
    await folding
    assert min(done.values()) > WALKERS, done
    assert looks > 10
    assert not any(
        n for name, n in (await event_folding.differences(superuser)).items() if name != "rows"
    )
    reader = await as_(Role.ioc_reader, Role.commune_admin, at=NATION)
    for _ in range(3):
        assert await assert_told_as_counted(reader, walks[0].dice)


async def is_exact(connection: AsyncConnection) -> bool:
    """Tell whether rolls and what has changed since together are the facts, in one snapshot."""
    async with connection.begin():
        return bool(await connection.scalar(EXACT) == 0)


@pytest.mark.usefixtures("lao_cai")
async def test_what_differs_is_found_and_repaired(superuser: AsyncEngine) -> None:
    async def differing() -> dict[str, int]:
        return {n: k for n, k in (await event_folding.differences(superuser)).items() if k}

    assert await differing() == {}
    async with superuser.connect() as connection:
        for lost in (
            "delete from standing_roll where measure = 'team' and commune_key = 0",
            "delete from standing where measure = 'member_young'",
            "update standing_roll set begun = begun + 1 where measure = 'household'",
        ):
            await connection.execute(text(lost))
    found = {"teams": 2, "members_young": 2, "households_registered": 2 + 4}
    assert await differing() == found
    await event_folding.repair(superuser)
    assert await differing() == {}


async def test_who_commits_late_is_folded_later(lao_cai: Province, superuser: AsyncEngine) -> None:
    reader = await lao_cai.country.sign_in(Role.ioc_reader, at=NATION)
    query = {"indicator": "members.active", "period": "2025-08", "unit_id": str(LAO_CAI)}
    team = lao_cai.muong_khuong.team["id"]

    async def value() -> int:
        return sum((await ask(reader, **query)).values())

    async def fold() -> None:
        async with transaction(superuser, snapshot=True) as session:
            await event_folding.fold(session)

    await fold()
    committing = superuser.execution_options(isolation_level="READ COMMITTED")
    async with transaction(committing) as late, transaction(committing) as later:
        await late.execute(MEMBERS, {"count": 3, "team": team})
        hiding = text("update team set version = version + 1, deleted_at = now() where id = :team")
        await later.execute(hiding, {"team": lao_cai.bao_thang.team["id"]})
        await fold()
        assert await value() == 2
        await late.commit()
        assert await value() == 5
        await fold()
        assert await value() == 5
    assert await value() == 4
    await fold()
    assert await value() == 4
