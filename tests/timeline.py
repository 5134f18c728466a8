"""Turning the service's clock, and looking behind the service at what it keeps."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock
from tests.factories import Country

LIFE = 60 * 24 * 365 * 20
"""Minutes that the tokens live whose clock is turned: the same ones hold before and after."""

_KEPT = text("""
    select coalesce(jsonb_object_agg(id, kept), '{}') from (
        select id, jsonb_build_array(unit_id, unit_key, commune_key, province_key) as kept
        from team
        union all
        select id, jsonb_build_array(unit_id, unit_key, commune_key, province_key)
        from household
        union all
        select id, jsonb_build_array(unit_id, unit_key, commune_key, province_key, team_unit_key,
                                     team_commune_key, occurred_at, updated_at, version)
        from support_event
        union all
        select member_id, jsonb_agg(jsonb_build_array(
                   team_id, unit_id, unit_key, commune_key, province_key, joined_on, left_on))
        from membership group by member_id
    ) fact
""")
_TREE = text("""
    select md5(concat_ws('|',
        (select string_agg(row(u.id, u.key, u.valid_from, u.valid_to)::text, ',' order by u.key)
         from admin_unit u),
        (select string_agg(s::text, ',' order by s.unit_key, s.during) from admin_unit_state s),
        (select string_agg(x::text, ',' order by x.predecessor_key, x.successor_key)
         from unit_succession x),
        (select string_agg(p::text, ',' order by p.unit_key, p.level, p.during)
         from placement p),
        (select count(*)::text from reorganisation)))
""")


@dataclass
class Timeline:
    """The service's clock, stopped; what was signed in since it was stopped stays signed in."""

    moment: datetime

    @classmethod
    def stop(cls, monkeypatch: pytest.MonkeyPatch, country: Country, moment: str) -> "Timeline":
        """Stop the clock at a moment (RFC 3339), before anybody signs in."""
        stopped = cls(datetime.fromisoformat(moment).astimezone(UTC))
        monkeypatch.setattr(clock, "now", lambda: stopped.moment)
        country.app.state.tokens.minutes = LIFE
        return stopped

    def turn(self, moment: str) -> None:
        """Go on to a moment."""
        self.moment = datetime.fromisoformat(moment).astimezone(UTC)


async def kept_facts(superuser: AsyncEngine) -> dict[str, Any]:
    """Return where every fact was recorded, by id."""
    async with superuser.connect() as connection:
        kept: dict[str, Any] = await connection.scalar(_KEPT)
        return kept


async def checksum_of_tree(superuser: AsyncEngine) -> str:
    """Return a checksum over every row of the tree, and the number of reorganisations."""
    async with superuser.connect() as connection:
        return str(await connection.scalar(_TREE))


async def items(who: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """Return the items of an observation, `events.count` unless said otherwise."""
    query = {"indicator": "events.count"} | query
    response = await who.get("/v1/observations", params=query)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    return found


async def written_items(who: httpx.AsyncClient, **query: Any) -> str:
    """Return the items of an observation as they were sent, byte for byte."""
    response = await who.get("/v1/observations", params=query)
    assert response.status_code == 200, response.text
    found, meta, _ = response.text.rpartition('],"meta":{')
    assert meta
    return found


async def figures(who: httpx.AsyncClient, **query: Any) -> dict[UUID | None, int]:
    """Return the numbers of an observation by unit, without the empty ones."""
    found = {
        UUID(item["unit_id"]) if item["unit_id"] else None: item["value"]
        for item in await items(who, **query)
        if item["value"]
    }
    return dict(sorted(found.items(), key=str))


async def listed(who: httpx.AsyncClient, path: str, **query: Any) -> set[str]:
    """Return the ids of a whole list."""
    response = await who.get(f"/v1/{path}", params={"limit": 200} | query)
    assert response.status_code == 200, response.text
    assert response.json()["next_cursor"] is None
    return {item["id"] for item in response.json()["items"]}


def dated(day: str, time: str = "09:00:00") -> str:
    """Return a moment of a reporting day."""
    return f"{date.fromisoformat(day)}T{time}+07:00"
