"""Reports, over HTTP: all that a unit sends upward for a period, as JSON and as a workbook."""

from datetime import date
from io import BytesIO
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from openpyxl import Workbook, load_workbook
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock, ids
from api.db import transaction
from api.models.role_grants import Role
from api.services import event_folding
from api.services.report_workbook import texts
from api.services.workbooks import XLSX
from tests.factories import HA_NOI, LAO_CAI, MUONG_KHUONG, NATION, As, Province, make
from tests.rules import fault, same_answer
from tests.statements import statements

TODAY = date(2026, 10, 15)
MONTH = "2025-08"
NASTY = '=HYPERLINK("http://evil.example","x")'


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)


async def report(
    who: httpx.AsyncClient, unit: UUID | str = MUONG_KHUONG, period: str = MONTH
) -> dict[str, Any]:
    response = await who.get(f"/v1/reports/{unit}", params={"period": period})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def book(
    who: httpx.AsyncClient, unit: UUID, language: str = "vi", *, values: bool = False
) -> Workbook:
    """Return a report as a spreadsheet opens it: its formulas, or the values that they bring."""
    headers = {"Accept": XLSX, "Accept-Language": language}
    response = await who.get(f"/v1/reports/{unit}", params={"period": MONTH}, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == XLSX
    assert "attachment" in response.headers["content-disposition"]
    return load_workbook(BytesIO(response.content), data_only=values)


def indicator(told: dict[str, Any], code: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = (row for row in told["indicators"] if row["indicator"] == code)
    return found


async def busy(province: Province) -> None:
    """Let Mường Khương's team help in July and August, and be one of two."""
    home = province.muong_khuong
    leader = await province.leader_of(home)
    for service, quantity, day in (
        ("ID.ACTIVATE", 3, "2025-08-01"),
        ("ID.ACTIVATE", 2, "2025-08-31"),
        ("ID.USE", 5, "2025-08-20"),
        ("ID.USE", 1, "2025-07-20"),
    ):
        at = f"{day}T09:00:00+07:00"
        event = home.event(service_type=service, quantity=quantity, occurred_at=at)
        await make(leader, "support-events", **event)
    village = {"level": "village", "type": "thôn", "parent_id": str(MUONG_KHUONG)}
    await make(home.admin, "admin-units", **village, name=NASTY, valid_from="2025-07-01")
    held = {"kind": "training", "organiser": "government", "host_unit_id": str(MUONG_KHUONG)}
    for day, people in (("2025-08-03", 30), ("2025-08-04", 12)):
        body = held | {"title": "Tập huấn", "held_on": day, "participants": people}
        await make(home.admin, "activities", **body)
    admin = await province.country.sign_in(Role.province_admin, at=LAO_CAI)
    plan = {"indicator": "events.count", "unit_id": str(MUONG_KHUONG), "document": "=1+1"}
    await make(admin, "targets", **plan, period="2025", value=8)
    await make(admin, "targets", **plan, period="2026", value=8)
    quiet = {"kind": "core_squad", "founded_on": "2025-08-15", "name": "+Tổ im lặng"}
    await make(home.admin, "teams", **quiet, unit_id=home.village["id"])


async def test_a_report_says_what_observations_say(as_: As, lao_cai: Province) -> None:
    await busy(lao_cai)
    officer = lao_cai.muong_khuong.admin
    told = await report(officer)
    assert told["unit"]["unit_id"] == str(MUONG_KHUONG)
    assert told["addressed_to"]["unit_id"] == str(LAO_CAI)
    assert (told["first_on"], told["last_on"]) == ("2025-08-01", "2025-08-31")
    assert told["previous_period"] == "2025-07"
    for period, field in ((MONTH, "value"), ("2025-07", "previous_value")):
        codes = [row["indicator"] for row in told["indicators"]]
        assert "households.registered" in codes
        seen: dict[str, Any] = {}
        for some in (codes[:15], codes[15:]):
            asked = {"indicator": some, "unit_id": str(MUONG_KHUONG), "period": period}
            answer = await officer.get(
                "/v1/observations", params=asked | {"boundary": "as_recorded"}
            )
            seen |= {item["indicator"]: item["value"] for item in answer.json()["items"]}
        assert {row["indicator"]: row[field] for row in told["indicators"]} == seen
    events = indicator(told, "events.count")
    assert (events["value"], events["previous_value"], events["change"]) == (3, 1, 2)
    services = {s["service_type"]: (s["events"], s["quantity"]) for s in told["services"]}
    assert services == {"ID.ACTIVATE": (2, 5), "ID.USE": (1, 5)}
    (plan,) = told["targets"]
    assert (plan["period"], plan["target"], plan["value"]) == ("2025", 8, 4)
    assert (plan["attainment"], plan["status"]) == (0.5, "behind")
    assert told["activities"] == [{"kind": "training", "activities": 2, "participants": 42}]
    units = {unit["unit_id"]: unit for unit in told["units"]}
    village = lao_cai.muong_khuong.village["id"]
    assert len(units) == 2
    assert (units[village]["teams"], units[village]["events"]) == (2, 3)
    assert told["uncovered_village_count"] == 1
    assert [row["name"] for row in told["uncovered_villages"]] == [NASTY]
    assert told["idle_team_count"] == 1
    assert [row["name"] for row in told["idle_teams"]] == ["+Tổ im lặng"]
    coverage = indicator(told, "villages.coverage")
    assert (coverage["value"], coverage["numerator"], coverage["denominator"]) == (50, 1, 2)
    wide = await report(await as_(Role.province_admin, at=LAO_CAI), LAO_CAI)
    rows = {unit["unit_id"]: unit for unit in wide["units"]}
    assert rows[str(MUONG_KHUONG)]["events"] == 3
    assert sum(row["events"] for row in wide["units"]) == indicator(wide, "events.count")["value"]
    assert {row["name"] for row in wide["idle_teams"]} >= {"+Tổ im lặng"}


async def test_a_report_tells_of_closed_periods_and_their_revisions(
    as_: As, lao_cai: Province
) -> None:
    await busy(lao_cai)
    admin = await as_(Role.province_admin, at=LAO_CAI)
    assert (await report(admin))["closed_periods"] == []
    closed = await make(admin, "closed-periods", unit_id=str(MUONG_KHUONG), period=MONTH)
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    await make(leader, "support-events", **lao_cai.muong_khuong.event(quantity=7))
    await admin.get(f"/v1/closed-periods/{closed['id']}")
    (told,) = (await report(admin, period="2025-Q3"))["closed_periods"]
    assert (told["closed_period_id"], told["hash"]) == (closed["id"], closed["hash"])
    changes = {
        (r["indicator"], r["service_type"]): (r["was"], r["is"], r["difference"])
        for r in told["revisions"]
    }
    assert changes["events.count", None] == (3, 4, 1)
    assert changes["events.quantity", "ID.ACTIVATE"] == (5, 12, 7)
    assert told["revision_count"] == len(told["revisions"])


async def test_a_report_shows_people_to_whom_observations_show_them(
    as_: As, lao_cai: Province
) -> None:
    reader = await as_(Role.ioc_reader, at=MUONG_KHUONG)
    mine = indicator(await report(lao_cai.muong_khuong.admin), "members.youth")
    assert (mine["value"], mine["status"]) == (1, "ok")
    theirs = await report(reader)
    hidden = indicator(theirs, "members.youth")
    assert (hidden["value"], hidden["previous_value"]) == (None, None)
    assert (hidden["change"], hidden["status"]) == (None, "suppressed")
    assert theirs["idle_team_count"] == 1
    assert theirs["idle_teams"] == []
    running = await report(reader, period="2026")
    assert indicator(running, "households.registered")["status"] == "suppressed"
    assert indicator(running, "teams.active")["value"] == 1
    village = await report(reader, lao_cai.muong_khuong.village["id"])
    assert indicator(village, "households.registered")["status"] == "suppressed"
    sheet = (await book(reader, MUONG_KHUONG, "en"))["Summary"]
    notes = {row[0].value: row[7].value for row in sheet.iter_rows(min_row=12)}
    assert notes["Youth members"] == "Hidden (protection of personal data)"


async def test_a_report_is_for_whoever_has_the_unit_in_scope(as_: As, lao_cai: Province) -> None:
    url = "/v1/reports"
    for role in (Role.ioc_reader, Role.auditor, Role.portal_client, Role.province_admin):
        stranger = await as_(role, at=HA_NOI)
        asked = {"period": MONTH}
        unseen = await stranger.get(f"{url}/{MUONG_KHUONG}", params=asked)
        nowhere = await stranger.get(f"{url}/{ids.new_id()}", params=asked)
        assert unseen.status_code == 404
        assert same_answer(unseen, nowhere)
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    refused = await leader.get(f"{url}/{MUONG_KHUONG}", params={"period": MONTH})
    assert refused.status_code == 403
    admin = await as_(Role.province_admin, at=LAO_CAI)
    wrong = await admin.get(f"{url}/{MUONG_KHUONG}", params={"period": "2025-13"})
    assert fault(wrong) == (422, "/query/period", "period_invalid")
    assert fault(await admin.get(f"{url}/{MUONG_KHUONG}")) == (422, "/query/period", "missing")
    nation = await report(await as_(Role.national_admin), NATION, "2026-Q1")
    assert len(nation["units"]) == 34
    assert (nation["addressed_to"], nation["idle_team_count"]) == (None, None)
    for period in ("2025-07", "2025-W33", "2025-08-03", "2025-08-01/2025-08-10", "2026"):
        assert (await report(admin, period=period))["period"] == period


async def test_a_report_takes_as_many_statements_for_a_province_as_for_a_commune(
    app: FastAPI, as_: As, lao_cai: Province, superuser: AsyncEngine
) -> None:
    await busy(lao_cai)
    async with transaction(superuser, snapshot=True) as session:
        await event_folding.fold(session)  # as a worker does within a second
    admin = await as_(Role.province_admin, at=LAO_CAI)
    counts = []
    for unit in (MUONG_KHUONG, LAO_CAI):
        await report(admin, unit)
        with statements(app) as sent:
            await report(admin, unit)
        counts.append(len(sent))
    assert abs(counts[0] - counts[1]) < 10
    assert max(counts) < 160


async def test_a_report_opens_as_a_workbook(as_: As, lao_cai: Province) -> None:
    await busy(lao_cai)
    admin = await as_(Role.province_admin, at=LAO_CAI)
    told = await report(admin)
    formulas, values = [await book(admin, MUONG_KHUONG, values=v) for v in (False, True)]
    assert formulas.sheetnames == [pair[0] for pair in texts()["sheet"].values()]

    top, shown = formulas["Tổng hợp"], values["Tổng hợp"]
    assert top["A1"].value == "BÁO CÁO KẾT QUẢ HOẠT ĐỘNG TỔ CÔNG NGHỆ SỐ CỘNG ĐỒNG"
    facts = {row[0].value: row[1].value for row in top.iter_rows(min_row=2, max_row=10)}
    assert facts["Đơn vị"] == told["unit"]["name"]
    assert facts["Kính gửi"] == told["addressed_to"]["name"]
    assert (facts["Kỳ báo cáo"], facts["Kỳ trước"]) == (MONTH, "2025-07")
    assert str(facts["Thời điểm lập"]).startswith(clock.reporting_day(clock.now()).isoformat())
    rows = {row[0].value: row for row in shown.iter_rows(min_row=12)}
    for item in told["indicators"]:
        assert rows[item["name_vi"]][2].value == item["value"], item
        assert rows[item["name_vi"]][5].value == item["previous_value"], item
        assert rows[item["name_vi"]][6].value == item["change"], item
    share = next(r for r in top.iter_rows(min_row=12) if r[0].value == "Tỷ lệ tổ có nhóm Zalo")
    assert str(share[2].value).startswith("=IF(E")

    services, sums = formulas["Theo dịch vụ"], values["Theo dịch vụ"]
    assert services.freeze_panes == "A2"
    assert [cell.value for cell in services[1]][:5] == [
        "Mã", "Dịch vụ", "Đơn vị tính", "Số lần hỗ trợ", "Khối lượng",
    ]  # fmt: skip
    assert services["D4"].value == "=SUM(D2:D3)"
    assert sums["D4"].value == 3
    assert services["E5"].value == "=SUMIF($C$2:$C$3,C5,E2:E3)"
    assert {sums["C5"].value: sums["E5"].value, sums["C6"].value: sums["E6"].value} == {
        "tài khoản": 5,
        "lượt": 5,
    }
    assert services["D2"].number_format == "#,##0"
    assert (services.column_dimensions["B"].width or 0) > 40

    plan, shown = formulas["Chỉ tiêu kế hoạch"], values["Chỉ tiêu kế hoạch"]
    assert [cell.value for cell in shown[2]][1:6] == ["2025", "≥", 8, 4, 50]
    assert plan["F2"].value == '=IF(OR(D2=0,E2=""),"",100*E2/D2)'
    assert (plan["H2"].value, plan["H2"].data_type) == ("=1+1", "s")
    assert plan["F1"].value == "Tỷ lệ hoàn thành (%)"
    held = formulas["Hoạt động"]
    assert [cell.value for cell in held[2]] == ["Tập huấn", 2, 42]
    assert held["C3"].value == "=SUM(C2:C2)"


async def test_the_lists_of_a_report_open_as_sheets(as_: As, lao_cai: Province) -> None:
    await busy(lao_cai)
    admin = await as_(Role.province_admin, at=LAO_CAI)
    await make(admin, "closed-periods", unit_id=str(MUONG_KHUONG), period=MONTH)
    told = await report(admin)
    formulas, values = [await book(admin, MUONG_KHUONG, values=v) for v in (False, True)]
    units, totals = formulas["Đơn vị trực thuộc"], values["Đơn vị trực thuộc"]
    assert units["E4"].value == "=SUM(E2:E3)"
    assert totals["E4"].value == indicator(told, "events.count")["value"]
    assert totals["H4"].value == 50
    village = formulas["Thôn, bản chưa có tổ"]["B2"]
    assert (village.value, village.data_type) == (NASTY, "s")
    assert village.quotePrefix
    team = formulas["Tổ không có hoạt động"]["B2"]
    assert (team.value, team.data_type) == ("+Tổ im lặng", "s")
    closed = formulas["Kỳ đã khóa sổ"]
    assert closed["C2"].value == told["closed_periods"][0]["hash"]

    english = await book(admin, MUONG_KHUONG, "en")
    assert english.sheetnames == [pair[1] for pair in texts()["sheet"].values()]
    assert "TEAMS" in str(english["Summary"]["A1"].value)
    plain = await admin.get(
        f"/v1/reports/{MUONG_KHUONG}", params={"period": MONTH}, headers={"Accept": "text/html"}
    )
    assert plain.headers["content-type"] == "application/json"


def test_the_words_of_a_report_are_in_both_languages() -> None:
    for kind, words in texts().items():
        for name, pair in words.items():
            assert len(pair) == 2, (kind, name)
            assert all(pair) or (kind, name) == ("status", "ok"), (kind, name)
