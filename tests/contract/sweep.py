"""The sweep: every operation of the OpenAPI document, filled with own, foreign and absent ids.

Nothing here names an operation that only reads or writes rows: a new one is swept as soon as the
document has it. What the sweep cannot fill stops it with the name of the table to extend.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote
from uuid import UUID
from zlib import crc32

import httpx
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.auth.permissions import MATRIX, TEAM_ROLES, Permission
from api.models.role_grants import Role
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    HOAN_KIEM,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    OLD_MUONG_KHUONG,
    PASSWORD,
    Country,
    make,
)

type Json = dict[str, Any]

ABSENT: Final = "01890000-0000-7000-8000-00000000dead"
OTHER_PASSWORD: Final = f"not {PASSWORD}"
NOTHING: Final = "không có gì như vậy"

PARAMETERS: Final = {
    "activity_id": "activities",
    "break_glass_id": "break-glass",
    "campaign_id": "campaigns",
    "client_id": "clients",
    "commendation_id": "commendations",
    "closed_period_id": "closed-periods",
    "data_subject_request_id": "data-subject-requests",
    "device_id": "devices",
    "entry_id": "audit-entries",
    "grant_id": "role-grants",
    "household_id": "households",
    "identity_id": "identities",
    "indicator_id": "indicators",
    "member_id": "members",
    "reorganisation_id": "reorganisations",
    "service_type_id": "service-types",
    "statistic_id": "statistics",
    "support_event_id": "support-events",
    "target_id": "targets",
    "team_id": "teams",
    "unit_id": "admin-units",
}
"""Path parameter -> the collection whose ids it takes."""

REFERENCES: Final = {
    "actor_id": "principals",
    "allocated_from_id": "targets",
    "attendee_ids": "members",
    "campaign_id": "campaigns",
    "from_id": "admin-units",
    "from_ids": "admin-units",
    "host_unit_id": "admin-units",
    "household_id": "households",
    "member_id": "members",
    "member_ids": "members",
    "parent_id": "communes",
    "principal_id": "principals",
    "row_id": "teams",
    "successor_id": "admin-units",
    "team_id": "teams",
    "unit_id": "admin-units",
    "unit_ids": "admin-units",
    "village_ids": "admin-units",
    "within": "admin-units",
    "Body_create_access_token.client_id": "clients",
    "SessionCreate.username": "usernames",
}
"""Field or query parameter (`Schema.field` where the name says too little) -> what it refers to."""

NAMES: Final = {"external_id", "external_ids", "q"}
"""Parameters and fields that find a row by what it is called; `id` is what a create calls it."""

NO_REFERENCES: Final = {
    "action",
    "boundary",
    "device_id",
    "category",
    "NewUnit.id",  # what a document calls its own new units
    "code",
    "cursor",
    "document_number",
    "indicator",
    "not_reached_by",
    "parent_code",
    "period",
    "reached_by",
    "resource",
    "service_type",
    "service_types",
}
"""Texts that name nothing of anybody's: catalogue codes (open to all), the client's own labels."""

OPEN: Final = {"admin-units", "communes", "service-types", "indicators", "reorganisations"}
"""Collections that every signed-in caller reads whole; only writing has a scope."""

OPEN_REFERENCES: Final = {
    ("support_event", "unit_id"),  # anywhere in the team's province
    ("role_grant", "principal_id"),  # any principal, wherever it was created
}
"""References that may name what the caller cannot see, by the contract."""

ROWLESS: Final = {"batch", "me", "memberships", "observations", "oauth", "reports", "sessions"} | {
    ".well-known",
    "health",
}
"""First segments of paths whose answers have no rows of their own."""

ANONYMOUS: Final = {
    "create_access_token",
    "create_session",
    "get_jwks",
    "get_liveness",
    "get_oauth_metadata",
    "get_readiness",
    "refresh_session",
}
"""Operations for whoever is not signed in: all others ask for a permission."""

SIGNING_IN: Final = Role.commune_admin
"""The role whose sweep also takes the operations for whoever is not signed in."""

NOT_AS_OWN: Final = {
    "delete_sessions",
    "delete_current_session",
    "confirm_totp",
    "disable_totp",
    "create_my_identity",
}
"""Operations that would sign the caller out, or need what only a phone or an issuer shows."""

OWN_ROWS: Final = {
    "reject_support_event": "events to reject",
    "reopen_support_event": "events to reopen",
    "verify_support_event": "events to verify",
    "void_support_event": "events to void",
}
"""Operation -> the own rows that it takes, where any row of the collection will not do."""

BATCH: Final = {
    "activities": ("activities", "ActivityCreate", "ActivityUpdate"),
    "households": ("households", "HouseholdCreate", "HouseholdUpdate"),
    "members": ("members", "MemberCreate", "MemberUpdate"),
    "support_events": ("support-events", "SupportEventCreate", "SupportEventUpdate"),
    "teams": ("teams", "TeamCreate", "TeamUpdate"),
}
"""Array of a batch -> its collection, the schemas of what is created and updated."""

NEEDED: Final = {
    "get_report": {"period": "2025"},
    "list_observations": {"indicator": "teams.active", "period": "2025"},
    "stream_observations": {"indicator": "teams.active", "period": "2025"},
}
"""Query parameters that an operation cannot do without."""

TREE: Final = {"placement", "admin_unit_state", "unit_succession", "tree", "alembic_version"}
"""Tables of the open tree of units, too large to be looked through row by row."""


class UnknownError(AssertionError):
    """The document has something that the sweep does not know how to fill."""


class Reference(NamedTuple):
    """A field that names a row: the steps to it (`[]`: into an array), and what it refers to."""

    steps: tuple[str, ...]
    noun: str
    many: bool

    @property
    def name(self) -> str:
        return self.steps[-1]


@dataclass(frozen=True)
class Operation:
    """One operation of the document."""

    name: str
    method: str
    template: str
    permission: Permission | None
    path: tuple[str, ...]
    query: tuple[Reference, ...]
    parameters: frozenset[str]
    sorts: tuple[str, ...]
    schema: str | None
    is_form: bool
    body: tuple[Reference, ...]

    @property
    def collection(self) -> str:
        """The first segment of the path after the version."""
        return re.split(r"[/:]", self.template.removeprefix("/v1").strip("/"))[0]

    @property
    def is_conditional(self) -> bool:
        return "if-match" in self.parameters

    def is_open_to(self, reference: Reference) -> bool:
        """Tell whether the reference may name what the caller cannot see."""
        singular = self.collection.removesuffix("s").replace("-", "_")
        return (singular, reference.name) in OPEN_REFERENCES


class Document:
    """The OpenAPI document, read for what refers to rows."""

    def __init__(self, app: FastAPI, document: Json | None = None) -> None:
        self.document = document or app.openapi()
        self.schemas: Json = self.document["components"]["schemas"]
        self._permissions: dict[str, list[Permission]] = {}
        for route in iter_route_contexts(app.routes):  # `app.routes` alone has no included ones
            calls = [d.call for d in getattr(route, "dependant", Dependant()).dependencies]
            marks = [getattr(call, "permission", None) for call in calls]
            asked = [mark for mark in marks if isinstance(mark, Permission)]
            self._permissions[str(getattr(route, "operation_id", ""))] = asked

    @cached_property
    def operations(self) -> list[Operation]:
        """Return every operation; `UnknownError` for what cannot be filled."""
        return [
            self._operation(template, method, operation)
            for template, methods in self.document["paths"].items()
            for method, operation in methods.items()
        ]

    def _operation(self, template: str, method: str, given: Json) -> Operation:
        parameters = given.get("parameters", ())
        content = given.get("requestBody", {}).get("content", {})
        schema = next(
            (media["schema"]["$ref"].rpartition("/")[2] for media in content.values()), None
        )
        if schema is not None and schema not in BODIES:
            raise UnknownError(
                f"{given['operationId']}: add a valid body of {schema} to sweep.BODIES"
            )
        path = tuple(p["name"] for p in parameters if p["in"] == "path")
        for name in path:
            if name not in PARAMETERS and "by-external-id" not in template:
                raise UnknownError(
                    f"{template}: say in sweep.PARAMETERS what {{{name}}} is the id of"
                )
        queried = {p["name"]: p["schema"] for p in parameters if p["in"] == "query"}
        sort = self.resolved(queried["sort"]) if "sort" in queried else {}
        operation = Operation(
            name=given["operationId"],
            method=method.upper(),
            template=template,
            permission=self._permission(given["operationId"]),
            path=path,
            query=tuple(self._queried(template, queried)),
            parameters=frozenset(p["name"] for p in parameters),
            sorts=tuple(sort.get("enum", ())),
            schema=schema,
            is_form="application/x-www-form-urlencoded" in content,
            body=tuple(self.references(schema)) if schema and schema != "BatchCreate" else (),
        )
        if operation.collection not in ROWLESS | set(COLLECTIONS):
            raise UnknownError(
                f"{template}: give every Spot of tests/contract/sweep.py rows of"
                f" {operation.collection!r}, or say in sweep.ROWLESS that it has none"
            )
        return operation

    def _permission(self, name: str) -> Permission | None:
        asked = self._permissions.get(name, [])
        if name in ANONYMOUS and not asked:
            return None
        if len(asked) != 1:
            raise UnknownError(
                f"{name} asks for {asked}: give it one permission (auth/dependencies.py)"
            )
        return asked[0]

    def resolved(self, schema: Json) -> Json:
        """Return a schema without its reference and without its null."""
        if "$ref" in schema:
            found: Json = self.schemas[schema["$ref"].rpartition("/")[2]]
            return self.resolved(found)
        for option in schema.get("anyOf", ()):
            if option != {"type": "null"}:
                return self.resolved(option)
        return schema

    def _queried(self, template: str, queried: Mapping[str, Json]) -> Iterator[Reference]:
        for name, given in queried.items():
            schema = self.resolved(given)
            many = schema.get("type") == "array"
            schema = self.resolved(schema["items"]) if many else schema
            is_text = schema.get("type") == "string" and "enum" not in schema
            if name in NAMES:
                yield Reference((name,), name, many)
            elif name in REFERENCES:
                yield Reference((name,), REFERENCES[name], many)
            elif is_text and name not in NO_REFERENCES and "date" not in schema.get("format", ""):
                raise UnknownError(
                    f"{template}?{name}: say in sweep.REFERENCES what it refers to,"
                    " or in sweep.NO_REFERENCES that it names nothing"
                )

    def references(self, schema: str, steps: tuple[str, ...] = ()) -> Iterator[Reference]:
        """Return the fields of a body, at any depth, that name rows."""
        for name, given in self.schemas[schema].get("properties", {}).items():
            inner = self.resolved(given)
            many = inner.get("type") == "array"
            reference = given.get("$ref", "")
            if many:
                reference = inner["items"].get("$ref", "")
                inner = self.resolved(inner["items"])
            for option in given.get("anyOf", ()):
                reference = option.get("$ref", reference)
            here = (*steps, name)
            noun = REFERENCES.get(f"{schema}.{name}") or REFERENCES.get(name)
            if f"{schema}.{name}" in NO_REFERENCES:
                continue
            if name in NAMES | {"id"}:
                yield Reference(here, name, many)
            elif noun:
                yield Reference(here, noun, many)
            elif "properties" in inner:
                below = (*here, "[]") if many else here
                yield from self.references(reference.rpartition("/")[2], below)
            elif name not in NO_REFERENCES and (
                inner.get("format") == "uuid" or name.endswith(("_id", "_ids"))
            ):
                raise UnknownError(
                    f"{schema}.{name}: say in sweep.REFERENCES what it refers to,"
                    " or in sweep.NO_REFERENCES that it names nothing"
                )

    def batched(self) -> list[str]:
        """Return the arrays of a batch."""
        properties = self.schemas["BatchCreate"]["properties"]
        arrays = [name for name, schema in properties.items() if schema.get("type") == "array"]
        for name in arrays:
            if name not in BATCH:
                raise UnknownError(f"BatchCreate.{name}: say in sweep.BATCH which rows it writes")
        return arrays


COLLECTIONS: Final = frozenset(
    {
        "activities",
        "admin-units",
        "break-glass",
        "audit-entries",
        "campaigns",
        "clients",
        "commendations",
        "closed-periods",
        "data-subject-requests",
        "devices",
        "households",
        "indicators",
        "members",
        "reorganisations",
        "role-grants",
        "service-types",
        "statistics",
        "support-events",
        "targets",
        "teams",
        "users",
    }
)
"""Collections of which every `Spot` (or the `World`) has rows."""


async def identify(country: Country, principal_id: UUID) -> str:
    """Link somebody to an identity elsewhere, as if an issuer had been asked; returns its id."""
    identity = ids.new_id()
    async with country.superuser.connect() as connection:
        await connection.execute(
            text("""
                insert into external_identity (id, principal_id, issuer, subject_hash, created_at)
                values (:id, :person, 'https://sso.example.vn', :hash, now())
            """),
            {"id": identity, "person": principal_id, "hash": identity.bytes},
        )
    return str(identity)


@dataclass
class Spot:
    """A commune with rows of every noun; its mark is in each text of theirs.

    The first id of a noun stands, the second is deleted.
    """

    mark: str
    commune: UUID
    admin: httpx.AsyncClient
    village: str
    ids: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Collection -> system and external id of its first row."""
    leader: httpx.AsyncClient | None = None
    secret: str = ""
    numbers: Iterator[int] = field(default_factory=count)

    @classmethod
    async def found(cls, country: Country, commune: UUID, mark: str) -> Self:
        """Found a commune's rows, as its administrator."""
        admin = await country.sign_in(Role.commune_admin, at=commune)
        villages = [
            await make(
                admin,
                "admin-units",
                level="village",
                name=f"Thôn {number}",
                type="thôn",
                parent_id=str(commune),
                valid_from="2025-07-01",
            )
            for number in (1, 2)
        ]
        spot = cls(mark, commune, admin, villages[0]["id"])
        spot.ids["admin-units"] = [villages[1]["id"]]  # nothing is in it: it may be deleted
        await spot.settle(country, household=True)
        person = await country.sign_in()
        user = str(person.principal_id)
        spot.ids |= {"clients": [], "users": [user], "usernames": [f"user.{user}"]}
        spot.ids["identities"] = [await identify(country, person.principal_id)]
        spot.ids["communes"] = [str(commune)]
        return spot

    async def add_client(self) -> None:
        """Make a client (which takes its time: secrets are hashed slowly, on purpose)."""
        client = await make(self.admin, "clients", name=f"Cổng {self.mark}")
        self.ids["clients"], self.secret = [client["id"]], client["client_secret"]

    async def protect(self, country: Country) -> None:
        """Break a glass over the commune and open a data subject's request, as others would."""
        province = LAO_CAI if self.commune in {MUONG_KHUONG, BAO_THANG} else HA_NOI
        admin = await country.sign_in(Role.province_admin, at=province)
        glass = {"unit_id": str(self.commune), "reason": self.mark}
        self.ids["break-glass"] = [(await make(admin, "break-glass", **glass))["id"]]
        target = {"unit_id": str(self.commune), "document": self.mark} | TARGET
        made = [await make(admin, "targets", **target) for _ in range(2)]
        self.ids["targets"] = [row["id"] for row in made]
        hidden = f"/v1/targets/{made[1]['id']}"
        assert (await admin.delete(hidden, headers={"If-Match": "*"})).status_code == 204
        month = 1 + crc32(self.mark.encode()) % 9  # several spots lie in one commune
        closing = {"unit_id": str(self.commune), "period": f"2026-0{month}"}
        self.ids["closed-periods"] = [(await make(admin, "closed-periods", **closing))["id"]]
        officer = await country.sign_in(Role.dpo, at=self.commune)
        person = {"person": {"member_id": self.ids["members"][0]}, "kind": "access"}
        request = await make(officer, "data-subject-requests", **person, note=self.mark)
        self.ids["data-subject-requests"] = [request["id"]]

    async def next_door(self, country: Country, mark: str) -> "Spot":
        """Found another team in the same village, without a household of its own."""
        spot = Spot(mark, self.commune, self.admin, self.village)
        await spot.settle(country, household=False)
        return spot

    async def settle(self, country: Country, *, household: bool) -> None:
        """Make two rows of each noun and delete the second."""
        paths = ["teams", "members", "statistics", *(["households"] if household else [])]
        for path in paths:
            rows = [await make(self.admin, path, **self.body(path)) for _ in range(2)]
            self.ids[path] = [row["id"] for row in rows]
            ((system, value),) = rows[0]["external_ids"].items()
            self.names[path] = system, value
            if path == "teams":
                continue
            await self._delete(path)
        nation = await country.sign_in(Role.national_admin)
        made = await make(nation, "reorganisations", **_document(self, crc32(self.mark.encode())))
        self.ids["reorganisations"] = [made["id"]]
        auditor = await country.sign_in(Role.auditor, at=self.commune)
        written = await auditor.get("/v1/audit-entries", params={"row_id": self.ids["teams"]})
        self.ids["audit-entries"] = [entry["id"] for entry in written.json()["items"]]
        self.leader = await country.sign_in(member=UUID(self.ids["members"][0]))
        person = self.leader.principal_id
        other = await country.sign_in()
        self.ids["principals"] = [str(other.principal_id)]
        grants = [
            await make(
                self.admin,
                "role-grants",
                principal_id=str(principal),
                role="team_leader",
                unit_id=self.village,
                team_id=self.ids["teams"][0],
            )
            for principal in (person, *self.ids["principals"])
        ]
        self.ids["role-grants"] = [grant["id"] for grant in grants]
        await self._delete("role-grants")
        member = {"member_id": self.ids["members"][0]}
        devices = [await make(self.admin, "devices", **member) for _ in range(2)]
        self.ids["devices"] = [device["id"] for device in devices]
        await self._delete("devices")
        await self._delete("teams")
        # Whoever is in a village sees its campaigns, whatever team they are in.
        for path in (*(["campaigns"] if household else []), "activities"):
            rows = [await make(self.admin, path, **self.body(path)) for _ in range(2)]
            self.ids[path] = [row["id"] for row in rows]
            await self._delete(path)
        ((system, value),) = rows[0]["external_ids"].items()
        self.names["activities"] = system, value
        youth = await country.sign_in(Role.youth_coordinator, at=self.commune)
        given = self.body("commendations")
        self.ids["commendations"] = [(await make(youth, "commendations", **given))["id"]]
        event = await make(self.leader, "support-events", **self.body("support-events"))
        self.ids["support-events"] = [event["id"]]
        ((system, value),) = event["external_ids"].items()
        self.names["support-events"] = system, value

    async def _delete(self, path: str) -> None:
        row = f"/v1/{path}/{self.ids[path][1]}"
        response = await self.admin.delete(row, headers={"If-Match": "*"})
        assert response.status_code == 204, response.text

    def body(self, path: str) -> Json:
        """Return a new row of this spot, with its mark in every text."""
        number = next(self.numbers)
        writer = "leader" if path == "support-events" else "admin"
        system = f"so.{crc32(self.mark.encode())}.{writer}"
        texts: Json = {"external_ids": {system: f"{self.mark}-{path}-{number}"}}
        team = {"team_id": self.ids.get("teams", [""])[0]}
        stay = {**team, "role": "leader", "joined_on": "2025-07-02"}
        household = {"household_id": self.ids["households"][0]} if "households" in self.ids else {}
        bodies: dict[str, Json] = {
            "teams": {
                "name": f"Tổ {self.mark} {number}",
                "unit_id": self.village,
                "kind": "community_team",
                "founded_on": "2025-07-02",
                "decision_number": self.mark,
                "zalo_group_url": f"https://zalo.me/{self.mark}",
            },
            "members": {
                "full_name": f"Giàng {self.mark} {number}",
                "phone": "+84912345678",
                "birth_year": 2000,
                "occupation": self.mark,
                "memberships": [stay],
            },
            "households": {
                "head_name": f"Chủ hộ {self.mark} {number}",
                "unit_id": self.village,
                "address": self.mark,
                "business_name": self.mark,
            },
            "statistics": {
                "indicator": "households.total",
                "unit_id": self.village,
                "as_of": "2025-08-01",
                "value": 100 + number,
                "attribution": "youth_union",
                "source": self.mark,
            },
            "support-events": {
                **team,
                **household,
                "member_ids": self.ids.get("members", [""])[:1],
                "service_type": "ID.ACTIVATE",
                "occurred_at": "2025-08-01T09:00:00+07:00",
                "outcome": "completed",
                "mode": "assisted",
                "channel": "household_visit",
                "note": self.mark,
            },
            "campaigns": {
                "name": f"Đợt {self.mark} {number}",
                "unit_id": self.village,
                "starts_on": "2025-08-01",
                "ends_on": "2025-08-31",
            },
            "activities": {
                **team,
                "kind": "training",
                "title": f"Lớp {self.mark} {number}",
                "organiser": "team",
                "host_unit_id": self.village,
                "held_on": "2025-08-03",
                "attendee_ids": self.ids.get("members", [""])[:1],
                "campaign_id": self.ids.get("campaigns", [None])[0],
            },
        }
        bodies["commendations"] = {
            **team,
            "recipient_kind": "individual",
            "recipient_name": f"Giàng {self.mark}",
            "member_id": self.ids.get("members", [""])[0],
            "unit_id": self.village,
            "reason": self.mark,
        }
        return bodies[path] | ({} if path in {"campaigns", "commendations"} else texts)

    async def grow(self) -> None:
        """Make one more of everything."""
        for path in ("teams", "members", "households", "campaigns", "activities", "statistics"):
            if path in self.ids:
                await make(self.admin, path, **self.body(path))
        assert self.leader
        await make(self.leader, "support-events", **self.body("support-events"))
        await make(self.admin, "devices", member_id=self.ids["members"][0])
        await make(
            self.admin,
            "role-grants",
            principal_id=self.ids["principals"][0],
            role="team_member",
            unit_id=self.village,
            team_id=self.ids["teams"][0],
        )

    @property
    def secrets(self) -> list[str]:
        """What no answer to a stranger may contain."""
        return [
            self.mark,
            *(i for noun, rows in self.ids.items() if noun not in OPEN for i in rows),
        ]


