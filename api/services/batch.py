"""Batches: items fail alone, and sending again gives the same state.

Teams, members and households are written one by one, each under a savepoint; new events go in as
one set (`event_intake`). Items run in the order of what they refer to.
"""

from collections.abc import Sequence
from typing import cast
from uuid import UUID

from asyncpg import PostgresError
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from api.auth.caller import Caller, enter
from api.auth.permissions import Permission
from api.db import transaction
from api.driver import Connection, Hot, connection_of
from api.errors import (
    Deferred,
    FieldError,
    InsufficientRole,
    PreconditionFailed,
    Refusal,
    Unavailable,
    ValidationFailed,
)
from api.models.batch import (
    BatchCreate,
    BatchItem,
    BatchOutcome,
    BatchRead,
    BatchResult,
    FieldConflict,
    NewEventItem,
    Operation,
)
from api.models.support_events import SupportEventCreate
from api.models.types import Input
from api.problems import body_of, from_database, from_validation, sqlstate_of
from api.services import event_intake
from api.services.batch_items import references
from api.services.batch_nouns import NOUNS
from api.services.batch_writing import Written, made, write

ORDER_SENT = ("households", "members", "teams", "support_events", "activities")
ORDER_DONE = ("teams", "members", "households", "support_events", "activities")


type Key = tuple[str, int]
type Done = Written | Refusal
type Item = BatchItem | NewEventItem
CIRCLES = {"40001", "40P01"}
"""The database's words for two transactions that wait for each other."""
ATTEMPTS = 3
"""Times that a batch is tried when another one and it wait for each other."""


class Batch:
    """One batch on its way through: what was done, and which ids could not be created."""

    def __init__(self, caller: Caller, sent: BatchCreate) -> None:
        """Start with nothing done."""
        self.caller, self.sent = caller, sent
        self.done: dict[Key, Done] = {}
        self.lacking: set[UUID] = set()

    @property
    def broken(self) -> bool:
        """Whether nothing of it may stay."""
        refused = any(isinstance(done, Refusal) for done in self.done.values())
        return self.sent.atomic and refused

    def settle(self, key: Key, item: Item, outcome: Done) -> None:
        """Keep an item's outcome."""
        self.done[key] = outcome
        if item.id is None:
            return
        if not isinstance(outcome, Refusal):
            if self.lacking:
                self.lacking.discard(item.id)
        elif item.op is Operation.create:
            self.lacking.add(item.id)

    async def run(self, session: AsyncSession) -> None:
        """Do every item, in the order of what they refer to.

        Those of one resource run in the order of their ids (upserts last, by theirs), so that
        batches which overlap do not wait for each other in a circle; those of one id in the order
        sent.
        """
        for resource in ORDER_DONE:
            items = list(enumerate(getattr(self.sent, resource)))
            if resource == "support_events":
                creations = [(n, item) for n, item in items if item.op is Operation.create]
                await self.record(await connection_of(session), creations)
                items = [(n, item) for n, item in items if item.op is not Operation.create]
            for index, item in sorted(items, key=lambda pair: pair[1].place):
                done = await self._do(session, resource, item)
                self.settle((resource, index), item, done)

    async def _do(self, session: AsyncSession, resource: str, item: BatchItem) -> Done:
        """Do one item under a savepoint of its own."""
        try:
            body = self._read(resource, item)
            async with session.begin_nested():
                return await write(session, self.caller, NOUNS[resource], item, body)
        except Refusal as refusal:
            return refusal
        except DBAPIError as failure:
            known = from_database(failure)
            if isinstance(known, Unavailable):
                raise
            return known

    async def record(self, database: Connection, items: Sequence[tuple[int, Item]]) -> None:
        """Insert the new events as one set."""
        bodies: dict[int, SupportEventCreate] = {}
        for index, item in items:
            try:
                body = self._read_new(item)
            except Refusal as refusal:
                self.settle(("support_events", index), item, refusal)
            else:
                bodies[index] = body
        if not bodies:
            return
        outcomes = await event_intake.insert_events(database, self.caller, list(bodies.values()))
        sent = dict(items)
        for index, outcome in zip(bodies, outcomes, strict=True):
            key = "support_events", index
            if isinstance(outcome, Refusal):
                self.settle(key, sent[index], outcome)
            else:
                row, is_new = outcome
                self.settle(key, sent[index], made(row["version"], is_new=is_new))

    def _read_new(self, item: Item) -> SupportEventCreate:
        """Validate a new event, unless it was read together with the batch."""
        if not isinstance(item, NewEventItem):
            return cast("SupportEventCreate", self._read("support_events", item))
        self._permit(NOUNS["support_events"].writing)
        if self.lacking and self.lacking & references(item.data.model_dump(mode="json")):
            raise Deferred
        if item.data.id and item.data.id != item.id:
            raise ValidationFailed(FieldError("/id", "not_as_in_item"))
        return item.body

    def _permit(self, permission: Permission) -> None:
        if not self.caller.has(permission):
            raise InsufficientRole

    def _read(self, resource: str, item: BatchItem) -> Input | None:
        """Validate an item; refuse one whose references could not be created in this batch."""
        noun = NOUNS[resource]
        needed = {Operation.update: noun.changing, Operation.delete: noun.deleting}
        self._permit(needed.get(item.op, noun.writing))
        creates = item.op is Operation.create
        own = set() if creates or item.id is None else {item.id}
        if self.lacking and self.lacking & (references(item.data) | own):
            raise Deferred
        deletes = item.op is Operation.delete
        if deletes and noun.removal is None:
            return None
        if creates and "id" in item.data and item.data["id"] != str(item.id):
            raise ValidationFailed(FieldError("/id", "not_as_in_item"))
        try:
            if creates:
                return noun.creation.model_validate({**item.data, "id": item.id})
            asked = noun.removal if deletes and noun.removal else noun.change
            if item.op is Operation.upsert:
                asked = noun.given
            return asked.model_validate(item.data)
        except ValidationError as error:
            located = [{**e, "loc": ("body", *e["loc"])} for e in error.errors()]
            raise from_validation(located) from error


