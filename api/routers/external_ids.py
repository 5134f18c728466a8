"""What the nouns share of `PUT …/by-external-id/{system}/{external_id}`."""

from typing import Annotated, Final

from fastapi import Depends, Path, Request, Response

from api.models.types import ExternalId, Output, SystemName
from api.routers.answers import tagged

BY_EXTERNAL_ID: Final = "/by-external-id/{system}/{external_id:path}"


def _name(
    system: Annotated[SystemName, Path(description="The name of the client's system")],
    external_id: Annotated[ExternalId, Path(description="The row's id there")],
) -> tuple[str, str]:
    return system, external_id


ExternalName = Annotated[tuple[str, str], Depends(_name)]


def upserted[Resource: Output](
    request: Request, response: Response, outcome: tuple[Resource, bool]
) -> Resource:
    """Answer 201 or 200, with the `Location` of the resource itself."""
    resource, is_new = outcome
    response.status_code = 201 if is_new else 200
    collection = request.url.path.partition("/by-external-id/")[0]
    response.headers["Location"] = f"{collection}/{resource.id}"
    return tagged(response, resource)