@dataclass
class World:
    """Two communes and a team next door in one province, a commune of another; and a caller."""

    app: FastAPI
    role: Role
    caller: httpx.AsyncClient
    own: Spot
    foreign: list[Spot]
    ids: dict[str, str]
    """Collection -> an own row's id."""
    far_service: str
    refresh_token: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @classmethod
    async def found(cls, country: Country, role: Role) -> Self:
        """Found everything, and sign the caller in at the proper place of its role."""
        own = await Spot.found(country, MUONG_KHUONG, "NHÀMÌNH")
        door = await own.next_door(country, "BÍMẬTCẠNHNHÀ")
        near = await Spot.found(country, BAO_THANG, "BÍMẬTXÃBÊN")
        far = await Spot.found(country, HOAN_KIEM, "BÍMẬTTỈNHKHÁC")
        at: UUID = own.commune
        team: UUID | None = None
        foreign = [near, far]
        if role is Role.national_admin:
            at, foreign = NATION, []
        elif role is Role.province_admin:
            at, foreign = LAO_CAI, [far]
        elif role in TEAM_ROLES:
            at, team, foreign = UUID(own.village), UUID(own.ids["teams"][0]), [door, near, far]
        if Permission.principals_write in MATRIX[role]:
            for spot in (own, *foreign[:1]):
                await spot.add_client()
        member = UUID(own.ids["members"][0])
        caller = await country.sign_in(role, at=at, team=team, member=member)
        own.ids["identities"] = [await identify(country, caller.principal_id)]
        caller.headers["X-Request-Id"] = "sweep"
        country.app.state.streams.closing.set()  # a stream has one event, and ends
        world = cls(country.app, role, caller, own, foreign, {}, "")
        for spot in (own, *foreign):
            await spot.protect(country)
        await world._fill(country, near)
        return world

    async def _fill(self, country: Country, near: Spot) -> None:
        """Make what is not of one commune, and what only the caller can own."""
        self.ids = {noun: (rows or [ABSENT])[0] for noun, rows in self.own.ids.items()}
        services = []
        for name, province in (("CUATOI", LAO_CAI), ("CUAHO", HA_NOI)):
            admin = await country.sign_in(Role.province_admin, at=province)
            child = {"code": f"ID.ACTIVATE.{name}", "parent_code": "ID.ACTIVATE"}
            made = await make(admin, "service-types", **child, name_vi="Con", name_en="Child")
            services.append(made["id"])
            if province == LAO_CAI:  # somebody who is in a foreign team too
                stays = [
                    {"team_id": spot.ids["teams"][0], "joined_on": "2025-07-03"}
                    for spot in (self.own, near)
                ]
                await make(admin, "members", full_name="Người hai xã", memberships=stays)
        await self._record_events(country)
        nation = await country.sign_in(Role.national_admin)
        names = {"name_vi": "Số", "name_en": "Number", "unit_of_count": "number"}
        indicator = await make(nation, "indicators", code="declared.own", **names)
        self.far_service = services[1]
        if self.role is SIGNING_IN:
            await make(nation, "users", **_sign_in(self), full_name="Người dùng")
            signed_in = await make(nation, "sessions", **_sign_in(self))
            self.refresh_token = signed_in.get("refresh_token", "")
        self.ids |= {"service-types": services[0], "indicators": indicator["id"]}
        if Permission.principals_write in MATRIX[self.role]:
            client = await make(self.caller, "clients", name="Cổng của tôi")
            self.ids["clients"] = client["id"]
            user = {"username": "user.of.mine", "password": PASSWORD, "full_name": "Tôi"}
            self.ids["users"] = (await make(self.caller, "users", **user))["id"]
        if Permission.glass_break in MATRIX[self.role]:
            glass = _glass(self) | {"reason": "Xác minh lần đầu"}
            glass = await make(self.caller, "break-glass", **glass)
            self.ids["break-glass"] = glass["id"]
        if self.role is Role.national_admin:  # who sets the nation's only
            made = await make(self.caller, "targets", **_target(self) | {"value": 7})
            self.ids["targets"] = made["id"]
        if self.role is Role.partner:  # who reads and writes only its own
            made = await make(self.caller, "statistics", **_statistic(self) | {"value": 7})
            self.ids["statistics"] = made["id"]
        if self.role is Role.national_admin:
            grant = await make(self.caller, "role-grants", **_grant(self), valid_to="2200-01-01")
            self.ids["role-grants"] = grant["id"]

    async def _record_events(self, country: Country) -> None:
        """Record events of the own team that somebody else may decide on, one for each verb."""
        portal = await country.sign_in(Role.portal_client, at=self.own.commune)
        for noun in OWN_ROWS.values():
            event = _event(self)
            if noun != "events to void":  # a plain member takes back what it took part in
                event["member_ids"] = []
            self.ids[noun] = (await make(portal, "support-events", **event))["id"]
        url = f"/v1/support-events/{self.ids['events to reopen']}:verify"
        verified = await self.own.admin.post(url, json={})
        assert verified.status_code == 200, verified.text

    def foreign_ids(self, noun: str) -> list[str]:
        """Return ids of rows that the caller cannot see, deleted ones among them."""
        if noun == "service-types":
            return [self.far_service] if self.role is not Role.national_admin else []
        return [row for spot in self.foreign for row in spot.ids.get(noun, ())]

    def fresh(self) -> int:
        """Return a number that was not used before."""
        return next(self.numbers)

    @property
    def secrets(self) -> list[str]:
        """What no answer to the caller may contain."""
        return [secret for spot in self.foreign for secret in spot.secrets]


