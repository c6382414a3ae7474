"""Values that name tenants: which are accepted, and when two are the same."""

from collections.abc import Collection
from typing import Any, cast
from uuid import UUID

from tenantguard.context import TenantId
from tenantguard.errors import ConfigurationError

__all__ = ["answered", "tenant_id", "text_of", "texts_of"]


def tenant_id(value: object) -> TenantId | None:
    """Return *value* if it can be a tenant's id: a UUID, an int or a non-empty str."""
    valid = isinstance(value, UUID | int | str) and not isinstance(value, bool) and value != ""
    return cast("TenantId", value) if valid else None


def answered(value: object) -> TenantId | None:
    """Return what a resolver or a lookup has answered."""
    if value is not None and tenant_id(value) is None:
        raise ConfigurationError(
            "A resolver, its lookup or what it is checked against returned neither a tenant's id "
            "nor None. Return the id itself: a UUID, an int or a non-empty str."
        )
    return cast("TenantId | None", value)


def text_of(tenant: TenantId) -> str:
    """Return the one text that names *tenant*, whatever a subclass prints."""
    if isinstance(tenant, UUID):
        return UUID.__str__(tenant)
    return int.__repr__(tenant) if isinstance(tenant, int) else str.__str__(tenant)


def texts_of(members: Any) -> set[str]:
    """Return the texts that name *members*, one id or a collection of them."""
    # Bytes are a collection of small integers, and a str one of letters.
    single = not isinstance(members, Collection) or isinstance(
        members, str | bytes | bytearray | memoryview
    )
    answers = map(answered, [members] if single else members)
    return {text_of(answer) for answer in answers if answer is not None}
