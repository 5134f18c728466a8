"""The demo on the operator's console: a progress bar, and the accounts to sign in with."""

import asyncio
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from api.auth.secrets import Secrets
from api.demo import PASSWORD, list_accounts, load_demo
from api.embedded import Urls


def load(urls: Urls, secret: str, hash_keys: Sequence[str], **size: Any) -> None:
    """Fill the empty database, with a progress bar; `size` is `load_demo`'s."""
    columns = TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("demo", total=1.0)

        def progress(step: str, done: float) -> None:
            bar.update(task, description=step, completed=done)

        keys = Secrets(secret, hash_keys)
        asyncio.run(load_demo(urls.app, keys, owner_url=urls.owner, progress=progress, **size))


def show_accounts(urls: Urls) -> None:
    """Print the demo's accounts, one a role."""
    if accounts := asyncio.run(list_accounts(urls.app)):
        typer.echo(f"Generated demo data; the password of each account is {PASSWORD}", err=True)
        for account in accounts:
            typer.echo(f"  {account.username:<24}{account.place}", err=True)