def _document(spot: Spot, number: int) -> Json:
    village = {"level": "village", "name": f"Thôn số {number}", "type": "thôn"}
    return {
        "effective_on": "2026-03-01",
        "document": {"number": f"{number}/NQ", "issued_on": "2026-01-01", "issuer": "HĐND"},
        "changes": [{"kind": "create", "unit": village | {"parent_id": str(spot.commune)}}],
    }


def _reorganisation(world: World) -> Json:
    return _document(world.own, world.fresh())


def _village(world: World) -> Json:
    return {
        "level": "village",
        "name": "Thôn mới",
        "type": "thôn",
        "parent_id": str(world.own.commune),
        "valid_from": "2025-07-01",
    }


def _team(world: World) -> Json:
    return {
        "name": "Tổ mới",
        "unit_id": world.own.village,
        "kind": "community_team",
        "founded_on": "2025-07-02",
    }


def _member(world: World) -> Json:
    stay = {"team_id": world.ids["teams"], "joined_on": "2025-07-04"}
    return {"full_name": "Người mới", "memberships": [stay]}


def _household(world: World) -> Json:
    return {"head_name": "Chủ hộ mới", "unit_id": world.own.village}


def _event(world: World) -> Json:
    return {
        "team_id": world.ids["teams"],
        "member_ids": [world.ids["members"]],
        "service_type": "ID.ACTIVATE",
        "occurred_at": "2025-08-02T09:00:00+07:00",
        "outcome": "completed",
        "mode": "assisted",
        "channel": "market",
    }


