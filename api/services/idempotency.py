"""Answers kept for whoever sends the same request again under its `Idempotency-Key`.

The key is taken by a lock, and the answer kept, in the transaction of the change itself: a crash
leaves neither. A refusal wrote nothing and is not kept: its key is free for another try.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller
from api.errors import IdempotencyKeyInFlight, IdempotencyKeyReused

_LOCK = text("select pg_try_advisory_xact_lock(:lock)")
_FIND = text("""
    select request_hash, answer from idempotency_key
    where principal_id = :principal and key_hash = :key and expires_at > now()
""")
_KEEP = text("""
    insert into idempotency_key (principal_id, key_hash, request_hash, answer, expires_at)
    values (:principal, :key, :request, :answer, now() + interval '24 hours')
    on conflict (principal_id, key_hash) do update
        set request_hash = excluded.request_hash, answer = excluded.answer,
            expires_at = excluded.expires_at
""")
_TIDY = text("delete from idempotency_key where expires_at < now()")
_LOCK_BYTES: Final = 8


class Answer(NamedTuple):
    """An answer as it was given."""

    status: int
    headers: dict[str, str]
    body: str


_ANSWERS: Final = TypeAdapter(Answer)


@dataclass(frozen=True)
class Key:
    """A key that a caller gave to a request; both are kept as hashes only."""

    session: AsyncSession
    caller: Caller
    key_hash: bytes
    request_hash: bytes

    def values(self) -> dict[str, Any]:
        """Return the key's columns."""
        return {
            "principal": self.caller.id,
            "key": self.key_hash,
            "request": self.request_hash,
        }


async def take(
    session: AsyncSession, caller: Caller, key: str, request: object
) -> tuple[Key, Answer | None]:
    """Take a key for a request; return it with the first answer, if there was one.

    409 while the first request is under way, 422 when it was another one.
    """
    secrets = caller.secrets
    taken = Key(
        session,
        caller,
        secrets.hash_written(f"key {caller.id} {key}".encode()),
        secrets.hash_content(request),
    )
    lock = int.from_bytes(taken.key_hash[:_LOCK_BYTES], signed=True)
    if not await session.scalar(_LOCK, {"lock": lock}):
        raise IdempotencyKeyInFlight
    found = (await session.execute(_FIND, taken.values())).one_or_none()
    if found is None:
        return taken, None
    if found.request_hash != taken.request_hash:
        raise IdempotencyKeyReused
    return taken, _ANSWERS.validate_json(secrets.decrypt(found.answer))


async def keep(key: Key, answer: Answer) -> None:
    """Keep the first answer for a day, encrypted: it may tell of people."""
    sealed = key.caller.secrets.encrypt(_ANSWERS.dump_json(answer))
    await key.session.execute(_KEEP, key.values() | {"answer": sealed})


async def tidy(session: AsyncSession) -> None:
    """Forget the answers that are a day old."""
    await session.execute(_TIDY)
