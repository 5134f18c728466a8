"""Sealing the audit, and finding whatever was changed, taken out or slipped in since.

Nobody waits for a seal. Each closes the entries of all transactions that are certainly over: those
below the oldest one still running (`pg_snapshot_xmin`). That set is final, whatever the clocks
say; who commits late is in the next one. A seal's root is the SHA-256 of the root before it, its
range, its number of entries and the digest of each of them: none can be altered without all that
follow, and whoever noted a root elsewhere holds the whole past by it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

PAGE = 500
"""Seals that one statement checks: each is computed in the database, nothing is gathered here."""
PATIENCE = "set local statement_timeout = '10min'"

_CHECK = text("""
    select s.number, s.from_xid, s.to_xid, s.sealed_at, s.entries, s.root, s.previous_root,
           is_now.entries as entries_now, is_now.root as root_now
    from (select * from audit_seal where number > :after order by number limit :page) s
    cross join lateral audit_root(s.previous_root, s.from_xid, s.to_xid) as is_now
    order by s.number
""")


@dataclass
class Verdict:
    """What was checked, the newest root, and what is wrong with the first seal that is broken."""

    seals: int = 0
    entries: int = 0
    root: str = ""
    fault: str | None = None


async def prepare(session: AsyncSession) -> None:
    """Make the partitions of this month and the next three, where they are missing."""
    await session.execute(text("select make_audit_partitions()"))


async def seal(session: AsyncSession) -> int | None:
    """Seal what is over; return the seal's number, none when there is nothing or another seals."""
    await session.execute(text(PATIENCE))
    number: int | None = await session.scalar(text("select seal_audit()"))
    return number


async def verify(session: AsyncSession, noted_root: str | None = None) -> Verdict:
    """Compute the chain anew from the entries.

    The first seal that does not hold is named with its time. `noted_root`, kept elsewhere, must be
    one of the chain's: cutting off the chain's end shows in nothing else.
    """
    await session.execute(text(PATIENCE))
    verdict = Verdict()
    wanted, noted = (noted_root or "").lower(), noted_root is None
    expected_xid, expected_root = 0, b""
    async for row in _seals(session):
        named = f"seal {row.number} of {_shown(row.sealed_at)}"
        if row.number != verdict.seals + 1:
            verdict.fault = f"seal {verdict.seals + 1} is missing before {named}"
        elif (row.from_xid, row.previous_root) != (expected_xid, expected_root):
            verdict.fault = f"{named} does not follow the one before it"
        elif row.entries_now != row.entries:
            verdict.fault = f"{named} closed {row.entries} entries, now there are {row.entries_now}"
        elif row.root_now != row.root:
            verdict.fault = f"{named} is broken: an entry, or the seal, was changed"
        if verdict.fault:
            return verdict
        expected_xid, expected_root = row.to_xid, row.root
        verdict.seals, verdict.root = row.number, row.root.hex()
        verdict.entries += row.entries
        noted = noted or verdict.root == wanted
    if not noted:
        verdict.fault = "the noted root is not in the chain: its end was cut off, or all replaced"
    return verdict


async def _seals(session: AsyncSession) -> AsyncIterator[Row[Any]]:
    after = 0
    while rows := (await session.execute(_CHECK, {"after": after, "page": PAGE})).all():
        for row in rows:
            yield row
        after = rows[-1].number


def _shown(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
