"""Ids of other systems: how they are changed."""

from typing import Annotated

from pydantic import Field

from api.models.types import ExternalId, SystemName

ExternalIdsPatch = Annotated[dict[SystemName, ExternalId | None], Field(max_length=10)]
"""A merge patch: systems that are not named keep their ids, null takes one back."""
