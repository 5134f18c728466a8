"""Reorganisations: applied as one, shown to everybody, taken back while nothing rests on them.

Facts are never touched: only states, successions and placement change, from the day on.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Row, literal, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock, ids
from api.auth.caller import Caller, enter, present
from api.auth.permissions import Permission
from api.auth.scope import Reach
from api.errors import Conflict, IdConflict, NotFound, Refusal
from api.models.admin_units import AdminUnit
from api.models.reorganisations import (
    Affected,
    LegalDocument,
    Reorganisation,
    ReorganisationCreate,
    ReorganisationPage,
    ReorganisationPreview,
    ReorganisationQuery,
    ReorganisationRead,
    TreeConflict,
)
from api.pagination import Order, paginate
from api.services.reorganisation_order import WITHOUT_UNDO, check_document, check_later
from api.services.tree import hold_tree
from api.services.tree_changes import check_shape, make_change
from api.services.tree_work import TreeWork
from api.services.writing import content_of, made_before

COUNTED = (
    Permission.teams_read,
    Permission.members_read,
    Permission.households_read,
    Permission.events_read,
    Permission.activities_read,
    Permission.campaigns_read,
    Permission.commendations_read,
    Permission.all_statistics_read,
    Permission.targets_read,
    Permission.principals_write,
)

_TOP = text("select key from admin_unit where level in ('nation', 'province')")
_AFFECTED = text("""
    with under as (
        select unit_key as key from placement where ancestor_key = any(cast(:keys as integer[]))
        union select unnest(cast(:keys as integer[]))
    ), of_team as materialized (
        select t.id from team t join under on under.key = t.unit_key where t.deleted_at is null
    )
    select (select count(*) from under join admin_unit u using (key)
            where u.level = 'village' and u.deleted_at is null) as villages,
           (select count(*) from of_team) as teams,
           (select count(distinct m.member_id) from membership m
            join of_team t on t.id = m.team_id) as members,
           (select count(*) from household h join under on under.key = h.unit_key
            where h.deleted_at is null) as households,
           (select count(*) from support_event e join under on under.key = e.unit_key)
               as support_events,
           (select count(*) from target t join under on under.key = t.unit_key
            where t.deleted_at is null) as targets,
           (select count(*) from role_grant g join under on under.key = g.unit_key
            where g.deleted_at is null) as grants
""")
_UNPLACED = text("""
    select distinct u.id from admin_unit_state s
    join admin_unit u on u.key = s.unit_key and u.level = 'village' and u.deleted_at is null
    where s.unit_key = any(cast(:keys as integer[])) and s.parent_key is null
      and s.during && daterange(cast(:day as date), null)
    order by u.id
""")
_PLACE = text("select place_units(affected_units(cast(:keys as integer[])))")
_PLACED = text("select placement_checksum(cast(:keys as integer[]))")
_IMAGES = text("select key, image from tree_images(cast(:keys as integer[]))")
_TOUCH = text("""
    update admin_unit set version = version + 1, updated_at = :now
    where key = any(cast(:keys as integer[]))
