"""Tables, and the schemas of the same noun beside them."""

from api.models import (
    admin_units,
    audit_entries,
    consent_entries,
    data_subject_requests,
    devices,
    event_versions,
    households,
    identities,
    indicators,
    members,
    principals,
    reorganisations,
    role_grants,
    service_types,
    support_events,
    teams,
)
from api.models.base import metadata

__all__ = [
    "admin_units",
    "audit_entries",
    "consent_entries",
    "data_subject_requests",
    "devices",
    "event_versions",
    "households",
    "identities",
    "indicators",
    "members",
    "metadata",
    "principals",
    "reorganisations",
    "role_grants",
    "service_types",
    "support_events",
    "teams",
]