def _campaign(world: World) -> Json:
    days = {"starts_on": "2025-08-01", "ends_on": "2025-08-31"}
    return {"name": "Đợt mới", "unit_id": world.own.village, **days}


def _activity(world: World) -> Json:
    return {
        "kind": "training",
        "title": "Lớp mới",
        "organiser": "team",
        "host_unit_id": world.own.village,
        "team_id": world.ids["teams"],
        "held_on": "2025-08-04",
        "attendee_ids": [world.ids["members"]],
    }


def _commendation(world: World) -> Json:
    named = {"recipient_kind": "individual", "recipient_name": "Người mới"}
    return named | {"member_id": world.ids["members"], "unit_id": world.own.village}


def _statistic(world: World) -> Json:
    unit = {"unit_id": world.own.village, "indicator": "households.total"}
    return unit | {"as_of": "2025-09-01", "value": 120, "attribution": "youth_union"}


TARGET: Final = {
    "indicator": "events.count",
    "period": "2025",
    "value": 100,
    "owner": "youth_union",
}


def _target(world: World) -> Json:
    nation = world.role is Role.national_admin
    return TARGET | {"unit_id": str(NATION if nation else world.own.commune), "value": 50}


def _allocation(world: World) -> Json:
    return {"allocations": [{"unit_id": world.own.village, "value": 5}]}


