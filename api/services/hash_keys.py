"""Rotating the keys of beneficiaries' hashes: what is stored is wrapped, since it cannot be undone.

Each row carries the generation of its hash. Distinct people stay distinct: wrapping maps no two
hashes onto one, and one transaction wraps every row that its pass finds.
"""

from sqlalchemy import ARRAY, LargeBinary, bindparam, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from api import clock
from api.auth.caller import Tree, present
from api.auth.loading import resolve
from api.auth.permissions import Permission
from api.auth.secrets import Secrets
from api.db import transaction

CHUNK = 10_000

_LOCK = text("select pg_advisory_xact_lock(hashtext('noidai hash keys'))")
_PATIENCE = text("set local statement_timeout = 0")
_NATION = text("select u.key, tree.version from admin_unit u, tree where u.level = 'nation'")
_OLD = text("""
    create temporary table wrapped on commit drop as
    select beneficiary_key as generation, beneficiary_hash as was, null::bytea as becomes
    from support_event
    where beneficiary_key < :newest and beneficiary_hash is not null
    union
    select beneficiary_key, beneficiary_hash, null from support_event_version
    where beneficiary_key < :newest and beneficiary_hash is not null
""")
_INDEX = text("create unique index on wrapped (was, generation)")
_NEXT = text("""
    select generation, was from wrapped
    where (was, generation) > (:was, cast(:generation as smallint))
    order by was, generation limit :chunk
""")
_NAME = text("""
    update wrapped w set becomes = v.becomes
    from unnest(cast(:generations as smallint[]), :was, :becomes) as v (generation, was, becomes)
    where w.was = v.was and w.generation = v.generation
""").bindparams(
    bindparam("was", type_=ARRAY(LargeBinary)), bindparam("becomes", type_=ARRAY(LargeBinary))
)
_WRAP = text("""
    with changed as (
        update support_event e
        set beneficiary_hash = w.becomes, beneficiary_key = :newest
        from wrapped w
        where e.beneficiary_key = w.generation and e.beneficiary_hash = w.was
        returning 1
    ), versions as (
        update support_event_version v
        set beneficiary_hash = w.becomes, beneficiary_key = :newest
        from wrapped w
        where v.beneficiary_key = w.generation and v.beneficiary_hash = w.was
        returning 1
    )
    select (select count(*) from changed) + (select count(*) from versions)
""")


async def rehash(engine: AsyncEngine, secrets: Secrets) -> int:
    """Wrap every hash of an older generation, in every version; return how many rows that were.

    Processes that do not know the newest key yet may write on meanwhile: what they committed
    before the last pass is wrapped, what they write later is found by the next run. Until then a
    person with rows of two generations counts as two.
    """
    rows = 0
    while True:
        async with transaction(engine) as session:
            found = await _pass(session, secrets)
        if not found:
            return rows
        rows += found


async def _pass(session: AsyncSession, secrets: Secrets) -> int:
    """Wrap what is there, in one transaction: no total sees a part of it."""
    for statement in (_PATIENCE, _LOCK):
        await session.execute(statement)
    nation, version = (await session.execute(_NATION)).one()
    roots = frozenset({nation})
    reaches = await resolve(session, {roots}, Tree(version, clock.today()))
    everywhere = dict.fromkeys((Permission.events_read, Permission.events_write), reaches[roots])
    await present(session, everywhere)
    newest = {"newest": secrets.generation}
    await session.execute(_OLD, newest)
    await session.execute(_INDEX)
    last = {"was": b"", "generation": 0}
    while rows := (await session.execute(_NEXT, last | {"chunk": CHUNK})).all():
        wrapped = {
            "generations": [row.generation for row in rows],
            "was": [row.was for row in rows],
            "becomes": [secrets.wrap([row.was], row.generation)[-1] for row in rows],
        }
        await session.execute(_NAME, wrapped)
        last = {"was": rows[-1].was, "generation": rows[-1].generation}
    wrapped_rows: int = (await session.execute(_WRAP, newest)).scalar_one()
    return wrapped_rows
