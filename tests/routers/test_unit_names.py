"""Units found by name: old names, accents, typos, the best first, every row once."""

import unicodedata
from itertools import product
from typing import Any
from urllib.parse import quote

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.models.role_grants import Role
from tests.factories import LAO_CAI, MUONG_KHUONG, NATION, OLD_LAO_CAI, As, Province, make
from tests.routers.test_admin_units import listed
from tests.routers.test_reorganisations import commune, document, merge

BAO_YEN = "Xã Bảo Yên"
OLD_XUAN_THUONG = str(ids.official_unit_id("commune", "02980"))
DAY_BEFORE_REFORM = "2025-06-30"


async def names(who: httpx.AsyncClient, q: str, **query: Any) -> list[str]:
    return [unit["name"] for unit in await listed(who, q=q, **query)]


async def test_an_old_name_finds_the_successor_and_says_why(as_: As) -> None:
    anyone = await as_()
    (found,) = await listed(anyone, q="Xuân Thượng", within=str(LAO_CAI))
    assert found["name"] == BAO_YEN
    assert found["match"] == {
        "kind": "predecessor",
        "name": "Xã Xuân Thượng",
        "code": "02980",
        "unit_id": OLD_XUAN_THUONG,
        "until": DAY_BEFORE_REFORM,
    }
    (then,) = await listed(anyone, q="Xuân Thượng", within=str(OLD_LAO_CAI), at=DAY_BEFORE_REFORM)
    assert then["id"] == then["match"]["unit_id"] == OLD_XUAN_THUONG
    assert then["match"]["kind"] == "name"
    assert then["match"]["until"] is None
    town = (await listed(anyone, q="thị trấn Phố Ràng"))[0]
    assert (town["name"], town["match"]["name"]) == (BAO_YEN, "Thị trấn Phố Ràng")
    (unasked,) = await listed(anyone, code="02980", at=DAY_BEFORE_REFORM)
    assert unasked["match"] is None


async def test_all_parts_of_a_split_unit_are_found_by_its_name(as_: As) -> None:
    anyone = await as_()
    split = ids.official_unit_id("commune", "00007")
    old = (await anyone.get(f"/v1/admin-units/{split}")).json()
    found = await listed(anyone, q=old["name"], limit=200)
    parts = {u["code"] for u in found if u["match"]["unit_id"] == str(split)}
    assert parts == {"00008", "00025"}


async def test_a_name_is_followed_through_several_mergers(as_: As) -> None:
    nation = await as_(Role.national_admin, at=NATION)
    bao_yen = (await listed(nation, q=BAO_YEN, within=str(LAO_CAI)))[0]["id"]
    to = commune("Xã Hợp Nhất Mới", "99901")
    united = document("01/NQ", merge(bao_yen, MUONG_KHUONG, to=to))
    response = await nation.post("/v1/reorganisations", json=united)
    assert response.status_code == 201, response.text
    (found,) = await listed(nation, q="xuan thuong", within=str(LAO_CAI))
    assert found["name"] == "Xã Hợp Nhất Mới"
    assert found["match"]["unit_id"] == OLD_XUAN_THUONG
    assert await names(nation, "xuan thuong", within=str(LAO_CAI), at="2026-02-28") == [BAO_YEN]


async def test_a_former_name_of_the_same_unit_is_told_from_a_predecessors(
    lao_cai: Province,
) -> None:
    admin, village = lao_cai.muong_khuong.admin, lao_cai.muong_khuong.village
    path = f"/v1/admin-units/{village['id']}"
    await admin.patch(path, json={"name": "Thôn Rất Mới"}, headers={"If-Match": '"1"'})
    (former,) = await listed(admin, q="Na Đẩy")
    assert former["id"] == former["match"]["unit_id"] == village["id"]
    assert (former["match"]["kind"], former["match"]["name"]) == ("former_name", "Thôn Na Đẩy")
    (own,) = await listed(admin, q="Rất Mới")
    assert own["match"]["kind"] == "name"
    (before,) = await listed(admin, q="Na Đẩy", at="2025-08-01")
    assert before["match"]["kind"] == "name"


TYPED: list[tuple[str, str]] = [
    ("bao yen", BAO_YEN),
    ("BẢO YÊN", BAO_YEN),
    (unicodedata.normalize("NFD", "Bảo Yên"), BAO_YEN),
    ("xã  Bảo Yên", BAO_YEN),
    ("thi tran Bao Yen", BAO_YEN),
    ("Muong Khu", "Xã Mường Khương"),
    ("khuong", "Xã Mường Khương"),
    ("Muong Khuog", "Xã Mường Khương"),
    ("Mưong Khuơng", "Xã Mường Khương"),
    ("Xuan Thuog", BAO_YEN),
    ("Bao Yn", BAO_YEN),
    ("Sa Oa", "Phường Sa Pa"),
    ("TP Lao Cai", "Tỉnh Lào Cai"),
    ("Lao Kai", "Tỉnh Lào Cai"),
    ("lào cai", "Tỉnh Lào Cai"),
    ("Đông Cuông", "Xã Đông Cuông"),
    ("dong cuong", "Xã Đông Cuông"),
    ("ĐÔNG CUÔNG", "Xã Đông Cuông"),
    ("Y Tý", "Xã Y Tý"),
    ("y", "Tỉnh Yên Bái"),
]


