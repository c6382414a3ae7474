"""One value of 16 bytes: to what the driver is given, and back, against the bare calls of Tink.

Binding is everything that is done for a value between the application's and the driver's: the
type's bind processor and, for tenantguard, the sealing of the row that it is in. SQLAlchemy's own
work, the same for all types, is not measured.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import tink
from bench import compare, report
from cryptography.fernet import Fernet
from fieldseal import FieldContext as FieldsealContext
from fieldseal import Fieldseal
from fieldseal.keyprovider import StaticKeyProvider
from pydantic_encryption import EncryptionMethod
from pydantic_encryption import settings as pydantic_settings
from pydantic_encryption.integrations.sqlalchemy import SQLAlchemyEncryptedValue
from sealed_fields import SealedFields, generate_key
from sealed_fields.sqlalchemy import SealedText
from sqlalchemy import LargeBinary, String, TypeDecorator, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy_utils import StringEncryptedType
from sqlalchemy_utils.types.encrypted.encrypted_type import AesEngine, AesGcmEngine
from tink import aead, prf

from tenantguard import Exact, encrypted_str, tenant_context
from tenantguard.columns.execution import _sealed, attach_encryption
from tenantguard.context import active_tenant
from tenantguard.crypto.format import INDEX_SIZE, PLAIN, search_input
from tenantguard.crypto.keysets import DataKeyset, IndexKeyset
from tenantguard.crypto.tenant_keys import TenantKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench import Work
    from sqlalchemy.types import TypeEngine

    from tenantguard.columns.types import Encrypted

VALUE = "Anna Abendschein"
TENANT = b"aaaaaaaa-0000-4000-8000-00000000000a"
OTHERS = 10
ROUNDS, REPEAT = 80, 500
DIALECT = create_engine("postgresql+psycopg://").dialect
attach_encryption(DIALECT, lambda *_: TenantKeys(b""))


class Base(DeclarativeBase):
    pass


class Patient(Base):
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int]
    plain: Mapped[str] = encrypted_str()
    exact: Mapped[str] = encrypted_str(search=Exact())
    folded: Mapped[str] = encrypted_str(search=Exact(normalize="nfc-casefold"))


@dataclass(frozen=True, slots=True)
class Bare:
    """Tink's primitives, and what tenantguard gives them for VALUE.

    Attributes:
        aead: Seals and opens.
        prf: Computes the blind index.
        data: Associated data as long as tenantguard's, without a blind index.
        indexed: The same with a blind index.
        searched: What the blind index is computed of.
    """

    aead: Any
    prf: Any
    data: bytes
    indexed: bytes
    searched: bytes

    def index_and_encrypt(self, plaintext: bytes) -> bytes:
        index: bytes = self.prf.compute(self.searched, INDEX_SIZE)
        sealed: bytes = self.aead.encrypt(plaintext, self.indexed)
        return index + sealed


def new_aead() -> Any:
    return tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)


def over_tink(key: Any, data: bytes = bytes(108)) -> TypeEngine[str]:
    """Return the least type that encrypts, with one key of Tink's and fixed associated data."""

    class Minimal(TypeDecorator[str]):
        impl = LargeBinary
        cache_ok = True

        def process_bind_param(self, value: str | None, dialect: Any) -> bytes | None:  # noqa: ARG002
            return None if value is None else key.encrypt(value.encode(), data)

        def process_result_value(self, value: bytes | None, dialect: Any) -> str | None:  # noqa: ARG002
            return None if value is None else key.decrypt(value, data).decode()

    return Minimal()


def over_fieldseal() -> TypeEngine[str]:
    """Return the least type over fieldseal, which has none: a key, a tenant and a column."""
    provider = StaticKeyProvider(os.urandom(16), os.urandom(32), os.urandom(32))
    suite = 0xFF01  # AES-256-GCM with a committed key; its only ones are provisional
    fields = Fieldseal(
        key_provider=provider,
        allowed_suites={suite},
        write_suite=suite,
        arm_provisional_suites=True,
    )
    names = uuid.uuid4().bytes, uuid.uuid4().bytes
    context = FieldsealContext(*names, tenant_id=TENANT)

    class Minimal(TypeDecorator[str]):
        impl = LargeBinary
        cache_ok = True

        def process_bind_param(self, value: str | None, dialect: Any) -> bytes | None:  # noqa: ARG002
            return None if value is None else fields.encrypt(value.encode(), context)

        def process_result_value(self, value: bytes | None, dialect: Any) -> str | None:  # noqa: ARG002
            return None if value is None else fields.decrypt(value, context).decode()

    return Minimal()


def pydantic_encryption() -> TypeEngine[str]:
    """Return its type with Fernet, the method of its that needs no service."""
    pydantic_settings.ENCRYPTION_METHOD = EncryptionMethod.FERNET
    pydantic_settings.ENCRYPTION_KEY = Fernet.generate_key().decode()
    made: TypeEngine[str] = SQLAlchemyEncryptedValue()
    return made