def _grant(world: World) -> Json:
    body = {"principal_id": world.ids["principals"]}
    if world.role is Role.national_admin:
        return body | {"role": "ioc_reader", "unit_id": str(world.own.commune)}
    team = {"team_id": world.ids["teams"], "unit_id": world.own.village}
    return body | team | {"role": "team_member"}


def _glass(world: World) -> Json:
    return {"unit_id": str(world.own.commune), "reason": "Xác minh"}


def _closing(world: World) -> Json:
    """Close a month of the commune before: it always stood, so there are months enough."""
    month = world.fresh()
    period = f"{1901 + month // 12}-{month % 12 + 1:02}"
    return {"unit_id": str(OLD_MUONG_KHUONG), "period": period}


def _request(world: World) -> Json:
    return {"person": {"member_id": world.ids["members"]}, "kind": "access"}


def _user(world: World) -> Json:
    name = f"user.number.{world.fresh()}"
    return {"username": name, "password": PASSWORD, "full_name": "Người dùng mới"}


def _service(world: World) -> Json:
    code = f"ID.ACTIVATE.N{world.fresh()}"
    return {"code": code, "parent_code": "ID.ACTIVATE", "name_vi": "Mới", "name_en": "New"}


def _indicator(world: World) -> Json:
    code = f"declared.n{world.fresh()}"
    return {"code": code, "name_vi": "Mới", "name_en": "New", "unit_of_count": "number"}


def _sign_in(_world: World) -> Json:
    return {"username": "user.of.ours", "password": OTHER_PASSWORD}


def _token(world: World) -> Json:
    return {
        "grant_type": "client_credentials",
        "client_id": world.own.ids["clients"][0],
        "client_secret": world.own.secret,
    }


KEY: Final = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}
"""The public key of RFC 7517, appendix A.1."""

BODIES: Final[dict[str, Callable[[World], Json]]] = {
    "ActivityCreate": _activity,
    "ActivityPut": _activity,
    "ActivityUpdate": lambda _: {"title": "Lớp đổi tên"},
    "AdminUnitCreate": _village,
    "AdminUnitUpdate": lambda _: {"name": "Thôn đổi tên"},
    "BatchCreate": lambda _: {"dry_run": True},
    "Body_create_access_token": _token,
    "BreakGlassCreate": _glass,
    "CampaignCreate": _campaign,
    "CampaignUpdate": lambda _: {"name": "Đợt đổi tên"},
    "ClientCreate": lambda _: {"name": "Cổng mới"},
    "CommendationCreate": _commendation,
    "CommendationUpdate": lambda _: {"document": "1/QĐ"},
    "ClosedPeriodCreate": _closing,
    "DataSubjectRequestCreate": _request,
    "DataSubjectRequestFulfil": lambda _: {"reason": "Đã trả lời"},
    "EventDecision": lambda _: {"reason": "Ghi nhầm"},
    "EventVerify": lambda _: {"reason": "Đã kiểm tra"},
    "DeviceCreate": lambda world: {"member_id": world.ids["members"]},
    "HouseholdCreate": _household,
    "HouseholdPut": _household,
    "HouseholdUpdate": lambda _: {"head_name": "Chủ hộ đổi tên"},
    "IdTokenGiven": lambda _: {"id_token": "made.by.nobody"},
    "IndicatorCreate": _indicator,
    "IndicatorUpdate": lambda _: {"name_vi": "Đổi tên"},
    "MemberCreate": _member,
    "MemberPut": _member,
    "MemberUpdate": lambda _: {"occupation": "thợ rèn"},
    "MembershipPut": lambda _: {"joined_on": "2025-07-05"},
    "OtpGiven": lambda _: {"otp": "000000"},
    "PublicKeys": lambda _: {"keys": [KEY]},
    "PasswordChange": lambda _: {"current_password": PASSWORD, "new_password": OTHER_PASSWORD},
    "ReorganisationCreate": _reorganisation,
    "ReorganisationRevert": lambda _: {"reason": "Nhầm"},
    "RoleGrantCreate": _grant,
    "ServiceTypeCreate": _service,
    "ServiceTypeUpdate": lambda _: {"name_vi": "Đổi tên"},
    "SessionCreate": _sign_in,
    "SessionRefresh": lambda world: {"refresh_token": world.refresh_token},
    "StatisticCreate": _statistic,
    "StatisticPut": _statistic,
    "StatisticUpdate": lambda _: {"value": 121},
    "SupportEventCreate": _event,
    "SupportEventPut": _event,
    "SupportEventUpdate": lambda _: {"quantity": 2},
    "TargetAllocate": _allocation,
    "TargetCreate": _target,
    "TargetUpdate": lambda _: {"value": 51},
    "TeamCreate": _team,
    "TeamPut": _team,
    "TeamUpdate": lambda _: {"zalo_group_url": "https://zalo.me/moi"},
    "UserCreate": _user,
}
"""Schema of a body -> a body that an own row takes."""


