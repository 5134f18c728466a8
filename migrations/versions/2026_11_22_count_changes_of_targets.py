"""Count changes of targets, so that it is seen whether their progress still holds."""

from migrations.scripts import run

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the trigger."""
    run("""
        create trigger count_change after insert or update or delete or truncate on target
            for each statement execute function count_change('target');
    """)
