"""What is measured: each operation's requests to the service and to the floor."""

import json
from collections.abc import Iterator
from itertools import cycle
from typing import Any, NamedTuple

import asyncpg
from pydantic_core import to_jsonable_python

from api import ids
from api.demo import PASSWORD
from tests.bench import load
from tests.bench.floor import NAMES

BATCH = 500
FEW = 4  # connections where one request is work enough
OURS = {"commune_key", "province_key", "unit_key", "team_commune_key", "team_unit_key"}
"""Columns that the service works out and the floor is told."""
SAMPLE = f"""
    select {", ".join(NAMES)}
    from (select * from support_event order by occurred_at desc limit 20000) newest
    order by md5(id::text)
"""
PLACE = """
    select e.commune_key, e.province_key
    from principal p join role_grant g on g.principal_id = p.id
    cross join lateral reach(array[g.unit_key], current_date) r
    join support_event e on e.commune_key = any (r.communes)
    where p.login = 'demo.commune_admin' group by 1, 2 order by count(*) desc limit 1
"""
OBSERVE = "/v1/observations?indicator=events.count&level=commune&period=2023&every=month"
EVENTS = "/v1/support-events"


class Operation(NamedTuple):
    """One row of the table; `size` is the number of events in a request."""

    name: str
    ours: Iterator[bytes]
    floor: Iterator[bytes]
    status: int = 200
    size: int = 1
    connections: int = 16

    @property
    def writes(self) -> bool:
        """Whether it leaves events behind."""
        return self.status in {201, 207}

    async def start(self, port: int) -> Iterator[bytes]:
        """Return the requests of a round to the service: a 304 needs the present ETag."""
        if self.status != 304:
            return self.ours
        asked = next(self.ours)
        headers, _ = await load.ask(port, asked, 200)
        condition = f"\r\nIf-None-Match: {headers['etag']}\r\n\r\n".encode()
        return cycle([asked.replace(b"\r\n\r\n", condition)])


def _reads(paths: list[str], token: str = "") -> Iterator[bytes]:
    return cycle([load.request("GET", path, token=token) for path in paths])


def _ones(path: str, rows: list[str], token: str = "") -> Iterator[bytes]:
    for row in cycle(rows):
        yield load.request("POST", path, f'{{"id":"{ids.new_id()}",{row[1:]}', token=token)


def _batches(rows: list[str], token: str) -> Iterator[bytes]:
    for row in zip(*[cycle(rows)] * BATCH, strict=True):
        items = [f'{{"op":"create","id":"{ids.new_id()}","data":{data}}}' for data in row]
        body = f'{{"support_events":[{",".join(items)}]}}'
        yield load.request("POST", "/v1/batch", body, token=token)


def _lists(rows: list[str]) -> Iterator[bytes]:
    for row in zip(*[cycle(rows)] * BATCH, strict=True):
        body = ",".join(f'{{"id":"{ids.new_id()}",{data[1:]}' for data in row)
        yield load.request("POST", "/batch", f"[{body}]")


async def _sign_in(port: int, role: str) -> str:
    body = json.dumps({"username": f"demo.{role}", "password": PASSWORD})
    _, answer = await load.ask(port, load.request("POST", "/v1/sessions", body), 201)
    return str(answer["access_token"])


async def _ids(port: int, path: str, token: str) -> list[str]:
    _, page = await load.ask(port, load.request("GET", path, token=token), 200)
    return [item["id"] for item in page["items"]]


async def _sample(superuser: str) -> tuple[list[str], list[str], tuple[int, int]]:
    """Return events to write again, for us and for the floor, and a commune and its province."""
    connection = await asyncpg.connect(superuser)
    try:
        rows = [dict(row) for row in await connection.fetch(SAMPLE)]
        place = await connection.fetchrow(PLACE)
    finally:
        await connection.close()
    given = [_written(row, OURS | {"id"}) for row in rows]
    return given, [_written(row, {"id"}) for row in rows], tuple(place)


def _written(row: dict[str, Any], without: set[str]) -> str:
    kept = {name: value for name, value in row.items() if name not in without}
    return json.dumps(to_jsonable_python(kept), separators=(",", ":"))


async def prepare(port: int, superuser: str) -> list[Operation]:
    """Sign in and choose what to ask for: the demo's commune, its province and their rows."""
    given, told, (commune_key, province_key) = await _sample(superuser)
    commune = await _sign_in(port, "commune_admin")
    province = await _sign_in(port, "province_admin")
    portal = await _sign_in(port, "portal_client")
    teams = await _ids(port, "/v1/teams?limit=50", commune)
    members = await _ids(port, "/v1/members?limit=50", commune)
    households = await _ids(port, "/v1/households?limit=50", commune)
    events = await _ids(port, f"{EVENTS}?limit=50", commune)
    page = [f"{EVENTS}?limit=50"]
    one_team = _reads([f"/teams/{each}" for each in teams])
    return [
        Operation("read one team", _reads([f"/v1/teams/{t}" for t in teams], commune), one_team),
        Operation(
            "read one member",
            _reads([f"/v1/members/{each}" for each in members], commune),
            _reads([f"/members/{each}" for each in members]),
        ),
        Operation(
            "read one household",
            _reads([f"/v1/households/{each}" for each in households], commune),
            _reads([f"/households/{each}" for each in households]),
        ),
        Operation(
            "read one event",
            _reads([f"{EVENTS}/{each}" for each in events], commune),
            _reads([f"/events/{each}" for each in events]),
        ),
        Operation(
            "newest 50 of a commune",
            _reads(page, commune),
            _reads([f"/newest/commune_key/{commune_key}"]),
        ),
        Operation(
            "newest 50 of a province",
            _reads(page, province),
            _reads([f"/newest/province_key/{province_key}"]),
        ),
        Operation(
            "observations, 12 months",
            _reads([OBSERVE], province),
            _reads([f"/by-month/{province_key}"]),
            connections=FEW,
        ),
        Operation("  304 (floor: one team)", _reads([OBSERVE], province), one_team, 304, 1, FEW),
        Operation("write one event", _ones(EVENTS, given, portal), _ones("/events", told), 201),
        Operation(
            "batch of 500, in events", _batches(given, portal), _lists(told), 207, BATCH, FEW
        ),
    ]
