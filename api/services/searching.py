"""Accent-insensitive search: `Muong Khuong` finds Mường Khương."""

from typing import Any

from sqlalchemy import ColumnElement, func


def contains(column: Any, part: str) -> ColumnElement[bool]:
    r"""Match names that contain `part`, accents and case aside; `%` and `_` are themselves."""
    escaped = part.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    matches: ColumnElement[bool] = column.like(func.concat("%", func.search_text(escaped), "%"))
    return matches
