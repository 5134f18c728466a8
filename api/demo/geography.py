"""Villages of a province that once was, in each of its old communes."""

from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any, NamedTuple
from uuid import UUID

from api.clock import REPORTING_ZONE
from api.demo import names
from api.demo.seed import SAMPLE, YEAR, Seed, apportion

BEGUN = date(YEAR - 1, 1, 1)
LAO_CAI, MUONG_KHUONG, PHO_LU, XUAN_THUONG = "10", "02761", "02905", "02980"
BAO_YEN = "087"
_PUBLISHED = {MUONG_KHUONG: 17, PHO_LU: 16, BAO_YEN: 207}
_PUBLISHED_ELSEWHERE = 1562 - sum(_PUBLISHED.values())

_COMMUNES = """
    select c.key, c.id, s.code, s.name, s.type, d.code as district, c.lat, c.lon
    from placement p
    join admin_unit c on c.key = p.unit_key and c.level = 'commune'
    join admin_unit_state s on s.unit_key = c.key and s.during @> $2::date
    join placement pd on pd.unit_key = c.key and pd.level = 'district' and pd.during @> $2::date
    join admin_unit_state d on d.unit_key = pd.ancestor_key and d.during @> $2::date
    where p.ancestor_key = $1 and p.level = 'province' and p.during @> $2::date
    order by s.code
"""

# As one village that is created by hand: under its commune while that stands, then where all of
# it went; after a split without a parent, until someone places it.
_STATES = """
    insert into admin_unit_state (unit_key, during, name, type, parent_key)
    with village as (
        select u.key, v.name, v.type, v.commune_key, daterange(u.valid_from, null) as life
        from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[])
                 as v (id, name, type, commune_key)
        join admin_unit u using (id)
    )
    select v.key, p.during * v.life, v.name, v.type, p.ancestor_key
    from village v
    join placement p on p.unit_key = v.commune_key and p.level = 'commune' and p.during && v.life
    union all
    select v.key, unnest(datemultirange(v.life) - coalesce(
               (select range_agg(p.during) from placement p
                where p.unit_key = v.commune_key and p.level = 'commune'), '{}')),
           v.name, v.type, null
    from village v
"""


class Commune(NamedTuple):
    """An old commune."""

    key: int
    id: UUID
    code: str
    name: str
    type: str
    district: str
    lat: float | None
    lon: float | None

    @property
    def is_urban(self) -> bool:
        """Whether it is a ward or a town."""
        return self.type != "xã"


class UnitRow(NamedTuple):
    """A row of `admin_unit`."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    created_by: UUID
    lat: float | None
    lon: float | None
    level: str = "village"
    valid_from: date = BEGUN
    version: int = 1


class Village(NamedTuple):
    """A village to be; `name` is as people say it, `label` as the service shows it."""

    row: UnitRow
    commune: Commune
    name: str
    type: str

    @property
    def label(self) -> str:
        """The name, labelled as generated unless it is a published one."""
        return self.name if self.name == names.BAN_4_VANH else f"{self.name} {SAMPLE}"


async def communes(connection: Any, province_key: int) -> list[Commune]:
    """Read every commune that the old province had in the demo's year."""
    rows = await connection.fetch(_COMMUNES, province_key, date(YEAR, 12, 31))
    return [Commune(*row) for row in rows]


def share_out(seed: Seed, province: str, found: Sequence[Commune], total: int) -> list[int]:
    """Return how many villages each commune gets: as published where that is known."""
    weights = [
        seed.random.uniform(0.6, 1.0) + 0.5 * commune.is_urban + (commune.code == XUAN_THUONG)
        for commune in found
    ]
    if province != LAO_CAI:
        return apportion(total, weights)
    groups: dict[str, list[int]] = {}
    for i, commune in enumerate(found):
        name = commune.code if commune.code in _PUBLISHED else commune.district
        groups.setdefault(name if name in _PUBLISHED else "", []).append(i)
    sizes = apportion(total, [_PUBLISHED.get(name, _PUBLISHED_ELSEWHERE) for name in groups])
    counts = [0] * len(found)
    for size, members in zip(sizes, groups.values(), strict=True):
        for i, count in zip(members, apportion(size, [weights[i] for i in members]), strict=True):
            counts[i] = count
    return counts


def plan(
    seed: Seed, province: str, found: Sequence[Commune], total: int, author: UUID
) -> list[Village]:
    """Invent the villages of all communes."""
    villages = []
    for commune, count in zip(found, share_out(seed, province, found, total), strict=True):
        invented = names.villages(seed, province, urban=commune.is_urban, count=count)
        if count and (province, commune.code) == (LAO_CAI, XUAN_THUONG):
            invented[0] = (names.BAN_4_VANH, "bản")
        villages += [_village(seed, commune, *each, author) for each in invented]
    return villages


def _village(seed: Seed, commune: Commune, name: str, kind: str, author: UUID) -> Village:
    made = datetime.combine(BEGUN, time(8), REPORTING_ZONE)
    lat, lon = near(seed, commune.lat, commune.lon, 0.03)
    return Village(UnitRow(seed.new_id(made), made, made, author, lat, lon), commune, name, kind)


def near(
    seed: Seed, lat: float | None, lon: float | None, degrees: float
) -> tuple[float | None, float | None]:
    """Return a point near another, or none near none."""
    if lat is None or lon is None:
        return None, None
    north, east = (seed.random.uniform(-degrees, degrees) for _ in range(2))
    return round(lat + north, 5), round(lon + east, 5)


async def place(connection: Any, villages: Sequence[Village]) -> dict[UUID, int]:
    """Give the inserted villages name and parent through time; return the key of each."""
    ids = [village.row.id for village in villages]
    await connection.execute(
        _STATES,
        ids,
        [village.label for village in villages],
        [village.type for village in villages],
        [village.commune.key for village in villages],
    )
    rows = await connection.fetch("select id, key from admin_unit where id = any($1)", ids)
    keys = {row["id"]: row["key"] for row in rows}
    await connection.execute("select place_villages($1)", sorted(keys.values()))
    return keys
