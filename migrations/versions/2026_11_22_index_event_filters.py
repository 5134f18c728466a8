"""Index the events of a province by service and status, and by status and outcome.

A province has hundreds of thousands of events: to find the few of a rare service, or those that
were rejected, all of them were read. Within a commune they are few enough to be read.
"""

from migrations.scripts import run

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

INDEXES = """
create index on support_event (province_key, service_type, status, occurred_at, id);
create index on support_event (province_key, status, outcome, occurred_at, id);
"""


def upgrade() -> None:
    """Create the indexes: about a minute for ten million events, in which none is recorded."""
    run(INDEXES)
