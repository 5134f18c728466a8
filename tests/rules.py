"""What holds for every noun, tried on one of its rows over HTTP."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from api import ids

type Body = dict[str, Any]
AT_ONCE = 20
OF_THE_REQUEST = frozenset({"x-request-id", "ratelimit"})
"""Headers that differ between any two requests of a caller: its name, what is left of the share."""


def fault(response: httpx.Response) -> tuple[int, str, str]:
    """Return the status and the first field at fault with its code."""
    error = response.json()["errors"][0]
    return response.status_code, error["pointer"], error["code"]


def problem(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of a problem."""
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


def same_answer(one: httpx.Response, other: httpx.Response) -> bool:
    """Tell whether two refusals are the same bytes, but for the request's id."""
    assert one.status_code >= 400, one.text
    ids_of = [answer.json()["request_id"].encode() for answer in (one, other)]
    blank = [answer.content.replace(i, b"") for answer, i in zip((one, other), ids_of, strict=True)]
    headers = [
        {k: v for k, v in answer.headers.items() if k not in OF_THE_REQUEST}
        for answer in (one, other)
    ]
    return blank[0] == blank[1] and headers[0] == headers[1]


async def walk(client: httpx.AsyncClient, path: str, **params: Any) -> list[Body]:
    """Turn every page of a list."""
    response = await client.get(f"/v1/{path}", params=params)
    assert response.status_code == 200, response.text
    items: list[Body] = response.json()["items"]
    while "next" in response.links:
        response = await client.get(response.links["next"]["url"])
        assert response.status_code == 200, response.text
        items += response.json()["items"]
    assert response.json()["next_cursor"] is None
    return items


async def ids_in(client: httpx.AsyncClient, path: str, **params: Any) -> set[str]:
    """Return the ids of a list."""
    items = await walk(client, path, **params)
    found = {item["id"] for item in items}
    assert len(found) == len(items)
    return found


class Row:
    """One row on its way: its id never changes, its versions count up."""

    def __init__(self, client: httpx.AsyncClient, path: str, row_id: str) -> None:
        self.client, self.path, self.id = client, path, row_id
        self.url = f"/v1/{path}/{row_id}"

    async def get(self) -> Body:
        response = await self.client.get(self.url)
        assert response.status_code == 200, response.text
        body: Body = response.json()
        assert response.headers["ETag"] == f'"{body["version"]}"'
        return body

    async def patch(self, etag: str = "*", **change: Any) -> httpx.Response:
        return await self.client.patch(self.url, json=change, headers={"If-Match": etag})

    async def delete(self, etag: str = "*") -> httpx.Response:
        return await self.client.delete(self.url, headers={"If-Match": etag})

    async def undelete(self, etag: str = "*") -> httpx.Response:
        return await self.client.post(f"{self.url}:undelete", headers={"If-Match": etag})


async def created_once(
    client: httpx.AsyncClient, path: str, body: Body, other: Body, *foreign: httpx.AsyncClient
) -> Row:
    """A create is 201, its repetition 200; the same id with other content 409 for everybody."""
    body, other = ({**given, "id": body.get("id") or str(ids.new_id())} for given in (body, other))
    other["id"] = body["id"]
    made = await client.post(f"/v1/{path}", json=body)
    assert made.status_code == 201, made.text
    assert made.headers["Location"] == f"/v1/{path}/{body['id']}"
    assert made.headers["ETag"] == '"1"'
    again = await client.post(f"/v1/{path}", json=body)
    assert (again.status_code, again.json()) == (200, made.json())
    assert again.headers["ETag"] == '"1"'
    mine = await client.post(f"/v1/{path}", json=other)
    assert problem(mine) == (409, "id_conflict")
    for stranger in foreign:
        assert same_answer(mine, await stranger.post(f"/v1/{path}", json=other))
    typo = await client.post(f"/v1/{path}", json=body | {"typo": 1})
    assert fault(typo) == (422, "/typo", "extra_forbidden")
    row = Row(client, path, body["id"])
    assert await row.get() == made.json()

    changed = await row.patch(**_difference(body, other))
    assert (changed.status_code, changed.json()["version"]) == (200, 2), changed.text
    late = await client.post(f"/v1/{path}", json=body)
    assert (late.status_code, late.json()) == (200, changed.json())
    return row