def with_value(body: Json, reference: Reference, value: Any) -> Json:
    """Return the body with one reference replaced."""
    changed = copy.deepcopy(body)
    here: Any = changed
    for step, inner in zip(reference.steps[:-1], reference.steps[1:], strict=True):
        here = here[0] if step == "[]" else here.setdefault(step, [{}] if inner == "[]" else {})
    here[reference.name] = [value] if reference.many else value
    return changed


class Pair(NamedTuple):
    """The same place in a request, filled with what is foreign and with what is absent."""

    foreign: Any
    absent: Any


@dataclass
class Sweep:
    """One role's way through every operation; what is wrong gathers in `faults`."""

    world: World
    document: Document
    faults: list[str] = field(default_factory=list)
    requests: int = 0
    _refusals: dict[str, httpx.Response] = field(default_factory=dict)

    async def send(
        self,
        operation: Operation,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        body: Json | None = None,
        if_match: str | None = "*",
        echoed: Sequence[str] = (),
    ) -> httpx.Response:
        """Send an operation's request, own but for what is given, and look for secrets."""
        url = operation.template
        for name in operation.path:
            value = (path or {}).get(name) or self.own_path(operation, name)
            url = url.replace(f"{{{name}}}", quote(value, safe=""))
        headers = {"If-Match": if_match} if operation.is_conditional and if_match else {}
        given: dict[str, Any] = {}
        if operation.schema:
            sent = BODIES[operation.schema](self.world) if body is None else body
            given = {"data": sent} if operation.is_form else {"json": sent}
        if operation.is_form:  # a client is known by its secret, not by a token
            headers["Authorization"] = ""
        params = NEEDED.get(operation.name, {}) | dict(query or {})
        self.requests += 1
        response = await self.world.caller.request(
            operation.method, url, params=params, headers=headers, **given
        )
        response.headers.pop("ratelimit", None)  # counts every request, whatever it asks
        self._scan(operation, response, echoed)
        return response

    def own_path(self, operation: Operation, name: str) -> str:
        """Return an own id for a path parameter."""
        if name == "system":
            return f"cua.{self.world.role}"
        if name == "external_id":
            return f"{operation.collection}-{self.world.fresh()}"
        return self.world.ids[OWN_ROWS.get(operation.name, PARAMETERS[name])]

    def _scan(self, operation: Operation, response: httpx.Response, echoed: Sequence[str]) -> None:
        shown = response.text + json.dumps(dict(response.headers), ensure_ascii=False)
        for secret in self.world.secrets:
            if secret in shown and secret not in echoed:
                self.fault(operation, f"shows {secret}", response)
        if response.status_code >= 500:
            self.fault(operation, "is a fault of ours", response)

    def fault(self, operation: Operation, what: str, *responses: httpx.Response) -> None:
        """Keep what is wrong, with the requests and the answers."""
        told = [
            f"    {r.request.method} {r.request.url} {r.request.content[:600].decode()}"
            f"\n      -> {r.status_code} {r.text[:600]}"
            for r in responses
        ]
        self.faults.append("\n".join([f"{self.world.role} {operation.name}: {what}", *told]))

    def is_allowed(self, operation: Operation) -> bool:
        """Tell whether the role may ask for the operation at all."""
        wanted = operation.permission
        return wanted in {None, Permission.open} or wanted in MATRIX[self.world.role]

    def same(
        self, operation: Operation, what: str, one: httpx.Response, other: httpx.Response
    ) -> None:
        """Two answers must be the same bytes."""
        if (one.status_code, one.headers, one.content) != (
            other.status_code,
            other.headers,
            other.content,
        ):
            self.fault(operation, f"tells foreign from absent by {what}", one, other)

    async def refusal(self, operation: Operation) -> httpx.Response:
        """Return the answer to an own request of a caller without the permission."""
        if operation.name not in self._refusals:
            self._refusals[operation.name] = await self.send(operation)
        return self._refusals[operation.name]

    def refused(self, operation: Operation, what: str, response: httpx.Response) -> None:
        """A caller without the permission is told so, whatever it names."""
        if response.status_code != 403 or response.json()["code"] != "insufficient_role":
            self.fault(operation, f"is not refused for its role, {what}", response)

    async def run(self, only: str | None = None) -> None:
        """Name foreign and absent rows in every place of every operation, then own ones.

        `only` keeps to one collection. Who is not signed in has no role: once is enough.
        """
        found = [o for o in self.document.operations if only in {None, o.collection}]
        if self.world.role is not SIGNING_IN:
            found = [o for o in found if o.permission is not None]
        for operation in found:
            if operation.schema == "BatchCreate":
                await self.batch(operation)
                continue
            for name in operation.path:
                await self.by_path(operation, name)
            for reference in operation.query:
                await self.by_query(operation, reference)
            for reference in operation.body:
                await self.by_body(operation, reference)
        order = ["GET", "POST", "PATCH", "PUT", "DELETE"]
        for operation in sorted(found, key=lambda o: (order.index(o.method), -len(o.path))):
            if operation.name not in NOT_AS_OWN:
                await self.as_own(operation)

    async def as_own(self, operation: Operation) -> None:
        """Whoever has the permission is let in: what was refused above was not refused in vain."""
        response = await self.send(operation)
        if not self.is_allowed(operation):
            self.refused(operation, "on an own row", response)
        elif response.status_code >= 300:
            self.fault(operation, "refuses what is the caller's own", response)

    def pairs(self, operation: Operation, noun: str) -> list[Pair]:
        """Return what is foreign beside what is absent, for one place in a request.

        Whoever lacks the permission is refused before anything is looked for: one is enough.
        """
        pairs = self._pairs(operation, noun)
        return pairs if self.is_allowed(operation) else pairs[:1]

    def _pairs(self, operation: Operation, noun: str) -> list[Pair]:
        if noun == "q":
            return [Pair(spot.mark, NOTHING) for spot in self.world.foreign]
        if noun in NAMES:
            named = [spot.names.get(operation.collection) for spot in self.world.foreign]
            pairs = [(name, (name[0], NOTHING)) for name in named if name]
            if noun == "external_ids":
                return [Pair(*({s: v} for s, v in pair)) for pair in pairs]
            return [Pair(*(f"{s}:{v}" for s, v in pair)) for pair in pairs]
        absent = "nobody.at.all" if noun == "usernames" else ABSENT
        found = [Pair(row, absent) for row in self.world.foreign_ids(noun)]
        return found or [Pair(absent, absent)]

    async def by_path(self, operation: Operation, name: str) -> None:
        """Name a foreign and an absent row in the path."""
        if "by-external-id" in operation.template:
            await self._by_external_id(operation, name)
            return
        allowed = self.is_allowed(operation)
        versions = ["*", '"999"', None] if operation.is_conditional and allowed else ["*"]
        for version in versions:
            nowhere = await self.send(operation, path={name: ABSENT}, if_match=version)
            if allowed and version and nowhere.status_code != 404:
                self.fault(operation, f"finds an absent {{{name}}}", nowhere)
            if not allowed:
                self.same(operation, "the role", await self.refusal(operation), nowhere)
            for foreign, absent in self.pairs(operation, PARAMETERS[name]):
                if foreign == absent:
                    continue
                there = await self.send(operation, path={name: foreign}, if_match=version)
                if operation.collection in OPEN and allowed:
                    self._open(operation, there, version)
                else:
                    self.same(operation, f"{{{name}}}", there, nowhere)

    def _open(self, operation: Operation, there: httpx.Response, version: str | None) -> None:
        """What everybody reads, not everybody writes."""
        wanted = {200} if operation.method == "GET" else {403, 404}
        if operation.is_conditional and version is None:
            wanted = {428}
        if there.status_code not in wanted:
            self.fault(operation, f"of an open row elsewhere is not {wanted}", there)

    async def _by_external_id(self, operation: Operation, name: str) -> None:
        if name != "external_id":
            return
        own = None if self.is_allowed(operation) else await self.refusal(operation)
        for spot in self.world.foreign:
            if operation.collection not in spot.names:
                continue
            system, value = spot.names[operation.collection]
            there, nowhere = [
                await self.send(operation, path={"system": system, "external_id": text_})
                for text_ in (value, NOTHING)
            ]
            self.same(operation, "the external id", there, nowhere)
            if own is not None:
                self.same(operation, "the external id without the role", own, there)
            elif there.status_code != 409:
                self.fault(operation, "writes under another's external id", there)

    async def by_query(self, operation: Operation, reference: Reference) -> None:
        """Filter by a foreign and an absent row, with the total where there is one."""
        counted = {"include_total": "true"} if "include_total" in operation.parameters else {}
        own = None if self.is_allowed(operation) else await self.refusal(operation)
        for foreign, absent in self.pairs(operation, reference.noun):
            there, nowhere = [
                await self.send(operation, query=counted | {reference.name: value})
                for value in (foreign, absent)
            ]
            if own is not None:
                self.same(operation, f"?{reference.name} without the role", own, there)
            if operation.collection not in OPEN:
                self.same(operation, f"?{reference.name}", there, nowhere)

    async def by_body(self, operation: Operation, reference: Reference) -> None:
        """Refer to a foreign and to an absent row in the body."""
        assert operation.schema
        allowed = self.is_allowed(operation)
        if reference.noun == "id":
            await self._by_id(operation, reference)
            return
        if allowed and operation.is_open_to(reference):
            return
        own = None if allowed else await self.refusal(operation)
        for foreign, absent in self.pairs(operation, reference.noun):
            body = BODIES[operation.schema](self.world)
            there, nowhere = [
                await self.send(operation, body=with_value(body, reference, value))
                for value in (foreign, absent)
            ]
            self.same(operation, f"/{'/'.join(reference.steps)}", there, nowhere)
            if own is not None:
                self.same(operation, f"/{reference.name} without the role", own, there)
            elif nowhere.status_code < 400:
                self.fault(operation, f"takes an absent {reference.name}", nowhere)

    async def _by_id(self, operation: Operation, reference: Reference) -> None:
        """Create under an id that is taken: the same answer whoever owns the row."""
        assert operation.schema
        body = BODIES[operation.schema](self.world)
        rows = [self.world.ids[operation.collection], *self.world.foreign_ids(operation.collection)]
        answers = [
            await self.send(operation, body=with_value(body, reference, row)) for row in rows
        ]
        for answer in answers:
            self.same(operation, "a taken id", answers[0], answer)
        if not self.is_allowed(operation):
            self.refused(operation, "under a taken id", answers[0])
        elif (answers[0].status_code, answers[0].json()["code"]) != (409, "id_conflict"):
            self.fault(operation, "takes a taken id", answers[0])

    async def batch(self, operation: Operation) -> None:
        """Do the same to the items of a batch: two batches, alike but for what they name."""
        for resource in self.document.batched():
            pairs = list(self._items(operation, resource))
            await self._batches(operation, resource, pairs)
            noun, creation, _ = BATCH[resource]
            data = BODIES[creation](self.world)
            own = {"op": "create", "id": self.world.ids[noun], "data": data}
            taken = [Pair(own | {"id": row}, own) for row in self.world.foreign_ids(noun)]
            for pair in taken:
                await self._batches(operation, resource, [pair])
            if self.is_allowed(operation):
                await self._own_items(operation, resource)

    def _items(self, operation: Operation, resource: str) -> Iterator[Pair]:
        noun, creation, change = BATCH[resource]
        changed = BODIES[change](self.world)
        for foreign, absent in self.pairs(operation, noun):
            for version in ("*", '"999"', None):
                for op, data in (("update", changed), ("delete", {"reason": "Nhầm"})):
                    item = {"op": op, "if_match": version, "data": data}
                    yield Pair(item | {"id": foreign}, item | {"id": absent})
        for system, value in filter(None, (spot.names.get(noun) for spot in self.world.foreign)):
            item = {"op": "upsert", "data": BODIES[creation](self.world)}
            yield Pair(
                *(item | {"external_id": {"system": system, "id": n}} for n in (value, NOTHING))
            )
        for schema, op in ((creation, "create"), (change, "update")):
            for reference in self.document.references(schema):
                singular = resource.removesuffix("s")
                if reference.noun == "id" or (singular, reference.name) in OPEN_REFERENCES:
                    continue
                for pair in self._names(resource, operation, reference):
                    row = str(ids.new_id()) if op == "create" else self.world.ids[noun]
                    item = {"op": op, "id": row, "if_match": "*"}
                    body = BODIES[schema](self.world)
                    yield Pair(
                        *(item | {"data": with_value(body, reference, value)} for value in pair)
                    )

    def _names(self, resource: str, operation: Operation, reference: Reference) -> list[Pair]:
        if reference.noun not in NAMES:
            return self.pairs(operation, reference.noun)
        named = [spot.names.get(BATCH[resource][0]) for spot in self.world.foreign]
        return [Pair({name[0]: name[1]}, {name[0]: NOTHING}) for name in named if name]

    async def _batches(self, operation: Operation, resource: str, pairs: Sequence[Pair]) -> None:
        """Send the foreign items and the absent ones; each result must be like its counterpart."""
        if not pairs:
            return
        echoed = [pair.foreign["id"] for pair in pairs if "id" in pair.foreign]
        there, nowhere = [
            await self.send(operation, body={resource: list(items)}, echoed=echoed)
            for items in zip(*pairs, strict=True)
        ]
        if not self.is_allowed(operation):
            self.refused(operation, "in a batch", there)
            self.same(operation, resource, there, nowhere)
            return
        results = [answer.json()["results"] for answer in (there, nowhere)]
        for one, other, pair in zip(*results, pairs, strict=True):
            alike = (result | {"id": None} for result in (one, other))
            if len({json.dumps(result, sort_keys=True) for result in alike}) > 1:
                self.faults.append(
                    f"{self.world.role} batch of {resource}: tells foreign from absent"
                    f"\n    {pair.foreign}\n      -> {one}\n    {pair.absent}\n      -> {other}"
                )
            if one["status"] < 400:
                self.faults.append(f"{self.world.role} batch of {resource}: takes {pair}: {one}")

    async def _own_items(self, operation: Operation, resource: str) -> None:
        noun, creation, change = BATCH[resource]
        items = [
            {"op": "create", "id": str(ids.new_id()), "data": BODIES[creation](self.world)},
            {"op": "update", "id": self.world.ids[noun], "data": BODIES[change](self.world)},
        ]
        body = {resource: [item | {"if_match": "*"} for item in items], "dry_run": True}
        response = await self.send(operation, body=body)
        writes = {
            found.name: self.is_allowed(found)
            for found in self.document.operations
            if found.collection == noun and found.schema in {creation, change}
        }
        for result, allowed in zip(response.json()["results"], writes.values(), strict=True):
            if (result["status"] < 300) != allowed or (not allowed and result["status"] != 403):
                self.fault(operation, f"of {resource} does not follow {writes}", response)

    async def views(self) -> dict[str, tuple[int, Json, str]]:
        """Return everything that the caller can read, as it is shown."""
        seen: dict[str, tuple[int, Json, str]] = {}
        for operation in self.document.operations:
            if operation.method != "GET" or operation.permission is None:
                continue
            for query in await self._queries(operation):
                response = await self.send(operation, query=query)
                stable = re.sub(r'"(computed|generated)_at":"[^"]*"', "", response.text)
                headers = {k: v for k, v in response.headers.items() if k != "content-length"}
                seen[f"{operation.name} {query}"] = response.status_code, headers, stable
                if response.status_code == 200:
                    self._check_page(operation, response, query)
        return seen

    async def _queries(self, operation: Operation) -> list[Json]:
        if operation.collection == "observations":
            return await self._observations()
        if "include_total" not in operation.parameters:
            return [{}]
        if operation.name == "list_audit_entries":  # which also tells of each look of one's own
            return [
                {"limit": limit, "include_total": "true", "action": "create"} for limit in (1, 200)
            ]
        return [
            *({"limit": limit, "include_total": "true"} for limit in (1, 200)),
            *({"limit": 1, "sort": sort} for sort in operation.sorts),
        ]

    async def _observations(self) -> list[Json]:
        listed = await self.world.caller.get("/v1/indicators", params={"limit": 200})
        codes = [indicator["code"] for indicator in listed.json()["items"]]
        queries: list[Json] = []
        for start in range(0, len(codes), 20):
            some = {"indicator": codes[start : start + 20], "period": "2025"}
            queries += [
                some,
                some | {"unit_id": str(self.world.own.commune), "level": "village"},
                some | {"boundary": "as_recorded", "every": "quarter", "format": "csv"},
                some | {"by": "kind"},
            ]
        return queries

    def _check_page(self, operation: Operation, response: httpx.Response, query: Json) -> None:
        """A total counts what is shown; a cursor carries nothing foreign."""
        if "include_total" not in query or operation.collection in OPEN:
            return
        page = response.json()
        if query["limit"] > 1 and page["total"] != len(page["items"]):
            self.fault(operation, "counts more than it shows", response)
        if page["next_cursor"]:
            cursors = self.world.app.state.cursors._serializer
            carried = json.dumps(cursors.loads(page["next_cursor"]), ensure_ascii=False)
            if any(secret in carried for secret in self.world.secrets):
                self.fault(operation, f"hides a secret in its cursor: {carried}", response)

    async def unmoved(self) -> None:
        """What happens elsewhere changes no answer: no count, no total, no ETag, no cursor."""
        before = await self.views()
        for spot in self.world.foreign:
            await spot.grow()
        after = await self.views()
        self.faults += [
            f"{self.world.role} {name}: tells what happens elsewhere:"
            f"\n    {before[name]}\n    {after[name]}"
            for name in before
            if before[name] != after[name]
        ]

    async def by_cursor(self) -> None:
        """Another caller's cursor opens nothing: the answer has own rows only, or is a refusal."""
        for operation in self.document.operations:
            if "cursor" not in operation.parameters or operation.collection in OPEN:
                continue
            for spot in self.world.foreign:
                url = operation.template
                theirs = await spot.admin.get(url, params={"limit": 1})
                cursor = theirs.json().get("next_cursor")
                if not cursor:
                    continue
                query = {"cursor": cursor, "include_total": "true"}
                answer = await self.send(operation, query=query)
                if not self.is_allowed(operation):
                    self.refused(operation, "with a cursor", answer)
                elif answer.status_code == 200:
                    own = await self.send(operation, query={"include_total": "true"})
                    if answer.json()["total"] != own.json()["total"]:
                        self.fault(operation, "counts by a cursor", answer, own)


async def foreign_rows(superuser: AsyncEngine, world: World) -> dict[str, Any]:
    """Return a checksum, by table, of every row that mentions anything foreign.

    A row written under a foreign unit, team or person mentions it too.
    """
    tokens = [
        *world.secrets,
        *world.foreign_ids("admin-units"),
        *world.foreign_ids("service-types"),
    ]
    tokens += [spot.village for spot in world.foreign if spot.village != world.own.village]
    sums = {}
    async with superuser.connect() as connection:
        tables = "select tablename from pg_tables where schemaname = 'public'"
        for table in sorted(set(await connection.scalars(text(tables))) - TREE):
            rows = text(f"""
                select count(*), md5(string_agg(t::text, '|' order by t::text)) from {table} t
                where t::text ~ :tokens
            """)
            found = await connection.execute(rows, {"tokens": "|".join(tokens) or "^$"})
            sums[table] = tuple(found.one())
    return sums
