"""What somebody must do before anything else: change the password, enrol a second factor.

Administrators need TOTP (security level 3 of information systems). These are the roles that
administer, `national_admin`, `province_admin` and `commune_admin`, and the `dpo`, who sees and
erases the persons that requests name. Auditors and dashboards read masked data and change
nothing. Systems and devices have no password to protect.
"""

from enum import StrEnum

from api.auth.caller import Caller
from api.auth.permissions import ADMINISTER, Permission
from api.errors import FieldError, InsufficientRole, OtpRequired
from api.models.principals import PrincipalKind


class Duty(StrEnum):
    """What comes first; the value is the code of the refusal's field error."""

    new_password = "must_change_password"  # noqa: S105 - a code
    totp = "totp_not_enrolled"


ANY_DUTY = frozenset(Duty)


def check_duties(
    caller: Caller, permission: Permission, despite: frozenset[Duty], *, totp_required: bool
) -> None:
    """Refuse whoever has something to do first, unless the route serves for doing it.

    403 until a password that somebody else chose is changed, then 401 `otp_required` for an
    administrator whose session has not proved a second factor; 403 without the permission.
    """
    if caller.must_change_password:
        if Duty.new_password not in despite:
            raise InsufficientRole(FieldError("", Duty.new_password.value))
    elif (
        totp_required
        and caller.kind == PrincipalKind.user
        and not caller.proved_otp
        and Duty.totp not in despite
        and any(grant.role in ADMINISTER for grant in caller.grants)
    ):
        raise OtpRequired(FieldError("", Duty.totp.value))
    if not caller.has(permission):
        raise InsufficientRole
