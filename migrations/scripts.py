"""Running a script of several statements inside a migration."""

from typing import Any

from alembic import op


def run(script: str) -> None:
    """Execute a script as it is: the driver's simple protocol takes several statements."""
    connection: Any = op.get_bind().connection.dbapi_connection
    connection.run_async(lambda driver: driver.execute(script))


def _within(columns: dict[str, str], permissions: tuple[str, ...]) -> str:
    """Return the condition of scope; each array is read once a statement, as an init plan."""
    wanted = "array[" + ", ".join(f"'{p}'" for p in permissions) + "]"
    terms = []
    for column, kind in columns.items():
        array = f"scope_keys({wanted}, '{kind}'))::integer[]"
        if kind == "teams":
            array = f"scope_teams({wanted}))::uuid[]"
        terms.append(f"{column} = any ((select {array})")
    return "(" + " or ".join(terms) + ")"


PLACED = {"province_key": "provinces", "commune_key": "communes", "unit_key": "units"}


def policy(
    table: str,
    action: str,
    permissions: tuple[str, ...],
    columns: dict[str, str],
    *,
    template: str = "{within}",
    to: str = "noidai_app",
) -> str:
    """Return a policy that lets `action` through where one of the permissions reaches the row.

    `columns` maps a column to the array of the caller's reach that may hold it: provinces,
    communes, units or teams. The filters of `api/auth/scope.py` say the same in the application.
    """
    name = f"{table}_{action}" if to == "noidai_app" else f"{table}_{action}_{to}"
    condition = template.format(within=_within(columns, permissions))
    using = f" using ({condition})" if action in {"select", "update", "delete"} else ""
    check = f" with check ({condition})" if action in {"insert", "update"} else ""
    return f"create policy {name} on {table} as permissive for {action} to {to}{using}{check};\n"


def secure(*tables: str) -> str:
    """Return the statements that bind everybody, the owner included, to the policies."""
    return "".join(
        f"alter table {table} enable row level security;\n"
        f"alter table {table} force row level security;\n"
        for table in tables
    )


def audited(table: str, resource: str, shown: str) -> str:
    """Return the triggers that write a table's entries in the audit, one set a statement.

    `shown` names the columns that an entry may show; all others appear as `***`.
    """
    arguments = f"'{resource}', 'version deleted_at {shown}'"
    rows = {
        "insert": "new table as new_rows",
        "update": "old table as old_rows new table as new_rows",
        "delete": "old table as old_rows",
    }
    return "".join(
        f"create trigger audit_{action} after {action} on {table} referencing {referencing}\n"
        f"    for each statement execute function audit_rows({arguments});\n"
        for action, referencing in rows.items()
    )
