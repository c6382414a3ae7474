"""The signed setting: a tenant that row-level security believes only if the application signed it.

`tenantguard_enter` checks the application's signature once, at the very start of a transaction, and
leaves a proof for that transaction; `tenantguard_verified`, which the restrictive policies call,
returns the tenant only with the proof. Both signatures are HMAC-SHA256 (RFC 2104) with a key that
no role of the application can read.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

from tenantguard.catalog import SETTING
from tenantguard.rls.lookups import hand_over
from tenantguard.rls.names import DEFAULT_SCHEMA, column_list, plain_literal, qualified
from tenantguard.rls.step import Kind, Phase, Signed, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Catalog, Roles
    from tenantguard.rls.step import Target

__all__ = [
    "ENTER",
    "SIGNING_TABLE",
    "VERIFIED",
    "SigningKey",
    "blocks",
    "enter_function",
    "entry_token",
    "signed_steps",
    "signing_target",
    "verified_call",
]

SIGNING_TABLE = "tenantguard_signing_keys"
"""Stands in the schema of the registry, as the functions do."""

ENTER = "tenantguard_enter"
VERIFIED = "tenantguard_verified"

_PROOF = "tenantguard.proof"
_WINDOW = 10
"""How many seconds the signature's time and the transaction's may be apart."""

_ENTERING = "tenantguard.enter"
_BOUND = "tenantguard.bound"
_BLOCK = 64

# What is given is compared by its digest: how long that takes says nothing of what would be right.
# Errors have no value in their text.
_ENTER_BODY = """
DECLARE
    said text := substr(token, 75);
    inside bytea;
    outside bytea;
    tenant text;
BEGIN
    SELECT k.inner_block, k.outer_block INTO inside, outside
        FROM {table} AS k WHERE k.id = left(token, 8);
    IF inside IS NULL OR outside IS NULL THEN
        RAISE EXCEPTION 'tenantguard: no such signing key' USING ERRCODE = 'TG001';
    END IF;
    IF statement_timestamp() IS DISTINCT FROM transaction_timestamp() THEN
        RAISE EXCEPTION 'tenantguard: not the start of a transaction' USING ERRCODE = 'TG002';
    END IF;
    IF sha256(convert_to(substr(token, 9, 66), 'UTF8'))
        IS DISTINCT FROM sha256(convert_to('.' || {entering} || '.', 'UTF8')) THEN
        RAISE EXCEPTION 'tenantguard: not signed for this connection' USING ERRCODE = 'TG003';
    END IF;
    IF abs(extract(epoch FROM transaction_timestamp()) * 1000000
        - split_part(said, '.', 1)::bigint) > {window} THEN
        RAISE EXCEPTION 'tenantguard: signed at another time' USING ERRCODE = 'TG004';
    END IF;
    tenant := substr(said, strpos(said, '.') + 1);
    PERFORM set_config({setting}, tenant, true),
        set_config({proof}, left(token, 8) || '.' || {bound}, true);
END
"""

_VERIFIED_BODY = """
DECLARE
    tenant text := nullif(current_setting({setting}, true), '');
    proof text := current_setting({proof}, true);
    inside bytea;
    outside bytea;
BEGIN
    SELECT k.inner_block, k.outer_block INTO inside, outside
        FROM {table} AS k WHERE k.id = left(proof, 8);
    IF sha256(convert_to(substr(proof, 9), 'UTF8'))
        = sha256(convert_to('.' || {bound}, 'UTF8')) THEN
        RETURN tenant;
    END IF;
    RETURN NULL;
END
"""


class SigningKey(Protocol):
    """A key that signs, by its id."""

    @property
    def id(self) -> str:
        """What names the key, eight characters."""

    def sign(self, purpose: str, message: bytes) -> bytes:
        """Return the HMAC-SHA256 of `PURPOSE|message`."""


def signing_target(catalog: Catalog) -> Target:
    """Return schema and name of the table of signing keys."""
    return (catalog.registry.schema or DEFAULT_SCHEMA, SIGNING_TABLE)


def verified_call(catalog: Catalog) -> str | None:
    """Return the expression of the proven tenant, as text; None without a signed setting."""
    return f"{_function(catalog, VERIFIED)}()" if catalog.signed else None


def enter_function(catalog: Catalog) -> str:
    """Return the name of the function that enters a tenant, given its token."""
    return _function(catalog, ENTER)


def entry_token(key: SigningKey, tenant: str, *, process: int, at: int) -> str:
    """Return what `tenantguard_enter` believes: the key's id, its signature, and what it says.

    Args:
        key: The key that signs.
        tenant: The tenant's id as text.
        process: The process id of the server's backend.
        at: The server's time, in microseconds since 1970.
    """
    said = f"{at}.{tenant}"
    signature = key.sign(_ENTERING, struct.pack(">i", process) + said.encode())
    return f"{key.id}.{signature.hex()}.{said}"


def blocks(secret: bytes) -> tuple[bytes, bytes]:
    """Return the padded blocks with which HMAC's inner and outer digest begin, 64 bytes each."""
    padded = secret.ljust(_BLOCK, b"\0")
    return bytes(each ^ 0x36 for each in padded), bytes(each ^ 0x5C for each in padded)


