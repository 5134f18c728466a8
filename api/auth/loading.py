"""Loading a caller from the database: its grants as of today, and where they reach."""

import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import NOWHERE, Caller, Grant, Tree, present, written
from api.auth.permissions import MATRIX, TEAM_ROLES, Permission
from api.auth.scope import Reach
from api.auth.secrets import Secrets
from api.errors import Unauthenticated
from api.models.principals import PrincipalKind
from api.models.role_grants import Role
from api.pagination import Cursors

_KNOWN: dict[tuple[Tree, frozenset[int]], Reach] = {}
"""Reaches already worked out: exact, since the tree's version is read with every request."""
_ABOVE: dict[tuple[Tree, frozenset[int]], frozenset[int]] = {}
"""What stood above some units, likewise."""
_MOST_KNOWN = 10_000

_PRINCIPAL = text("""
    select p.kind, p.name, p.member_id, p.must_change_password,
           s.otp_at is not null as proved_otp, tree.version as tree,
           set_config('noidai.principal', p.id::text, true)
    from principal p cross join tree
    left join session s on s.id = cast(:session as uuid) and s.principal_id = p.id
    where p.id = :id and p.disabled_at is null
      and (cast(:session as uuid) is null or s.id is not null)
""")
_GRANTS = text("""
    select g.id, g.role, g.unit_id, g.unit_key, g.team_id, g.valid_from, g.valid_to, g.expires_at,
           (select p.ancestor_key from placement p join admin_unit u on u.key = p.unit_key
            where p.unit_key = g.unit_key and p.level = u.level
               and p.during @> cast(:today as date)) as root
    from role_grant g
    where g.principal_id = :id and g.deleted_at is null
      and (g.valid_from is null or g.valid_from <= cast(:today as date))
      and (g.valid_to is null or g.valid_to >= cast(:today as date))
      and (g.expires_at is null or g.expires_at > cast(:now as timestamptz))
    order by g.id
""")
_DEVICE_TEAMS = text("select team_ids from device where id = :id and deleted_at is null")
# A device's right has no row of its own, it goes by its team's id; a stay's last day is none of
# its days: leaving a team takes effect at once.
_DEVICE_GRANTS = text("""
    select m.team_id as id, m.unit_id, m.unit_key, m.team_id, m.joined_on as valid_from,
           m.left_on - 1 as valid_to, null::timestamptz as expires_at,
           case m.role when 'leader' then 'team_leader' else 'team_member' end as role,
           (select p.ancestor_key from placement p join admin_unit u on u.key = p.unit_key
            where p.unit_key = m.unit_key and p.level = u.level
               and p.during @> cast(:today as date)) as root
    from membership m join member who on who.id = m.member_id and who.deleted_at is null
    where m.member_id = :member and m.team_id = any(cast(:teams as uuid[]))
      and m.joined_on <= cast(:today as date)
      and (m.left_on is null or m.left_on > cast(:today as date))
    order by m.team_id
""")
_STOOD_ABOVE = text("""
    select array(
        select ancestor_key from placement where unit_key = any(cast(:roots as integer[]))
        union
        select key from admin_unit where level = 'nation')
""")
_REACHES = text("""
    select r.provinces, r.communes, r.units
    from jsonb_array_elements(cast(:sets as jsonb)) with ordinality as s (roots, n)
    cross join lateral reach(
        array(select jsonb_array_elements_text(s.roots)::integer), :today) as r
    order by s.n
""")


async def load(
    session: AsyncSession,
    principal_id: UUID,
    today: date,
    secrets: Secrets,
    cursors: Cursors,
    session_id: UUID | None = None,
) -> Caller:
    """Read a principal with its grants as of today; 401 when it is gone, disabled or signed out.

    `session_id` is the session that the access token belongs to; systems have none.
    """
    known = {"id": principal_id, "session": session_id}
    found = (await session.execute(_PRINCIPAL, known)).one_or_none()
    if found is None:
        raise Unauthenticated("the account is gone or disabled, or the session has ended")
    rows = await _granted(session, principal_id, found, today)
    grants = tuple(
        Grant(
            row.id,
            Role(row.role),
            row.unit_id,
            row.unit_key,
            row.root,
            row.team_id,
            row.valid_from,
            row.valid_to,
            row.expires_at,
        )
        for row in rows
    )
    tree = Tree(found.tree, today)
    reaches = await _reaches(session, grants, tree)
    return Caller(
        principal_id,
        found.kind,
        found.name,
        found.member_id,
        found.must_change_password,
        found.proved_otp,
        grants,
        reaches,
        tree,
        session_id,
        secrets,
        cursors,
        written(reaches),
    )


