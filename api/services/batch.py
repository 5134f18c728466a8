"""Batches: items fail alone, and sending again gives the same state.

Teams, members and households are written one by one, each under a savepoint; new events go in as
one set (`event_intake`). Items run in the order of what they refer to.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.errors import (
    Deferred,
    FieldError,
    InsufficientRole,
    MethodNotAllowed,
    PreconditionFailed,
    PreconditionRequired,
    Refusal,
    ValidationFailed,
)
from api.models.batch import (
    BatchCreate,
    BatchItem,
    BatchOutcome,
    BatchRead,
    BatchResult,
    FieldConflict,
    Operation,
)
from api.models.households import HouseholdCreate, HouseholdUpdate
from api.models.members import MemberCreate, MemberUpdate
from api.models.support_events import SupportEventCreate, SupportEventUpdate
from api.models.teams import TeamCreate, TeamUpdate
from api.models.types import Creation, Input, Output
from api.problems import body_of, from_database, from_validation
from api.services import households, members, support_events, teams
from api.services.writing import ANY_VERSION

ORDER_SENT = ("households", "members", "teams", "support_events")
ORDER_DONE = ("teams", "members", "households", "support_events")


@dataclass(frozen=True)
class Noun:
    """How the items of one resource are written."""

    permission: Permission
    creation: type[Creation]
    change: type[Input]
    create: Callable[..., Awaitable[tuple[Output, bool]]]
    update: Callable[..., Awaitable[Output]]
    delete: Callable[..., Awaitable[None]] | None


NOUNS = {
    "teams": Noun(
        Permission.team_link_write,
        TeamCreate,
        TeamUpdate,
        teams.create_team,
        teams.update_team,
        teams.delete_team,
    ),
    "members": Noun(
        Permission.members_write,
        MemberCreate,
        MemberUpdate,
        members.create_member,
        members.update_member,
        members.delete_member,
    ),
    "households": Noun(
        Permission.households_write,
        HouseholdCreate,
        HouseholdUpdate,
        households.create_household,
        households.update_household,
        households.delete_household,
    ),
    "support_events": Noun(
        Permission.events_write,
        SupportEventCreate,
        SupportEventUpdate,
        support_events.create_support_event,
        support_events.update_support_event,
        None,
    ),
}

type Key = tuple[str, int]
type Done = tuple[BatchOutcome, int | None] | Refusal


class Batch:
    """One batch on its way through: what was done, and which ids failed."""

    def __init__(self, session: AsyncSession, caller: Caller, sent: BatchCreate) -> None:
        """Start with nothing done."""
        self.session, self.caller, self.sent = session, caller, sent
        self.done: dict[Key, Done] = {}
        self.failed: set[UUID] = set()

    def settle(self, key: Key, item: BatchItem, outcome: Done) -> None:
        """Keep an item's outcome."""
        self.done[key] = outcome
        if isinstance(outcome, Refusal):
            self.failed.add(item.id)

    async def run(self) -> None:
        """Do every item, in the order of what they refer to."""
        for resource in ORDER_DONE:
            events: list[tuple[Key, BatchItem, SupportEventCreate]] = []
            for index, item in enumerate(getattr(self.sent, resource)):
                key = (resource, index)
                try:
                    body = self._read(resource, item)
                    if isinstance(body, SupportEventCreate):
                        events.append((key, item, body))
                        continue
                    async with self.session.begin_nested():
                        outcome = await self._write(NOUNS[resource], item, body)
                except Refusal as refusal:
                    outcome = refusal
                except DBAPIError as failure:
                    outcome = from_database(failure)
                self.settle(key, item, outcome)
            if events:
                await self._insert(events)

    def _read(self, resource: str, item: BatchItem) -> Input | None:
        """Validate an item; refuse one whose references failed in this batch."""
        noun = NOUNS[resource]
        if not self.caller.has(noun.permission):
            raise InsufficientRole
        if self.failed & _references(item.data):
            raise Deferred
        if item.op is Operation.delete:
            return None
        creates = item.op is Operation.create
        try:
            if creates:
                return noun.creation.model_validate({**item.data, "id": item.id})
            return noun.change.model_validate(item.data)
        except ValidationError as error:
            located = [{**e, "loc": ("body", *e["loc"])} for e in error.errors()]
            raise from_validation(located) from error

    async def _insert(self, events: list[tuple[Key, BatchItem, SupportEventCreate]]) -> None:
        """Insert the new events as one set."""
        bodies = [body for _, _, body in events]
        outcomes = await support_events.create_events(self.session, self.caller, bodies)
        for (key, item, _), outcome in zip(events, outcomes, strict=True):
            self.settle(key, item, outcome if isinstance(outcome, Refusal) else _made(*outcome))

    async def _write(self, noun: Noun, item: BatchItem, body: Input | None) -> Done:
        """Create, change or delete one row."""
        if isinstance(body, Creation):
            return _made(*await noun.create(self.session, self.caller, body))
        expected = _version(item.if_match)
        if body is None:
            if noun.delete is None:
                raise MethodNotAllowed
            await noun.delete(self.session, self.caller, item.id, expected)
            return BatchOutcome.deleted, None
        resource = await noun.update(self.session, self.caller, item.id, expected, body)
        same = resource.version == expected
        return BatchOutcome.unchanged if same else BatchOutcome.updated, resource.version