def _difference(body: Body, other: Body) -> Body:
    return {name: value for name, value in other.items() if body.get(name) != value}


async def changed_on_its_version(row: Row, change: Body, required: str) -> None:
    """If-Match is asked for, compared, and left alone by what changes nothing."""
    before = await row.get()
    etag = f'"{before["version"]}"'
    missing = await row.client.patch(row.url, json=change)
    assert problem(missing) == (428, "precondition_required")
    stale = await row.patch('"999"', **change)
    assert problem(stale) == (412, "precondition_failed")
    assert stale.json()["current"] == before
    assert stale.headers["ETag"] == etag
    assert fault(await row.patch("W/1", **change)) == (
        422,
        "/header/If-Match",
        "version_invalid",
    )
    assert fault(await row.patch(etag, **{required: None})) == (
        422,
        f"/{required}",
        "not_nullable",
    )
    assert fault(await row.patch(etag, typo=1)) == (422, "/typo", "extra_forbidden")
    typo = await row.client.get(row.url, params={"typo": 1})
    assert fault(typo) == (422, "/query/typo", "unknown_parameter")
    listed = await row.client.get(f"/v1/{row.path}", params={"typo": 1})
    assert fault(listed) == (422, "/query/typo", "unknown_parameter")

    same = await row.patch(etag, **{name: before[name] for name in change})
    assert (same.status_code, same.headers["ETag"], same.json()) == (200, etag, before)
    merge = {"If-Match": etag, "Content-Type": "application/merge-patch+json"}
    changed = await row.client.patch(row.url, json=change, headers=merge)
    assert changed.status_code == 200, changed.text
    assert changed.json() == await row.get()
    assert changed.json()["version"] == before["version"] + 1
    assert changed.json()["updated_at"] > before["updated_at"]
    assert {name: changed.json()[name] for name in change} == change
    anyway = await row.patch("*", **{name: before[name] for name in change})
    assert anyway.json()["version"] == before["version"] + 2


async def hidden_by_delete(row: Row, body: Body) -> None:
    """DELETE hides; the create, repeated, still finds the row as it is."""
    before = await row.get()
    url = row.url
    assert problem(await row.client.delete(url)) == (428, "precondition_required")
    assert problem(await row.delete('"999"')) == (412, "precondition_failed")
    assert (await row.delete(f'"{before["version"]}"')).status_code == 204
    gone = [await row.client.get(url), await row.patch(), await row.delete()]
    assert [answer.status_code for answer in gone] == [404, 404, 404]
    assert same_answer(gone[0], await row.client.get(f"/v1/{row.path}/{ids.new_id()}"))
    assert row.id not in await ids_in(row.client, row.path, limit=200)
    again = await row.client.post(f"/v1/{row.path}", json=body | {"id": row.id})
    assert again.status_code == 200, again.text
    assert again.json()["version"] == before["version"] + 1
    assert (await row.client.get(url)).status_code == 404


async def brought_back(row: Row, *foreign: httpx.AsyncClient) -> None:
    """A deleted row comes back with `:undelete`, on its version, once."""
    url = f"{row.url}:undelete"
    assert problem(await row.client.post(url)) == (428, "precondition_required")
    stale = await row.undelete('"999"')
    assert problem(stale) == (412, "precondition_failed")
    for stranger in foreign:
        refused = await Row(stranger, row.path, row.id).undelete()
        assert refused.status_code == 404
    back = await row.undelete(stale.headers["ETag"])
    assert (back.status_code, back.json()) == (200, await row.get())
    assert back.json()["version"] == stale.json()["current"]["version"] + 1
    again = await row.undelete()
    assert (again.status_code, again.json()) == (200, back.json())
    for stranger in foreign:
        refused = await Row(stranger, row.path, row.id).undelete()
        assert same_answer(refused, await Row(stranger, row.path, str(ids.new_id())).undelete())