def others(bare: Bare) -> dict[str, TypeEngine[Any]]:
    provider = SealedFields({"fields": {"key": generate_key()}})
    return {
        "pydantic-encryption, Fernet": pydantic_encryption(),
        "TypeDecorator over fieldseal": over_fieldseal(),
        "TypeDecorator over Tink": over_tink(bare.aead, bare.data),
        "sealed-fields": SealedText(provider),
        "SQLAlchemy-Utils, AES-GCM": StringEncryptedType(String, generate_key(), AesGcmEngine),
        "SQLAlchemy-Utils, default": StringEncryptedType(
            String, generate_key(), AesEngine, "pkcs5"
        ),
    }


def calling(function: Callable[..., object], *arguments: object) -> Work:
    def run(times: int) -> None:
        for _ in repeat(None, times):
            function(*arguments)

    return run


def sealing(type_: TypeEngine[Any], keys: TenantKeys, *, beside: int = 0) -> Work:
    """Return the binding of VALUE in a row with *beside* other parameters."""
    process = binder(type_)
    row: dict[str, Any] = {f"other_{number}": number for number in range(beside)}

    def run(times: int) -> None:
        for _ in repeat(None, times):
            row["value"] = process(VALUE)
            _sealed(row, keys, row)

    return run


def binder(type_: TypeEngine[Any]) -> Callable[[str], Any]:
    process: Any = type_._cached_bind_processor(DIALECT)
    return process  # type: ignore[no-any-return]


def stored_by(type_: TypeEngine[Any]) -> Any:
    bound = binder(type_)(VALUE)
    # psycopg wraps bytes for the statement.
    return getattr(bound, "obj", bound)


def opener(type_: TypeEngine[Any]) -> Callable[[Any], str]:
    process: Any = type_._cached_result_processor(DIALECT, None)
    return process  # type: ignore[no-any-return]


def opening(type_: TypeEngine[Any], stored: Any) -> Work:
    process = opener(type_)
    if process(stored) != VALUE:
        raise ValueError("A type did not give back what it was given.")
    return calling(process, stored)


def measure(title: str, work: dict[str, Work]) -> None:
    report(title, compare(work, rounds=ROUNDS, repeat=REPEAT), base=next(iter(work)))


def columns() -> tuple[Encrypted, Encrypted, Encrypted]:
    table = Patient.__table__
    return table.c.plain.type, table.c.exact.type, table.c.folded.type  # type: ignore[return-value]


def binding(bare: Bare, keys: TenantKeys) -> None:
    plain, exact, folded = columns()
    work = {
        "Tink": calling(bare.aead.encrypt, VALUE.encode(), bare.data),
        "tenantguard": sealing(plain, keys),
        f"tenantguard, {OTHERS} others": sealing(plain, keys, beside=OTHERS),
    }
    work |= {name: calling(binder(type_), VALUE) for name, type_ in others(bare).items()}
    measure("Binding a text of 16 bytes", work)
    work = {
        "Tink, PRF and AEAD": calling(bare.index_and_encrypt, VALUE.encode()),
        "tenantguard, Exact()": sealing(exact, keys),
        f"tenantguard, {OTHERS} others": sealing(exact, keys, beside=OTHERS),
        "tenantguard, nfc-casefold": sealing(folded, keys),
    }
    measure("Binding it with a blind index", work)
    work = {
        "Tink, PRF": calling(bare.prf.compute, bare.searched, INDEX_SIZE),
        "tenantguard, Exact()": sealing(exact.search_value(None), keys),
        "tenantguard, nfc-casefold": sealing(folded.search_value(None), keys),
    }
    measure("Binding what is searched for", work)


def results(bare: Bare, keys: TenantKeys) -> None:
    plain, exact, _ = columns()
    stored = bare.aead.encrypt(VALUE.encode(), bare.data)
    work = {
        "Tink": calling(bare.aead.decrypt, stored, bare.data),
        "tenantguard": opening(plain, plain.field.seal(keys, VALUE)),
        "tenantguard, blind index": opening(exact, exact.field.seal(keys, VALUE)),
    }
    peers = {name: (each, stored_by(each)) for name, each in others(bare).items()}
    work |= {name: opening(*each) for name, each in peers.items()}
    measure("The result, a text of 16 bytes", work)
    print("\nStored bytes of a text of 16 bytes")
    sizes = {"tenantguard": len(plain.field.seal(keys, VALUE))}
    sizes["tenantguard, blind index"] = len(exact.field.seal(keys, VALUE))
    sizes |= {name: len(each[1]) for name, each in peers.items()}
    for name, size in sizes.items():
        print(f"  {name:<28} {size:6}")


def main() -> None:
    """Measure with keys that are there, as in every statement but a tenant's first."""
    data = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    index = tink.new_keyset_handle(prf.prf_key_templates.HMAC_SHA256)
    keys = TenantKeys(TENANT, DataKeyset(data), IndexKeyset(index))
    _, exact, _ = columns()
    context, prefix = exact.field.attached, exact.field.indexes[0].prefix
    associated = context.associated_data(TENANT, PLAIN)
    bare = Bare(
        data.primitive(aead.Aead),
        index.primitive(prf.PrfSet).primary(),
        associated,
        associated + bytes(INDEX_SIZE),
        search_input(prefix, b"\x01" + VALUE.encode()),
    )
    with tenant_context(1):
        active: Any = active_tenant()
        active.keys = keys
        binding(bare, keys)
        results(bare, keys)