def _made(resource: Output, is_new: bool) -> tuple[BatchOutcome, int]:
    return (BatchOutcome.created if is_new else BatchOutcome.unchanged), resource.version


def _references(data: dict[str, Any]) -> set[UUID]:
    """Return the ids that an item's body refers to, as far as they can be read."""
    found = [data.get("team_id"), data.get("household_id")]
    for name in ("member_ids", "memberships"):
        values = data.get(name)
        found += values if isinstance(values, list) else ()
    found = [value.get("team_id") if isinstance(value, dict) else value for value in found]
    ids = set()
    for value in found:
        try:
            ids.add(UUID(str(value)))
        except ValueError:
            continue
    return ids


def _version(if_match: str | None) -> int:
    if if_match is None:
        raise PreconditionRequired
    if if_match == "*":
        return ANY_VERSION
    match = re.fullmatch(r'"([0-9]{1,9})"', if_match)
    if match is None:
        raise ValidationFailed(FieldError("/if_match", "version_invalid"))
    return int(match[1])


def _conflicts(item: BatchItem, current: Output) -> list[FieldConflict]:
    """Return the sent fields that differ from the present row."""
    now = current.model_dump(mode="json")
    return [
        FieldConflict(pointer=f"/{name}", yours=value, current=now.get(name))
        for name, value in item.data.items()
        if now.get(name) != value
    ]


async def run_batch(
    session: AsyncSession, caller: Caller, sent: BatchCreate, language: str, request_id: str | None
) -> BatchRead:
    """Do a batch; the answers come in the order sent, households first.

    `atomic` writes all or nothing, `dry_run` answers as if and writes nothing.
    """
    batch = Batch(session, caller, sent)
    async with session.begin_nested() as savepoint:
        await batch.run()
        broken = sent.atomic and any(isinstance(done, Refusal) for done in batch.done.values())
        if broken or sent.dry_run:
            await savepoint.rollback()
    if broken:
        for key, done in batch.done.items():
            if not isinstance(done, Refusal):
                batch.done[key] = Deferred()
    results = []
    for resource in ORDER_SENT:
        for index, item in enumerate(getattr(sent, resource)):
            done = batch.done[resource, index]
            results.append(_result(resource, index, item, done, language, request_id))
    return BatchRead(results=results)


def _result(
    resource: str, index: int, item: BatchItem, done: Done, language: str, request_id: str | None
) -> BatchResult:
    if not isinstance(done, Refusal):
        outcome, version = done
        return BatchResult(
            resource=resource,
            index=index,
            id=item.id,
            status=201 if outcome is BatchOutcome.created else 200,
            outcome=outcome,
            etag=f'"{version}"' if version is not None else None,
        )
    outcome, status = BatchOutcome.rejected, done.status
    conflicts: list[FieldConflict] = []
    if isinstance(done, Deferred):
        outcome = BatchOutcome.deferred
    if isinstance(done, PreconditionFailed):
        outcome, status = BatchOutcome.conflict, 409
        conflicts = _conflicts(item, done.members["current"])
    return BatchResult(
        resource=resource,
        index=index,
        id=item.id,
        status=status,
        outcome=outcome,
        etag=done.headers.get("ETag"),
        problem=body_of(done, language, request_id),
        conflicts=conflicts,
    )
