"""The answer of the health checks."""

from sqlmodel import SQLModel


class Health(SQLModel):
    """`ok`, or a problem instead."""

    status: str
