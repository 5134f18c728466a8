"""The second factor of people: TOTP (RFC 6238) and recovery codes."""

from typing import Annotated

from pydantic import AfterValidator
from pydantic import Field as Bound
from sqlmodel import Field, SQLModel

from api.models.types import Input, clean

Otp = Annotated[
    str,
    Bound(min_length=6, max_length=64, description="Six digits, or a recovery code"),
    AfterValidator(clean),
]


class OtpGiven(Input):
    """The number that the authenticator shows now; where it is on already, or a recovery code."""

    otp: Otp


class TotpStart(SQLModel):
    """What the authenticator needs; nothing is on until `:confirm`."""

    secret: str = Field(description="Base32, to type")
    otpauth_url: str = Field(description="To show as a QR")


class RecoveryCodes(SQLModel):
    """Codes to keep on paper, shown this once: each works once in place of `otp`."""

    recovery_codes: list[str]
