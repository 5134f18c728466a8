"""Look the scope of rolls up by hash: an answer may be made up of thousands of communes.

Compared one by one, as where an index is to be driven, the keys of the country's communes cost more
than all else of its totals. Rolls are found by their primary key, whoever asks.
"""

from migrations.scripts import run

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_KEYS = "{column} in (select unnest(scope_keys(array['aggregates_read'], '{kind}')))"
_COLUMNS = {"province_key": "provinces", "commune_key": "communes", "unit_key": "units"}


def upgrade() -> None:
    """Change the policy."""
    terms = [_KEYS.format(column=column, kind=kind) for column, kind in _COLUMNS.items()]
    run(f"alter policy event_roll_select on event_roll using ({' or '.join(terms)})")
