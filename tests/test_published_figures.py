"""Whatever was published about these teams has a place, and is read back as it was said.

`published_figures.csv` holds what authorities, the youth union and newspapers of Lào Cai (Bảo Yên,
Phố Lu, Mường Khương), Quảng Trị and Đồng Tháp published of 2021 to 2023, a figure a row, with what
each says of itself. What could be counted where it happened is counted: teams, members, activities
and commendations become rows of their own. Sums that were only ever published as sums are
statistics with their attribution, never events that nobody recorded.
"""

import csv
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from api import ids
from api.models.role_grants import Role
from api.services import periods
from tests.factories import As, Person, make

FIGURES: Final = Path(__file__).with_name("published_figures.csv")
PLACES: Final = {
    "Lào Cai": (("province", "10"), ("province", "15", "2025-07-01")),
    "Mường Khương town": (("commune", "02761"), ("province", "15", "2025-07-01")),
    "Phố Lu town": (("commune", "02905"), ("province", "15", "2025-07-01")),
    "Bảo Yên": (("district", "087"), ("province", "15", "2025-07-01")),
    "Bản 4 Vành (Xuân Thượng)": (("commune", "02980"), ("province", "15", "2025-07-01")),
    "Quảng Trị": (("province", "45"), ("province", "44", "2025-07-01")),
    "Đồng Tháp": (("province", "87"), ("province", "82", "2025-07-01")),
}
"""A place as published -> its unit of that time (a village's commune), its province of today."""
COMPARATORS: Final = {"exact": "gte", "at_least": "gte", "more_than": "gt", "at_most": "lte"}
COMPUTED: Final[dict[str, dict[str, Any]]] = {
    "target: district unions with at least 2 activities": {
        "indicator": "districts.min_activities",
        "minimum_per_unit": 2,
    },
    "target: participations in digital-skills activities": {"indicator": "activities.participants"},
    "target: core youth squads": {"indicator": "teams.active", "team_kind": "core_squad"},
    "target: teams with youth at their core": {"indicator": "teams.youth_core_share"},
    "target: team members trained": {"indicator": "members.trained_share"},
    "target: new teams": {"indicator": "teams.founded"},
}
"""Targets on what the service counts itself; every other one is on a declared indicator."""
ATTRIBUTED: Final = {"district": "government", "province": "government"}


