"""Keys derived from the one secret of the installation (HKDF, RFC 5869)."""

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Secrets:
    """What the service signs, encrypts and hashes with; each purpose has its own key."""

    def __init__(self, secret: str, hash_keys: Sequence[str] = ()) -> None:
        """`secret` is `NOIDAI_SECRET_KEY`: at least 32 characters, kept for good.

        `hash_keys` are `NOIDAI_HASH_KEYS`, the oldest first: each wraps the hashes of beneficiaries
        once more. The key derived from the secret is the innermost, generation 0.
        """
        self._secret = secret.encode()
        self.cursors = self._derive("cursors")
        self._content = self._derive("content")
        self._beneficiaries = (self._derive("beneficiaries"), *(k.encode() for k in hash_keys))
        self._vault = Fernet(urlsafe_b64encode(self._derive("vault")))

    def _derive(self, purpose: str) -> bytes:
        return HKDF(SHA256(), 32, salt=None, info=f"noidai {purpose}".encode()).derive(self._secret)

    def hash_content(self, content: Any) -> bytes:
        """Return the keyed hash of a body as accepted: the same content gives the same hash."""
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
        return self.hash_written(text.encode())

    def hash_written(self, content: bytes) -> bytes:
        """Return the keyed hash of content that is written already, in one way only."""
        return hmac.digest(self._content, content, "sha256")

    @property
    def generation(self) -> int:
        """The generation of the hashes of beneficiaries that are made now."""
        return len(self._beneficiaries) - 1

    def hash_beneficiary(self, identifier: str) -> bytes:
        """Return the keyed hash of a person's identifier, which itself is never kept."""
        return self.hash_generations(identifier)[-1]

    def hash_generations(self, identifier: str) -> list[bytes]:
        """Return the hash of every generation, the oldest first: rows may not be wrapped yet."""
        first = hmac.digest(self._beneficiaries[0], identifier.encode(), "sha256")
        return self.wrap([first])

    def wrap(self, hashes: Sequence[bytes], generation: int = 0) -> list[bytes]:
        """Go on from the last of some hashes, which is of `generation`, to the newest one."""
        chain = list(hashes)
        for key in self._beneficiaries[generation + 1 :]:
            chain.append(hmac.digest(key, chain[-1], "sha256"))
        return chain

    def encrypt(self, plain: bytes) -> bytes:
        """Encrypt what the database keeps for us (signing keys)."""
        return self._vault.encrypt(plain)

    def decrypt(self, sealed: bytes) -> bytes:
        """Decrypt what `encrypt` made."""
        return self._vault.decrypt(sealed)