async def run_batch(
    engine: AsyncEngine,
    hot: Hot,
    caller: Caller,
    sent: BatchCreate,
    language: str,
    request_id: str | None,
) -> BatchRead:
    """Do a batch; the answers come in the order sent, households first.

    `atomic` writes all or nothing, `dry_run` answers as if and writes nothing.
    """
    batch = await _run(engine, hot, caller, sent)
    for done in batch.done.values():
        if isinstance(done, PreconditionFailed) and done.record:
            await done.record(hot)  # a conflict shows the present row
    if batch.broken:
        for key, done in batch.done.items():
            if not isinstance(done, Refusal):
                batch.done[key] = Deferred()
    results = []
    for resource in ORDER_SENT:
        for index, item in enumerate(getattr(sent, resource)):
            done = batch.done[resource, index]
            results.append(_result(resource, index, item, done, language, request_id))
    return BatchRead(results=results)


async def _run(engine: AsyncEngine, hot: Hot, caller: Caller, sent: BatchCreate) -> Batch:
    """Run a batch in a transaction, again where it and another one waited for each other.

    New events alone, which fail one by one, need none: a single statement inserts them.
    """
    for _ in range(ATTEMPTS):
        batch = Batch(caller, sent)
        try:
            if sent.only_records:
                await batch.record(hot, list(enumerate(sent.support_events)))
                return batch
            async with transaction(engine) as session:
                await enter(session, caller)
                await batch.run(session)
                if batch.broken or sent.dry_run:
                    await session.rollback()
        except (DBAPIError, PostgresError) as failure:
            if sqlstate_of(failure) not in CIRCLES:
                raise
        else:
            return batch
    raise Unavailable


def _result(
    resource: str, index: int, item: Item, done: Done, language: str, request_id: str | None
) -> BatchResult:
    if not isinstance(done, Refusal):
        outcome, version, row_id = done
        return BatchResult(
            resource=resource,
            index=index,
            id=row_id or item.id,
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
        conflicts = done.members.pop("conflicts", [])
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