""")


def read_one(row: Reorganisation) -> ReorganisationRead:
    """Return a reorganisation as everybody sees it."""
    document = LegalDocument(
        number=row.document_number, issued_on=row.document_issued_on, issuer=row.document_issuer
    )
    shown = row.model_dump(exclude={"undo", "touched", "created"})
    return ReorganisationRead(**shown, document=document, conflicts=[])


async def list_reorganisations(
    session: AsyncSession, caller: Caller, query: ReorganisationQuery
) -> ReorganisationPage:
    """Return a page of the reorganisations, taken-back ones among them; open to everybody."""
    table = Reorganisation
    statement = select(table).options(WITHOUT_UNDO)
    if query.unit_id:
        units = select(col(AdminUnit.key)).where(col(AdminUnit.id).in_(query.unit_id))
        wanted = list(await session.scalars(units))
        statement = statement.where(col(table.touched).op("&&")(literal(wanted, ARRAY(Integer))))
    if query.document_number:
        statement = statement.where(col(table.document_number).in_(query.document_number))
    if query.effective_on_gte:
        statement = statement.where(col(table.effective_on) >= query.effective_on_gte)
    if query.effective_on_lt:
        statement = statement.where(col(table.effective_on) < query.effective_on_lt)

    def read(rows: Sequence[Row[Any]]) -> list[ReorganisationRead]:
        return [read_one(row.Reorganisation) for row in rows]

    order = Order(col(table.effective_on), col(table.id))
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return ReorganisationPage(**dict(page))


async def get_reorganisation(session: AsyncSession, reorganisation_id: UUID) -> ReorganisationRead:
    """Return a reorganisation; open to every signed-in caller."""
    row = await session.get(Reorganisation, reorganisation_id, options=[WITHOUT_UNDO])
    if row is None:
        raise NotFound
    return read_one(row)


async def create_reorganisation(
    session: AsyncSession, caller: Caller, given: ReorganisationCreate
) -> tuple[ReorganisationRead, bool] | ReorganisationPreview:
    """Apply a reorganisation, or tell what it would do; all of it or nothing.

    Returns it and whether it is new. Whoever may not reorganise everything reorganises the
    villages of its own scope: anything else is `not_found` or `wrong_level` at its pointer.
    """
    check_shape(given.changes)
    await hold_tree(session)
    if made := await made_before(session, caller, Reorganisation, given):
        return read_one(made), False
    whole = caller.has(Permission.reorganise)
    within = None if whole else caller.reach(Permission.reorganise_villages)
    if given.dry_run:
        preview = await preview_changes(session, given, caller.id, within)
        await enter(session, caller)
        return preview
    row = await apply_changes(session, given, caller.id, within, content_of(caller, given))
    await enter(session, caller)
    return read_one(row), True


async def reorganise_as_operator(
    session: AsyncSession, given: ReorganisationCreate
) -> ReorganisationRead | ReorganisationPreview:
    """Apply a document that an operator brought (`noidai reorganise`), or tell what it would do."""
    check_shape(given.changes)
    await hold_tree(session)
    if given.dry_run:
        return await preview_changes(session, given, None, None)
    return read_one(await apply_changes(session, given, None, None, None))


async def _count_everything(session: AsyncSession) -> None:
    """Let row-level security count what the caller may not list."""
    top = frozenset(await session.scalars(_TOP))
    await present(session, dict.fromkeys(COUNTED, Reach(provinces=top)))


async def preview_changes(
    session: AsyncSession, given: ReorganisationCreate, actor: UUID | None, within: Reach | None
) -> ReorganisationPreview:
    """Make the changes and take them back: what each conflict names is left out.

    What is wrong in itself is refused (422) like in earnest.
    """
    await _count_everything(session)
    conflicts: list[TreeConflict] = []
    trial = await session.begin_nested()
    work = TreeWork(session, given.effective_on, actor, within)
    steps = [check_document(session, given)]
    steps += [
        make_change(work, change, f"/changes/{index}") for index, change in enumerate(given.changes)
    ]
    steps.append(check_later(work))
    for step in steps:
        attempt = await session.begin_nested()
        try:
            await step
        except Refusal as refusal:
            if refusal.status != Conflict.status and not conflicts:
                for left in steps:
                    left.close()
                raise
            await attempt.rollback()
            if refusal.status != Conflict.status:  # for want of what a conflict left out
                continue
            conflicts += [
                TreeConflict(pointer=e.pointer, code=e.code, params={**e.params, **refusal.members})
                for e in refusal.errors
            ]
        else:
            await attempt.commit()
    affected, unplaced = await _outcome(work)
    await trial.rollback()
    return ReorganisationPreview(affected=affected, unplaced=unplaced, conflicts=conflicts)


async def apply_changes(
    session: AsyncSession,
    given: ReorganisationCreate,
    actor: UUID | None,
    within: Reach | None,
    content: bytes | None,
) -> Reorganisation:
    """Make the changes in the caller's transaction, which holds the tree."""
    reorganisation_id = given.id or ids.new_id()
    if await session.get(Reorganisation, reorganisation_id):
        raise IdConflict
    await _count_everything(session)
    await check_document(session, given)
    work = TreeWork(session, given.effective_on, actor, within)
    for index, change in enumerate(given.changes):
        await make_change(work, change, f"/changes/{index}")
    await check_later(work)
    affected, unplaced = await _outcome(work)
    old = {"keys": sorted(work.before)}
    placement = await session.scalar(_PLACED, old)
    await session.execute(_TOUCH, old | {"now": clock.now()})
    await session.execute(_PLACE, {"keys": work.touched})
    now = clock.now()
    row = Reorganisation(
        id=reorganisation_id,
        version=1,
        created_at=now,
        updated_at=now,
        created_by=actor,
        content_hash=content,
        effective_on=given.effective_on,
        document_number=given.document.number,
        document_issued_on=given.document.issued_on,
        document_issuer=given.document.issuer,
        changes=[change.model_dump(mode="json", exclude_none=True) for change in given.changes],
        affected=affected.model_dump(),
        unplaced=unplaced,
        unit_ids=list(work.created),
        touched=work.touched,
        created=list(work.created.values()),
        undo={
            "before": {str(key): image for key, image in work.before.items()},
            "placement": placement,
            "after": await checksums(session, work.touched),
        },
    )
    session.add(row)
    await session.flush()
    return row


async def checksums(session: AsyncSession, keys: Collection[int]) -> dict[str, str]:
    """Return a checksum of what the tree says of each unit."""
    images = await session.execute(_IMAGES, {"keys": list(keys)})
    return {str(row.key): checksum(row.image) for row in images}


def checksum(image: Any) -> str:
    """Return a checksum of what the tree says of a unit."""
    return hashlib.sha256(json.dumps(image, sort_keys=True).encode()).hexdigest()


async def _outcome(work: TreeWork) -> tuple[Affected, list[UUID]]:
    """Count what is concerned, by the placement as it was before the changes."""
    counts = await work.session.execute(_AFFECTED, {"keys": sorted(work.named)})
    unplaced = await work.session.scalars(_UNPLACED, {"keys": work.touched, "day": work.day})
    return Affected(**counts.mappings().one()), list(unplaced)
