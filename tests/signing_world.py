"""The test application with the signed setting: its file of keys, its database, tokens by hand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from locks import World, fill, unique_roles
from practice import Base, make_guard
from sqlalchemy import create_engine

from tenantguard import SigningFile, rls
from tenantguard.crypto.signing import SigningKey, make_signing_file

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL

ENVIRONMENT = "test"
ENTER = "public.tenantguard_enter"
VERIFIED = "public.tenantguard_verified"
TABLE = "public.tenantguard_signing_keys"


def signing_file(path: Path) -> SigningFile:
    return SigningFile(path, environment=ENVIRONMENT)


def build_signed(admin_url: URL, path: Path) -> World:
    """A filled and protected database that believes the keys in *path* only."""
    make_signing_file(path, environment=ENVIRONMENT)
    admin = create_engine(admin_url)
    roles = unique_roles()
    guard = make_guard(roles, signing=signing_file(path), signed_setting=True)
    Base.metadata.create_all(admin)
    fill(admin)
    rls.apply(admin, guard.catalog, roles, create_roles=True)
    push(admin, guard)
    return World(admin, guard, admin_url.set(username=roles.application))


def push(admin: Any, guard: Any) -> rls.Pushed:
    return rls.push_signing_keys(admin, guard.catalog, guard.signing.keys)


def token(key: SigningKey, tenant: object, *, process: int, seconds: float = 0) -> str:
    """What the application would send, *seconds* from now."""
    at = time.time_ns() // 1000 + int(seconds * 1_000_000)
    return rls.entry_token(key, str(tenant), process=process, at=at)