async def _granted(
    session: AsyncSession, principal_id: UUID, found: Row[Any], today: date
) -> Iterable[Row[Any]]:
    """Return the grants of a principal; a device's follow the memberships of its member.

    Until its reach is known, the database shows a device the teams that it was enrolled for.
    """
    if found.kind != PrincipalKind.device:
        known = {"id": principal_id, "today": today, "now": clock.now()}
        return await session.execute(_GRANTS, known)
    teams = await session.scalar(_DEVICE_TEAMS, {"id": principal_id}) or []
    reach = Reach(teams=frozenset(teams))
    await present(session, {Permission.teams_read: reach, Permission.members_read: reach})
    mine = {"member": found.member_id, "teams": teams, "today": today}
    return await session.execute(_DEVICE_GRANTS, mine)


async def _reaches(
    session: AsyncSession, grants: tuple[Grant, ...], tree: Tree
) -> dict[Permission, Reach]:
    """Resolve, for each permission, the units and teams of all grants that carry it."""
    roots: dict[Permission, set[int]] = {}
    teams: dict[Permission, set[UUID]] = {}
    for grant in grants:
        for permission in MATRIX[grant.role]:
            mine = roots.setdefault(permission, set())
            if grant.role not in TEAM_ROLES:
                mine |= {grant.root} - {None}  # type: ignore[arg-type]
                continue
            teams.setdefault(permission, set()).update({grant.team_id} - {None})  # type: ignore[arg-type]
            if permission in {
                Permission.campaigns_read,
                Permission.households_read,
                Permission.households_write,
                Permission.people_read,
            }:
                mine |= {grant.root} - {None}  # type: ignore[arg-type]
    places = await resolve(session, {frozenset(keys) for keys in roots.values()}, tree)
    found = {
        permission: replace(places[frozenset(keys)], teams=frozenset(teams.get(permission, ())))
        for permission, keys in roots.items()
    }
    if Permission.campaigns_read in found:
        below = found[Permission.campaigns_read]
        above = await _above(session, frozenset(roots[Permission.campaigns_read]), tree)
        found[Permission.campaigns_read] = replace(below, units=below.units | above)
    return found


async def _above(session: AsyncSession, roots: frozenset[int], tree: Tree) -> frozenset[int]:
    """Return all that ever stood above some units: whose campaigns are run in them."""
    if (tree, roots) not in _ABOVE:
        if len(_ABOVE) > _MOST_KNOWN:
            _ABOVE.clear()
        keys = await session.scalar(_STOOD_ABOVE, {"roots": sorted(roots)})
        _ABOVE[tree, roots] = frozenset(keys or ())
    return _ABOVE[tree, roots]


async def resolve(
    session: AsyncSession, sets: Collection[frozenset[int]], tree: Tree
) -> dict[frozenset[int], Reach]:
    """Return the reach of each set of units: at most one statement, none while the tree stands."""
    ordered = [keys for keys in sets if keys and (tree, keys) not in _KNOWN]
    if ordered:
        parameters = {"sets": json.dumps([sorted(keys) for keys in ordered]), "today": tree.day}
        if len(_KNOWN) > _MOST_KNOWN:
            _KNOWN.clear()
        for keys, row in zip(ordered, await session.execute(_REACHES, parameters), strict=True):
            _KNOWN[tree, keys] = Reach(
                frozenset(row.provinces), frozenset(row.communes), frozenset(row.units)
            )
    return {keys: _KNOWN[tree, keys] if keys else NOWHERE for keys in sets}
