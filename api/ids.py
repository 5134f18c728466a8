"""The only source of identities.

Rows get UUIDv7 (RFC 9562: sorted by time, so that indexes stay dense); official units and the
catalogue get UUIDv5, so that every installation gives them the same identity.
"""

import os
import time
from uuid import UUID, uuid5

_OFFICIAL = UUID("6f0f2f3e-6f9c-5b7e-9a55-3d1c7f5b2025")


def new_id() -> UUID:
    """Return a new UUIDv7: 48 bits of milliseconds, then 74 random bits."""
    millis = time.time_ns() // 1_000_000
    value = (millis << 80) | int.from_bytes(os.urandom(10))
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return UUID(int=value)


def official_unit_id(level: str, code: str, valid_from: str = "") -> UUID:
    """Return the identity of an official unit.

    `valid_from` is `YYYY-MM-DD`, or empty for the vintage before 2025-07-01. A code is recycled,
    so it takes all three to name a unit: `official_unit_id("province", "15", "2025-07-01")`.
    """
    return uuid5(_OFFICIAL, f"nso:{level}:{code}:{valid_from}")


def catalogue_id(kind: str, code: str) -> UUID:
    """Return the identity of a catalogue entry that every installation carries."""
    return uuid5(_OFFICIAL, f"{kind}:{code}")