def signed_steps(catalog: Catalog, roles: Roles) -> Iterator[Step]:
    """Yield the steps of the table of keys and of both functions, if the setting is signed."""
    if not catalog.signed:
        return
    yield _table(catalog, roles)
    table = qualified(signing_target(catalog))
    words = {
        "table": table,
        "setting": plain_literal(SETTING),
        "proof": plain_literal(_PROOF),
        "window": str(_WINDOW * 1_000_000),
        "entering": _hmac(_ENTERING, "convert_to(said, 'UTF8')"),
        "bound": _hmac(
            _BOUND, "timestamptz_send(transaction_timestamp()) || convert_to(tenant, 'UTF8')"
        ),
    }
    callers = (roles.application, roles.support)
    enter = Signed(
        _ENTER_BODY.format(**words), "token text", "void", "v", "u", roles.maintenance, callers
    )
    verified = Signed(
        _VERIFIED_BODY.format(**words), "", "text", "s", "r", roles.maintenance, callers
    )
    yield _function_step(catalog, ENTER, enter)
    yield _function_step(catalog, VERIFIED, verified)


def _function(catalog: Catalog, name: str) -> str:
    return qualified((signing_target(catalog)[0], name))


def _hmac(purpose: str, message: str) -> str:
    """Return the expression of the signature, in hexadecimal, of the backend's id and *message*."""
    return (
        f"encode(sha256(outside || sha256(inside || convert_to('{purpose}|', 'UTF8') "
        f"|| int4send(pg_backend_pid()) || {message})), 'hex')"
    )


def _table(catalog: Catalog, roles: Roles) -> Step:
    target = signing_target(catalog)
    name = qualified(target)
    everybody = f"PUBLIC, {column_list((roles.application, roles.support))}"
    readers = column_list((roles.maintenance, roles.backup))
    create = (
        "-- The keys are not in this script: `tenantguard rls signing push` puts them in.\n"
        f"CREATE TABLE IF NOT EXISTS {name} (\n"
        "    id text PRIMARY KEY,\n"
        f"    inner_block bytea NOT NULL CHECK (octet_length(inner_block) = {_BLOCK}),\n"
        f"    outer_block bytea NOT NULL CHECK (octet_length(outer_block) = {_BLOCK}),\n"
        "    created timestamptz NOT NULL\n"
        ")"
    )
    up = (
        create,
        f"REVOKE ALL ON TABLE {name} FROM {everybody}, {readers}",
        f"GRANT SELECT ON TABLE {name} TO {readers}",
    )
    wanted = Signed(callers=(roles.maintenance, roles.backup))
    drop = f"DROP TABLE IF EXISTS {name}"
    return Step(Phase.TABLES, target, Kind.SIGNED, SIGNING_TABLE, up, (drop,), wanted)


def _function_step(catalog: Catalog, name: str, wanted: Signed) -> Step:
    target = signing_target(catalog)
    signature = f"{_function(catalog, name)}({wanted.arguments.rpartition(' ')[2]})"
    volatility = {"v": "VOLATILE", "s": "STABLE"}[wanted.volatile]
    parallel = {"u": "UNSAFE", "r": "RESTRICTED"}[wanted.parallel]
    create = (
        f"CREATE OR REPLACE FUNCTION {_function(catalog, name)}({wanted.arguments})\n"
        f"    RETURNS {wanted.result}\n"
        f"    LANGUAGE plpgsql {volatility} SECURITY DEFINER PARALLEL {parallel}\n"
        "    SET search_path = pg_catalog, pg_temp\n"
        f"    AS {plain_literal(wanted.body)}"
    )
    up = (
        create,
        f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {signature} TO {column_list(wanted.callers)}",
        # The owner is what lets the function read the keys.
        hand_over(target[0], signature, wanted.owner),
    )
    drop = f"DROP FUNCTION IF EXISTS {signature}"
    return Step(Phase.TABLES, target, Kind.SIGNED, name, up, (drop,), wanted)
