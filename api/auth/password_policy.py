"""Which passwords people may choose, after NIST SP 800-63B.

8 to 256 characters, any of Unicode and spaces (normalised to NFC), no rules of composition, no
expiry. Refused is what is guessed first: the 30,000 commonest passwords of breaches (the list
that `zxcvbn` ships), the name of the person or of the service, repetitions and sequences.
"""

import re
import unicodedata
from functools import cache

from api.errors import FieldError, ValidationFailed

SHORTEST = 8
LONGEST_REPEATED = 4
_SERVICE = "Nối Dài"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_RUNS = [
    run[::way]
    for run in (_LETTERS * 2, _DIGITS * 26, "qwertyuiop", "asdfghjkl", "zxcvbnm", "1qaz2wsx3edc")
    for way in (1, -1)
]


@cache
def _breached() -> frozenset[str]:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    return frozenset(FREQUENCY_LISTS["passwords"])


def _folded(text: str) -> str:
    """Return the text as a guesser tries it: whatever its case or width."""
    return unicodedata.normalize("NFKC", text).casefold()


def _letters(text: str) -> str:
    """Return only the letters, without accents: `Nối Dài 2026!` is `noidai`."""
    plain = unicodedata.normalize("NFD", _folded(text)).replace("đ", "d")
    return re.sub(r"[\W\d_]", "", plain)


def _is_repeated(text: str) -> bool:
    return any(
        text == (text[:size] * len(text))[: len(text)] for size in range(1, LONGEST_REPEATED + 1)
    )


def check_password(plain: str, username: str, pointer: str) -> None:
    """Refuse (422) a password that is guessed early: `password_common` at `pointer`."""
    if len(plain) < SHORTEST:  # counted once normalised
        raise ValidationFailed(FieldError(pointer, "string_too_short", {"min_length": SHORTEST}))
    folded = _folded(plain)
    if (
        folded in _breached()
        or folded == _folded(username)
        or _letters(plain) in {_letters(username), _letters(_SERVICE)} - {""}
        or _is_repeated(folded)
        or any(folded in run for run in _RUNS)
    ):
        raise ValidationFailed(FieldError(pointer, "password_common"))
