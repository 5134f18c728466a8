"""The three mergers of provinces that are replayed through 1 July 2025, and their people."""

from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

from api.ids import official_unit_id
from api.models.role_grants import Role
from tests.factories import Country, Person, make
from tests.timeline import dated

REFORM = "2025-07-01"


def before(level: str, code: str) -> UUID:
    """Return a unit of the tree that ended on 2025-06-30."""
    return official_unit_id(level, code)


def after(level: str, code: str) -> UUID:
    """Return a unit of the tree that began on 2025-07-01."""
    return official_unit_id(level, code, REFORM)


@dataclass(frozen=True)
class Merger:
    """Two old provinces, the new one, and some communes (old code, new code) of each."""

    new: str
    first: str
    second: str
    names: tuple[str, str, str]
    communes: dict[str, tuple[tuple[str, str], ...]]


MERGERS = {
    merger.names[0]: merger
    for merger in (
        Merger(
            "15", "10", "15", ("Tỉnh Lào Cai", "Tỉnh Lào Cai", "Tỉnh Yên Bái"),
            {"10": (("02905", "02905"), ("02761", "02761")),
             "15": (("04252", "04252"), ("04249", "04279"))},
        ),
        Merger(
            "44", "45", "44", ("Tỉnh Quảng Trị", "Tỉnh Quảng Trị", "Tỉnh Quảng Bình"),
            {"45": (("19330", "19333"), ("19336", "19351")),
             "44": (("18853", "18880"), ("18859", "18859"))},
        ),
        Merger(
            "82", "87", "82", ("Tỉnh Đồng Tháp", "Tỉnh Đồng Tháp", "Tỉnh Tiền Giang"),
            {"87": (("29869", "29869"), ("30088", "30088")),
             "82": (("28261", "28261"), ("28249", "28249"))},
        ),
    )
}  # fmt: skip


@dataclass
class Corner:
    """A village of an old commune with a team, its member and a household."""

    commune: UUID
    village: str
    team: str
    member: str
    household: str

    @classmethod
    async def found(cls, side: "Side", commune: UUID, name: str) -> Self:
        """Make one, as the old province's officer, its portal and the commune's officer."""
        village = await make(
            side.officer, "admin-units", level="village", name=f"Thôn {name}", type="thôn",
            parent_id=str(commune), valid_from="2025-01-01",
        )  # fmt: skip
        team = await make(
            side.portal, "teams", name=f"Tổ {name}", unit_id=village["id"],
            kind="community_team", founded_on="2025-02-03",
        )  # fmt: skip
        stay = {"team_id": team["id"], "role": "leader", "joined_on": "2025-02-03"}
        member = await make(side.portal, "members", full_name=f"Người {name}", memberships=[stay])
        household = await make(
            side.portal, "households", unit_id=village["id"], head_name=f"Hộ {name}"
        )
        return cls(commune, village["id"], team["id"], member["id"], household["id"])


@dataclass
class Side:
    """One of the old provinces, with its people, and a village in each of some communes."""

    province: UUID
    officer: Person
    portal: Person
    ioc: Person
    corners: list[Corner] = field(default_factory=list)
    communes: list[UUID] = field(default_factory=list)
    became: list[UUID] = field(default_factory=list)

    @classmethod
    async def found(
        cls, country: Country, code: str, communes: tuple[tuple[str, str], ...]
    ) -> Self:
        """Make the old province's people and villages, before the reform."""
        province = before("province", code)
        side = cls(
            province,
            officer=await country.sign_in(Role.province_admin, at=province),
            portal=await country.sign_in(Role.portal_client, at=province),
            ioc=await country.sign_in(Role.ioc_reader, at=province),
        )
        for old, new in communes:
            commune = before("commune", old)
            side.communes.append(commune)
            side.became.append(after("commune", new))
            side.corners.append(await Corner.found(side, commune, f"{code}-{old}"))
        return side

    async def record(self, corner: Corner, day: str, times: int = 1, **more: Any) -> list[str]:
        """Record that a corner's team helped its household on a day; return the events' ids."""
        when = more.pop("time", "09:00:00")
        body = event(corner, dated(day, when)) | more
        return [(await make(self.portal, "support-events", **body))["id"] for _ in range(times)]


def event(corner: Corner, occurred_at: str) -> dict[str, Any]:
    """Return the body of an event."""
    return {
        "team_id": corner.team,
        "member_ids": [corner.member],
        "household_id": corner.household,
        "service_type": "ID.ACTIVATE",
        "occurred_at": occurred_at,
        "outcome": "completed",
        "mode": "assisted",
        "channel": "household_visit",
    }
