"""The catalogue of services: open to every signed-in caller, extended by provinces."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.errors import (
    Conflict,
    FieldError,
    InsufficientRole,
    NotFound,
    ValidationFailed,
    not_found_at,
)
from api.models.service_types import (
    ServiceType,
    ServiceTypeCreate,
    ServiceTypePage,
    ServiceTypeQuery,
    ServiceTypeRead,
    ServiceTypeUpdate,
)
from api.pagination import Order, paginate
from api.services.writing import (
    changed_values,
    check_version,
    hide,
    insert_once,
    locked,
    made_before,
    touch,
)

REQUIRED = frozenset({"name_vi", "name_en", "status"})


def _read(row: ServiceType) -> ServiceTypeRead:
    return ServiceTypeRead.model_validate(row.model_dump())


async def list_service_types(
    session: AsyncSession, caller: Caller, query: ServiceTypeQuery
) -> ServiceTypePage:
    """Return a page of the catalogue, by code."""
    statement = select(ServiceType).where(col(ServiceType.deleted_at).is_(None))
    for column, wanted in (
        (ServiceType.code, query.code),
        (ServiceType.category, query.category),
        (ServiceType.parent_code, query.parent_code),
        (ServiceType.status, query.status),
    ):
        if wanted:
            statement = statement.where(col(column).in_(wanted))

    def read(rows: Sequence[Row[Any]]) -> list[ServiceTypeRead]:
        return [_read(row.ServiceType) for row in rows]

    order = Order(col(ServiceType.code), col(ServiceType.id))
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return ServiceTypePage(**dict(page))


async def _find(session: AsyncSession, service_type_id: UUID, *, lock: bool = False) -> ServiceType:
    statement = select(ServiceType).where(
        col(ServiceType.id) == service_type_id, col(ServiceType.deleted_at).is_(None)
    )
    row = await session.scalar(locked(statement) if lock else statement)
    if row is None:
        raise NotFound
    return row


async def get_service_type(
    session: AsyncSession, _caller: Caller, service_type_id: UUID
) -> ServiceTypeRead:
    """Return a service of the catalogue."""
    return _read(await _find(session, service_type_id))


def _province(caller: Caller) -> int | None:
    """Return the province for which the caller extends the catalogue; `None` for the nation."""
    if caller.has(Permission.catalogue_write):
        return None
    roots = caller.roots(Permission.catalogue_extend)
    if not roots:
        raise InsufficientRole
    return roots[0]


async def create_service_type(
    session: AsyncSession, caller: Caller, given: ServiceTypeCreate
) -> tuple[ServiceTypeRead, bool]:
    """Add a service. A child keeps its parent's category and unit of count.

    The nation adds any service, a province children only (422 `missing` at `/parent_code`); 409
    when the code is taken.
    """
    if made := await made_before(session, caller, ServiceType, given):
        return _read(made), False
    province = _province(caller)
    if given.active_from and given.active_to and given.active_to < given.active_from:
        raise ValidationFailed(FieldError("/active_to", "end_before_start"))
    if given.parent_code is None:
        wanted = {"category": given.category, "unit_of_count": given.unit_of_count}
        lacking = [name for name, value in wanted.items() if value is None]
        if province is not None:
            lacking = ["parent_code"]
        if lacking:
            raise ValidationFailed(*(FieldError(f"/{name}", "missing") for name in lacking))
    else:
        wanted = await _of_parent(session, given)
    values = given.model_dump(exclude={"id"}) | wanted | {"province_key": province}
    taken = await session.scalar(select(ServiceType.id).where(col(ServiceType.code) == given.code))
    if taken is not None and taken != given.id:
        raise Conflict(FieldError("/code", "taken"))
    row, is_new = await insert_once(session, caller, ServiceType, given, values)
    return _read(row), is_new


async def _of_parent(session: AsyncSession, given: ServiceTypeCreate) -> dict[str, Any]:
    """Return what a child takes from its parent, which must be a service of the nation."""
    parent = await session.scalar(
        select(ServiceType).where(
            col(ServiceType.code) == given.parent_code,
            col(ServiceType.parent_code).is_(None),
            col(ServiceType.deleted_at).is_(None),
        )
    )
    if parent is None:
        raise not_found_at("/parent_code")
    kept = {"category": parent.category, "unit_of_count": parent.unit_of_count}
    wrong = [name for name, value in kept.items() if getattr(given, name) not in {None, value}]
    if not given.code.startswith(f"{parent.code}."):
        wrong.append("code")
    if wrong:
        raise ValidationFailed(*(FieldError(f"/{name}", "not_a_child") for name in wrong))
    return kept


async def _lock(
    session: AsyncSession, caller: Caller, service_type_id: UUID, expected: int
) -> ServiceType:
    """Lock an entry of the caller's own level; 404, 403, then 412."""
    row = await _find(session, service_type_id, lock=True)
    province = _province(caller)
    if province is not None and row.province_key not in caller.roots(Permission.catalogue_extend):
        raise InsufficientRole
    check_version(_read(row), expected)
    return row


async def update_service_type(
    session: AsyncSession,
    caller: Caller,
    service_type_id: UUID,
    expected: int,
    change: ServiceTypeUpdate,
) -> ServiceTypeRead:
    """Rename, retire or re-date a service; never its code, nor what is counted."""
    row = await _lock(session, caller, service_type_id, expected)
    values = changed_values(row, change, REQUIRED)
    for name, value in values.items():
        setattr(row, name, value)
    if row.active_from and row.active_to and row.active_to < row.active_from:
        raise ValidationFailed(FieldError("/active_to", "end_before_start"))
    if values:
        touch(row)
        await session.flush()
    return _read(row)


async def delete_service_type(
    session: AsyncSession, caller: Caller, service_type_id: UUID, expected: int
) -> None:
    """Hide a service that was entered by mistake (one that ends is retired instead)."""
    row = await _lock(session, caller, service_type_id, expected)
    hide(row)
    await session.flush()
