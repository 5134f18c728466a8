"""Running what is measured: real processes, one folder of data, an administrator."""

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from tests.bench import load

ENVIRONMENT = {"NOIDAI_RATE_LIMIT": "1000000/second"}  # counted, never reached
PATIENCE = 30  # seconds for a process to begin or to end


@contextmanager
def process(port: int, *arguments: str, **environment: str) -> Iterator[None]:
    """Run a Python module that serves on the port, from its first answer on; end it by its pid."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NOIDAI_")}
    with subprocess.Popen([sys.executable, "-m", *arguments], env=clean | environment) as child:
        try:
            uvloop.run(_answers(child, port))
            yield
        finally:
            child.terminate()
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()


async def _answers(child: subprocess.Popen[bytes], port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while child.poll() is None:
            try:
                await load.ask(port, load.request("GET", "/health/live"), 200)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return
    raise SystemExit(f"a server ended with code {child.returncode}")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def sign_in(port: int, username: str, password: str) -> str:
    """Return an access token."""
    body = f'{{"username":"{username}","password":"{password}"}}'
    _, answer = await load.ask(port, load.request("POST", "/v1/sessions", body), 201)
    return str(answer["access_token"])


@contextmanager
def served(folder: str | Path) -> Iterator[tuple[int, str]]:
    """Serve a folder of data; yield the port and the token of a new national administrator."""
    settings = ENVIRONMENT | {
        "NOIDAI_DATA_DIR": str(folder),
        "NOIDAI_SECRET_KEY": secrets.token_hex(32),
        "NOIDAI_ACCESS_TOKEN_MINUTES": "60",
    }
    clean = {name: value for name, value in os.environ.items() if name[:7] != "NOIDAI_"}
    username, password = "bench.admin", secrets.token_urlsafe(16)
    first = (sys.executable, "-m", "api.cli", "bootstrap", "--username", username)
    subprocess.run(
        [*first, "--password-stdin"],
        input=f"{password}\n".encode(),
        env=clean | settings,
        check=True,
    )
    port = free_port()
    with process(port, "api.cli", "serve", "--port", str(port), **settings):
        yield port, uvloop.run(sign_in(port, username, password))