async def test_a_name_is_found_however_it_is_typed(as_: As) -> None:
    anyone = await as_()
    for q, first in TYPED:
        day = {"at": DAY_BEFORE_REFORM} if first == "Tỉnh Yên Bái" else {"within": str(LAO_CAI)}
        assert (await names(anyone, q, **day))[0] == first, q


CALLED_TAN_HUNG = tuple(
    f"{kind} {name}"
    for kind in ("Xã", "Phường", "Thị trấn", "Thôn")
    for name in ("Tân Hưng", "Tân Hùng", "Tân Hừng")
)


async def test_the_best_match_comes_first(lao_cai: Province) -> None:
    admin = lao_cai.muong_khuong.admin
    for name in ("Thôn Phú Tân Hưng", "Thôn Tân Hưng Hạ", "Thôn Tân Hưng", "Thôn Tân Hưn"):
        await make(
            admin,
            "admin-units",
            level="village",
            name=name,
            type="thôn",
            parent_id=str(MUONG_KHUONG),
            valid_from="2026-01-01",
        )
    query = {"within": str(MUONG_KHUONG)}
    found = await names(admin, "tân hưng", **query)
    assert found == ["Thôn Tân Hưng", "Thôn Tân Hưng Hạ", "Thôn Phú Tân Hưng"]
    backwards = await names(admin, "tân hưng", sort="-name", **query)
    assert backwards == ["Thôn Tân Hưng Hạ", "Thôn Tân Hưng", "Thôn Phú Tân Hưng"]
    ranks = {"name": 0, "former_name": 1, "predecessor": 2}
    everywhere = await listed(admin, q="Tân Hưng", limit=200)
    called_so = [u for u in everywhere if u["match"]["name"].endswith(CALLED_TAN_HUNG)]
    assert everywhere[: len(called_so)] == called_so
    kinds = [ranks[unit["match"]["kind"]] for unit in called_so]
    assert kinds == sorted(kinds)
    assert len(set(kinds)) > 1


async def test_pages_of_a_search_hold_every_row_once(as_: As) -> None:
    anyone = await as_()
    for q, sort in product(["tan thanh", "Tan Thanhh"], ["relevance", "name", "-name"]):
        await hold_every_row_once(anyone, q, sort)


async def hold_every_row_once(anyone: httpx.AsyncClient, q: str, sort: str) -> None:
    """Walk the pages of a search and hold them against the whole."""
    whole = await anyone.get("/v1/admin-units", params={"q": q, "sort": sort, "limit": 200})
    expected = [unit["id"] for unit in whole.json()["items"]]
    query: dict[str, Any] = {"q": q, "sort": sort, "limit": 7, "include_total": "true"}
    seen: list[str] = []
    while True:
        page = (await anyone.get("/v1/admin-units", params=query)).json()
        assert page["total"] == len(expected)
        seen += [unit["id"] for unit in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == expected
    assert len(set(seen)) == len(seen) > 14


async def test_relevance_ends_where_an_order_of_names_goes_on(as_: As) -> None:
    anyone = await as_()
    totals = []
    for sort in ("relevance", "name"):
        query = {"q": "tan", "sort": sort, "limit": 1, "include_total": "true"}
        totals.append((await anyone.get("/v1/admin-units", params=query)).json()["total"])
    assert totals[0] <= 500
    assert totals[0] <= totals[1]


async def test_other_filters_narrow_a_search_before_any_bound(as_: As) -> None:
    anyone = await as_()
    provinces = await listed(anyone, q="Lào Cai", level="province")
    assert [unit["code"] for unit in provinces] == ["15"]
    assert await names(anyone, "bao yen", parent_id=str(LAO_CAI)) == [BAO_YEN]
    assert await names(anyone, "hoan kiem", code=["15"]) == []
    everywhere = await listed(anyone, q="bao yen", within=[str(NATION)])
    assert everywhere == await listed(anyone, q="bao yen")


ABSURD = ["a", "%", "_", "'", '"', "\\", "%%%", "a%", "😀", "\u0301", "\u00a0x", "1", "a" * 200]
ABSURD += [
    "xã",
    "xa xa",
    "(",
    ".*",
    "[a",
    "tp.",
    "p.",
    "- -",
    "\u200b",
    "ﬀ",
    "ß" * 200,
    "\U0010ffff",
]


async def test_absurd_searches_are_answered(as_: As) -> None:
    anyone = await as_()
    for q in ABSURD:
        response = await anyone.get(f"/v1/admin-units?q={quote(q)}&include_total=true")
        assert response.status_code in {200, 422}, q
    empty = await anyone.get("/v1/admin-units?q=%20%20")
    assert empty.status_code == 422


async def test_every_name_is_kept_once(lao_cai: Province, superuser: AsyncEngine) -> None:
    missing = text("""
        select count(*) from admin_unit_state s join admin_unit u on u.key = s.unit_key
        where (array_position(array['nation', 'province', 'district', 'commune', 'village'],
                              u.level), s.search) not in (select level, search from unit_name)
    """)
    admin, village = lao_cai.muong_khuong.admin, lao_cai.muong_khuong.village
    path = f"/v1/admin-units/{village['id']}"
    await admin.patch(path, json={"name": "Thôn Tên Khác"}, headers={"If-Match": '"1"'})
    async with superuser.connect() as connection:
        assert await connection.scalar(missing) == 0
