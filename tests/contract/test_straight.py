"""Routes that are answered straight say what the framework says, to the byte."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from api import ids
from api.models.role_grants import Role
from api.routers.straight import straight
from tests.factories import LAO_CAI, As, Province, make
from tests.rules import OF_THE_REQUEST, problem

STRAIGHT = {
    "create_support_event",
    "get_activity",
    "get_household",
    "get_member",
    "get_support_event",
    "get_team",
    "run_batch",
}
USUAL, UNUSUAL = "application/json", "application/JSON"
"""Media types are the same in any case, and only the usual form goes straight."""


def told(answer: httpx.Response) -> tuple[int, Any, dict[str, str]]:
    headers = {k: v for k, v in answer.headers.items() if k not in OF_THE_REQUEST}
    return answer.status_code, answer.content, headers


async def test_what_is_hot_and_simple_is_answered_straight(app: FastAPI) -> None:
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert {route.operation_id for route in routes if straight(route)} == STRAIGHT


async def test_a_row_is_shown_either_way(lao_cai: Province) -> None:
    here = lao_cai.muong_khuong
    for noun, row in (
        ("teams", here.team),
        ("members", here.leader),
        ("households", here.household),
    ):
        usual = await here.admin.get(f"/v1/{noun}/{row['id']}")
        unusual = await here.admin.get(f"/v1/{noun}/{row['id'].upper()}")
        assert usual.status_code == 200
        assert told(usual) == told(unusual), noun
        absent = [await here.admin.get(f"/v1/{noun}/{form}") for form in (LAO_CAI, "x")]
        assert [problem(answer) for answer in absent] == [(404, "not_found")] * 2


@pytest.mark.parametrize(
    "wrong", [{}, {"quantity": 0}, {"team_id": "x"}, {"outcome": None}, {"typo": 1}]
)
async def test_a_row_is_made_or_refused_either_way(
    lao_cai: Province, as_: As, wrong: dict[str, Any]
) -> None:
    portal = await as_(Role.portal_client, at=LAO_CAI)
    known = str(ids.new_id())
    body = lao_cai.muong_khuong.event(id=known, **wrong)
    if not wrong:
        await make(portal, "support-events", **body)  # from here on it is the same create again
    usual, unusual = [
        await portal.post("/v1/support-events", json=body, headers={"Content-Type": kind})
        for kind in (USUAL, UNUSUAL)
    ]
    assert usual.status_code == (422 if wrong else 200)
    if wrong:
        assert usual.json()["errors"] == unusual.json()["errors"]
    else:
        assert told(usual) == told(unusual)


async def test_nobody_goes_straight_past_the_door(client: httpx.AsyncClient) -> None:
    for body, code in ((b"{}", "unauthenticated"), (b"{", "invalid_request")):
        answers = [
            await client.post("/v1/support-events", content=body, headers={"Content-Type": kind})
            for kind in (USUAL, UNUSUAL)
        ]
        assert [answer.json()["code"] for answer in answers] == [code] * 2
