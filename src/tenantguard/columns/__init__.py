"""Encrypted columns: declaring them, and keeping statements from asking what ciphertext cannot.

Values are sealed in the execution context, after the transaction has begun and its tenant's keys
are there, and opened when a row is fetched.
"""

from tenantguard.columns import compound_objects  # noqa: F401  (it listens)
from tenantguard.columns.both import both
from tenantguard.columns.compound import encrypted_compound
from tenantguard.columns.factories import (
    encrypted_bool,
    encrypted_bytes,
    encrypted_date,
    encrypted_datetime,
    encrypted_decimal,
    encrypted_dict,
    encrypted_enum,
    encrypted_float,
    encrypted_int,
    encrypted_json,
    encrypted_list,
    encrypted_str,
    encrypted_time,
    encrypted_uuid,
)
from tenantguard.columns.guarded import RevealEvent
from tenantguard.columns.masks import Masked, Unreadable, is_masked
from tenantguard.columns.search import Exact, Last, Prefix
from tenantguard.columns.searched import searched

__all__ = [
    "Exact",
    "Last",
    "Masked",
    "Prefix",
    "RevealEvent",
    "Unreadable",
    "both",
    "encrypted_bool",
    "encrypted_bytes",
    "encrypted_compound",
    "encrypted_date",
    "encrypted_datetime",
    "encrypted_decimal",
    "encrypted_dict",
    "encrypted_enum",
    "encrypted_float",
    "encrypted_int",
    "encrypted_json",
    "encrypted_list",
    "encrypted_str",
    "encrypted_time",
    "encrypted_uuid",
    "is_masked",
    "searched",
]
