"""The shape of a list's answer."""

from sqlmodel import SQLModel


class Page[Item](SQLModel):
    """One page; `next_cursor` is null on the last, `total` only when asked for."""

    items: list[Item]
    next_cursor: str | None
    total: int | None = None
