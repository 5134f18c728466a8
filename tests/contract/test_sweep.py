"""Nobody learns of, or touches, what is not theirs: every operation, every role, by every way.

Generated from the OpenAPI document (see `sweep.py`): a new operation is swept when it appears,
and the suite fails until the sweep knows how to fill it.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import ColumnElement, text, true
from sqlalchemy.ext.asyncio import AsyncEngine

from api.app import create_app
from api.auth.scope import Reach
from api.models.role_grants import Role
from api.settings import Settings
from tests.contract.sweep import Document, Sweep, UnknownError, World, foreign_rows
from tests.factories import Country

SERVICE = create_app(Settings(_env_file=None), "postgresql://nowhere/none", "s" * 40)
FLOOR = 200
"""Requests that the smallest sweep makes: fewer would mean that it sweeps nothing."""


@pytest.mark.parametrize("role", list(Role))
async def test_what_is_foreign_is_as_what_is_absent(
    role: Role,
    country: Country,
    superuser: AsyncEngine,
    record_property: Callable[[str, object], None],
) -> None:
    world = await World.found(country, role)
    sweep = Sweep(world, Document(country.app))
    await sweep.unmoved()
    await sweep.by_cursor()
    before = await foreign_rows(superuser, world)
    assert all(before[table][0] for table in ("team", "support_event")) == bool(world.foreign)
    await sweep.run()
    after = await foreign_rows(superuser, world)
    record_property("requests", sweep.requests)
    print(f"{role}: {sweep.requests} requests")  # noqa: T201 - shown with -s
    assert not sweep.faults, "\n".join([f"{len(sweep.faults)} faults", *sweep.faults])
    assert after == before
    assert sweep.requests > FLOOR


@pytest.mark.parametrize("role", [Role.commune_admin])
async def test_a_user_is_not_a_member_whom_the_caller_cannot_see(
    role: Role, country: Country
) -> None:
    world = await World.found(country, role)
    sweep = Sweep(world, Document(country.app))
    (create,) = (o for o in sweep.document.operations if o.name == "create_user")
    (member,) = (r for r in create.body if r.name == "member_id")
    await sweep.by_body(create, member)
    assert not sweep.faults, "\n".join(sweep.faults)


async def test_a_scope_that_is_forgotten_is_found(
    country: Country, superuser: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await World.found(country, Role.auditor)
    sweep = Sweep(world, Document(country.app))

    def everything(_reach: Reach, _table: Any) -> ColumnElement[bool]:
        return true()

    monkeypatch.setattr(Reach, "filter", everything)
    monkeypatch.setattr(Reach, "covers", lambda *_: True)
    async with superuser.connect() as connection:
        await connection.execute(text("alter table household disable row level security"))
    await sweep.unmoved()
    await sweep.run(only="households")
    found = {fault.split(":")[0].split(" {")[0] for fault in sweep.faults}
    assert {"auditor list_households", "auditor get_household"} <= found
    theirs = ("household", "consent")
    assert not {name for name in found if not any(each in name for each in theirs)}, found


@pytest.mark.parametrize(
    ("path", "operation", "named"),
    [
        ("/v1/lists", {}, "asks for"),
        ("/v1/lists", {"operationId": "get_jwks"}, "rows of 'lists'"),
        ("/v1/teams/{list_id}", {"parameters": ["path"]}, "sweep.PARAMETERS"),
        ("/v1/teams", {"schema": "Problem"}, "sweep.BODIES"),
    ],
)
def test_what_the_sweep_cannot_fill_fails_it(
    path: str, operation: dict[str, Any], named: str
) -> None:
    content = {"application/json": {"schema": {"$ref": f"#/{operation.get('schema')}"}}}
    new = {
        "operationId": operation.get("operationId", "get_lists"),
        "parameters": [
            {"name": "list_id", "in": where, "schema": {"type": "string", "format": "uuid"}}
            for where in operation.get("parameters", ())
        ],
        **({"requestBody": {"content": content}} if "schema" in operation else {}),
    }
    document = copy.deepcopy(SERVICE.openapi())
    document["paths"] = {path: {"get": new}}
    with pytest.raises(UnknownError, match=named):
        _ = Document(SERVICE, document).operations


def test_a_reference_to_something_new_fails_the_sweep() -> None:
    document = copy.deepcopy(SERVICE.openapi())
    team = document["components"]["schemas"]["TeamCreate"]["properties"]
    team["school_ids"] = {"type": "array", "items": {"type": "string"}}
    with pytest.raises(UnknownError, match=r"TeamCreate\.school_ids"):
        _ = Document(SERVICE, document).operations
    document = copy.deepcopy(SERVICE.openapi())
    new = {"name": "school", "in": "query", "schema": {"type": "string"}}
    document["paths"]["/v1/teams"]["get"]["parameters"].append(new)
    with pytest.raises(UnknownError, match=r"/v1/teams\?school: say in sweep\.REFERENCES"):
        _ = Document(SERVICE, document).operations