@dataclass
class Published:
    """A row of the file."""

    place: str
    level: str
    period: str
    subject: str
    value: float
    unit: str
    precision: str
    kind: str
    attribution: str
    note: str

    @classmethod
    def read(cls) -> list["Published"]:
        with FIGURES.open(encoding="utf-8", newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
        return [cls(**(row | {"value": float(row["value"])})) for row in rows]

    @property
    def unit_id(self) -> str:
        """The unit of the period's last day: a plan beyond the reform is its successor's."""
        then, now = PLACES[self.place]
        return str(ids.official_unit_id(*(then if self.last_day < "2025-07-01" else now)))

    @property
    def year(self) -> str:
        """The period; what is asked for every year is asked for the one that was reported on."""
        return "2023" if self.period == "yearly" else self.period

    @property
    def last_day(self) -> str:
        return periods.parse(self.year)[0].last.isoformat()

    @property
    def code(self) -> str:
        """The declared indicator of the subject."""
        plain = unicodedata.normalize("NFD", self.subject.removeprefix("target: ").lower())
        letters = plain.replace("đ", "d").encode("ascii", "ignore").decode()
        return f"published.{re.sub('[^a-z0-9]+', '_', letters)}"


@dataclass
class Country:
    """Who writes what was published, each in their own right."""

    nation: Person
    admins: dict[str, Person]
    youth: dict[str, Person]

    def admin(self, figure: Published) -> Person:
        return self.admins[figure.place]

    async def declared(self, figure: Published) -> str:
        """Return the declared indicator of a figure, made when it is first needed."""
        known = (await self.nation.get("/v1/indicators", params={"limit": 200})).json()["items"]
        if figure.code not in {indicator["code"] for indicator in known}:
            await make(
                self.nation,
                "indicators",
                code=figure.code,
                name_vi=figure.subject,
                name_en=figure.subject,
                unit_of_count=figure.unit,
                additive=figure.unit not in {"percent", "rank"},
            )
        return figure.code


@pytest.fixture
async def country(as_: As) -> Country:
    async def everywhere(role: Role) -> dict[str, Person]:
        today = {key for _, key in PLACES.values()}
        people = {key: await as_(role, at=ids.official_unit_id(*key)) for key in today}
        return {place: people[key] for place, (_, key) in PLACES.items()}

    return Country(
        await as_(Role.national_admin),
        await everywhere(Role.province_admin),
        await everywhere(Role.youth_coordinator),
    )


async def village(admin: Person, figure: Published, name: str) -> str:
    unit = {"level": "village", "name": name, "type": "thôn", "valid_from": "2020-01-01"}
    made = await make(admin, "admin-units", **unit, parent_id=figure.unit_id)
    return str(made["id"])


async def shown(client: httpx.AsyncClient, code: str, figure: Published, **more: str) -> Any:
    """Return the only cell of an observation of the figure's unit and period, as recorded."""
    asked = {"indicator": code, "unit_id": figure.unit_id, "period": figure.year}
    response = await client.get(
        "/v1/observations", params=asked | {"boundary": "as_recorded"} | more
    )
    assert response.status_code == 200, response.text
    (item,) = response.json()["items"]
    return item["value"]


async def as_teams(country: Country, figure: Published) -> None:
    """Found the teams, one in each village, and count them and what they cover."""
    admin = country.admin(figure)
    for number in range(int(figure.value)):
        home = await village(admin, figure, f"Thôn {number + 1}")
        team = {"name": f"Tổ {number + 1}", "unit_id": home, "kind": "community_team"}
        await make(admin, "teams", **team, founded_on="2022-06-01")
    assert await shown(admin, "teams.active", figure) == figure.value
    assert await shown(admin, "villages.coverage", figure) == 100


async def as_members(country: Country, figure: Published) -> None:
    """Let a village's team have its members, led by the village's head."""
    admin = country.admin(figure)
    home = await village(admin, figure, "Bản 4 Vành")
    team = {"name": "Tổ Bản 4 Vành", "unit_id": home, "kind": "community_team"}
    made = await make(admin, "teams", **team, founded_on="2021-06-01")
    for number in range(int(figure.value)):
        role = "member" if number else "leader"
        stay = {"team_id": made["id"], "role": role, "joined_on": "2021-06-01"}
        await make(admin, "members", full_name=f"Người {number + 1}", memberships=[stay])
    assert await shown(admin, "members.active", figure) == figure.value
    team_now = (await admin.get(f"/v1/teams/{made['id']}")).json()
    assert (team_now["member_count"], bool(team_now["leader_id"])) == (figure.value, True)


async def as_activities(country: Country, figure: Published) -> None:
    admin = country.admin(figure)
    for day in range(int(figure.value)):
        await make(
            admin,
            "activities",
            kind="training",
            title=figure.subject,
            organiser="government",
            partners=["police", "telecom"],
            host_unit_id=figure.unit_id,
            held_on=f"2023-05-{day + 1:02}",
        )
    assert await shown(admin, "activities.count", figure) == figure.value


async def as_commendations(country: Country, figure: Published) -> None:
    admin, kind = country.admin(figure), figure.subject.split("s ")[0]
    made = [
        await make(
            admin,
            "commendations",
            recipient_kind=kind,
            recipient_name=f"{kind} {number + 1}",
            unit_id=figure.unit_id,
            awarded_on=figure.last_day,
            awarded_by=figure.place,
        )
        for number in range(int(figure.value))
    ]
    page = (await admin.get("/v1/commendations", params={"recipient_kind": kind})).json()
    assert {row["id"] for row in page["items"]} == {row["id"] for row in made}


async def as_target(country: Country, figure: Published) -> None:
    said = COMPUTED.get(figure.subject) or {"indicator": await country.declared(figure)}
    is_youth = figure.attribution == "youth_union"
    writer = (country.youth if is_youth else country.admins)[figure.place]
    body = said | {
        "owner": "youth_union" if is_youth else "government",
        "unit_id": figure.unit_id,
        "period": figure.year,
        "comparator": COMPARATORS[figure.precision],
        "value": figure.value,
        "document": figure.note or None,
    }
    made = await make(writer, "targets", **body)
    read = (await writer.get(f"/v1/targets/{made['id']}")).json()
    assert {name: read[name] for name in body} == body
    progress = await writer.get(f"/v1/targets/{made['id']}/progress")
    assert progress.status_code == 200, progress.text
    assert progress.json()["target_id"] == made["id"]


async def as_statistic(country: Country, figure: Published) -> None:
    flows = figure.kind == "flow"
    body = {
        "indicator": await country.declared(figure),
        "unit_id": figure.unit_id,
        "period" if flows else "as_of": figure.year if flows else figure.last_day,
        "value": figure.value,
        "precision": figure.precision,
        "attribution": ATTRIBUTED.get(figure.attribution, figure.attribution),
        "source": figure.note or None,
    }
    admin = country.admin(figure)
    made = await make(admin, "statistics", **body)
    read = (await admin.get(f"/v1/statistics/{made['id']}")).json()
    assert {name: read[name] for name in body} == body
    assert await shown(admin, figure.code, figure) == figure.value


async def test_every_published_figure_has_a_place(country: Country) -> None:
    held = []
    for figure in Published.read():
        if figure.kind == "target":
            hold = as_target
        elif figure.unit == "commendation":
            hold = as_commendations
        elif figure.unit == "session":
            hold = as_activities
        elif figure.unit == "team" and figure.level == "commune":
            hold = as_teams
        elif figure.level == "village" and figure.kind == "stock":
            hold = as_members
        else:
            hold = as_statistic
        await hold(country, figure)
        held.append(hold.__name__)
    assert len(held) == 50
    assert {name: held.count(name) for name in sorted(set(held))} == {
        "as_activities": 1,
        "as_commendations": 2,
        "as_members": 1,
        "as_statistic": 28,
        "as_target": 16,
        "as_teams": 2,
    }
