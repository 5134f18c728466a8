"""Who may write the tree of units at a time: villages together, a reorganisation alone."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_LOCK = "hashtext('noidai tree')"
_PATIENCE = text("set local lock_timeout = '5s'")
_SHARE = text(f"select pg_advisory_xact_lock_shared({_LOCK})")
_HOLD = text(f"select pg_advisory_xact_lock({_LOCK})")


async def share_tree(session: AsyncSession) -> None:
    """Write the tree beside others until the transaction's end; 503 after 5 s of waiting.

    Called before anything of the tree is read: what was read while a reorganisation was being
    written would be stale.
    """
    await session.execute(_PATIENCE)
    await session.execute(_SHARE)


async def hold_tree(session: AsyncSession) -> None:
    """Write the tree alone until the transaction's end; facts are written on meanwhile."""
    await session.execute(_PATIENCE)
    await session.execute(_HOLD)