async def unseen_by(stranger: httpx.AsyncClient, row: Row, **change: Any) -> None:
    """A row out of scope and one that is not there are the same answer on every path."""
    theirs, absent = (Row(stranger, row.path, i) for i in (row.id, str(ids.new_id())))
    for one, other in (
        (await stranger.get(theirs.url), await stranger.get(absent.url)),
        (await theirs.patch(**change), await absent.patch(**change)),
        (await theirs.delete(), await absent.delete()),
    ):
        assert one.status_code == 404, one.text
        assert same_answer(one, other)
    assert row.id not in await ids_in(stranger, row.path, limit=200)


async def safe_at_once(
    client: httpx.AsyncClient, path: str, body: Body, change: Callable[[int], Body]
) -> None:
    """Of simultaneous creates one is new; of simultaneous changes of a version one is taken."""
    row = Row(client, path, str(ids.new_id()))
    made = await asyncio.gather(
        *(client.post(f"/v1/{path}", json=body | {"id": row.id}) for _ in range(AT_ONCE))
    )
    assert sorted(answer.status_code for answer in made) == [200] * (AT_ONCE - 1) + [201]
    assert all(answer.json() == made[0].json() for answer in made)
    changed = await asyncio.gather(*(row.patch('"1"', **change(n)) for n in range(AT_ONCE)))
    assert sorted(answer.status_code for answer in changed) == [200] + [412] * (AT_ONCE - 1)
    taken = next(answer.json() for answer in changed if answer.status_code == 200)
    assert await row.get() == taken
    assert all(answer.json()["current"] == taken for answer in changed if answer.status_code == 412)


async def upserted(
    client: httpx.AsyncClient, other: httpx.AsyncClient, path: str, body: Body, change: Body
) -> Body:
    """A portal writes under its own id: 201, then 200; only what changes moves the ETag."""
    url = f"/v1/{path}/by-external-id/portal/12%2FQĐ"
    sent = await asyncio.gather(*(client.put(url, json=body) for _ in range(AT_ONCE)))
    assert sorted(answer.status_code for answer in sent) == [200] * (AT_ONCE - 1) + [201]
    made = sent[0].json()
    assert all(answer.json() == made for answer in sent)
    assert sent[0].headers["Location"] == f"/v1/{path}/{made['id']}"
    assert sent[0].headers["ETag"] == '"1"'
    assert made["external_ids"] == {"portal": "12/QĐ"}
    assert await ids_in(client, path, external_id="portal:12/QĐ") == {made["id"]}
    changed = await client.put(url, json=body | change)
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"'), changed.text
    assert {name: changed.json()[name] for name in change} == change
    row = Row(client, path, made["id"])
    assert await row.get() == changed.json()
    assert (await client.put(url, json=body | change)).headers["ETag"] == '"2"'

    refused = await other.put(url, json=body)
    assert problem(refused) == (409, "external_id_conflict")
    mismatch = await client.put(url, json=body | {"external_ids": {"portal": "13"}})
    assert fault(mismatch) == (422, "/external_ids/portal", "not_as_in_path")
    assert fault(await client.put(url, json=body | {"id": made["id"]})) == (
        422,
        "/id",
        "extra_forbidden",
    )
    more = await client.put(url, json=body | {"external_ids": {"portal.two": "x"}})
    assert more.json()["external_ids"] == {"portal": "12/QĐ", "portal.two": "x"}
    assert (await row.delete()).status_code == 204
    back = await client.put(url, json=body)
    assert (back.status_code, back.json()["id"]) == (200, made["id"]), back.text
    return back.json()  # type: ignore[no-any-return]
