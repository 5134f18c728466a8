"""Codes that people type or scan once: random, in groups, kept as hashes only."""

import secrets

from api.auth.secrets import Secrets

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
"""Base32 (RFC 4648): 5 bits a character, without the digits that look like letters."""
_LOOKALIKES = str.maketrans("018", "OIB", "- \t\n")
GROUP = 5


def new_code(groups: int) -> str:
    """Return a random code of groups of five characters, 25 bits each."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP)) for _ in range(groups))


def hash_code(keys: Secrets, purpose: str, typed: str) -> bytes:
    """Return what is kept of a code, however it was typed: lower case, without its hyphens.

    A keyed SHA-256 like that of refresh tokens, not argon2: nobody can try out 100 random bits,
    so a slow hash, which a guessable password needs, would only cost time.
    """
    return keys.hash_content([purpose, typed.upper().translate(_LOOKALIKES)])
