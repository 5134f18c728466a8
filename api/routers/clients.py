"""/v1/clients: systems that sign in by client credentials."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from api.auth.dependencies import PrincipalWriter, Session
from api.models.principals import ClientCreate, ClientRead, ClientSecret, PublicKeys
from api.routers.answers import created, tagged
from api.routers.routes import Strict
from api.services import principals

router = APIRouter(prefix="/v1/clients", tags=["identity"], route_class=Strict)


@router.post("", operation_id="create_client", status_code=201)
async def create_client(
    session: Session,
    caller: PrincipalWriter,
    body: ClientCreate,
    request: Request,
    response: Response,
) -> ClientSecret:
    """Create a system; `client_secret` is shown this once, and null with `jwks`."""
    client = await principals.create_client(session, caller, body)
    return created(request, response, (client, True))


@router.post("/{client_id}:rotate-secret", operation_id="rotate_client_secret")
async def rotate_client_secret(
    session: Session, caller: PrincipalWriter, client_id: UUID, response: Response
) -> ClientSecret:
    """Give a client that the caller made a new secret; the old one ends at once."""
    return tagged(response, await principals.rotate_secret(session, caller, client_id))


@router.put("/{client_id}/jwks", operation_id="replace_client_keys")
async def replace_client_keys(
    session: Session,
    caller: PrincipalWriter,
    client_id: UUID,
    body: PublicKeys,
    response: Response,
) -> ClientRead:
    """Replace the public keys of a client that the caller made; those left out end at once.

    Send the old and the new key together while the client changes over. One that had a secret
    signs in with its keys from now on.
    """
    return tagged(response, await principals.replace_keys(session, caller, client_id, body))
