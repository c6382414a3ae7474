"""Resolvers of what the application has verified: the client cannot choose it."""

from typing import Any

from tenantguard.errors import ConfigurationError
from tenantguard.resolvers.values import tenant_id
from tenantguard.resolvers.view import Membership, RequestView, Resolver

__all__ = ["session_key", "user_attribute", "user_tenants", "verified_claim"]

_MISSING = object()


def session_key(name: str = "tenant_id") -> Resolver:
    """Resolve the tenant from *name* in the framework's signed session.

    The application writes it there at sign-in, after it has verified the user. The client cannot
    choose it.
    """
    return lambda request: tenant_id(request.session.get(name))


def verified_claim(name: str = "tenant_id") -> Resolver:
    """Resolve the tenant from claim *name* of the token that the application has verified.

    The client cannot choose it, as long as the application hands over claims only after it has
    checked signature, issuer, audience and expiry.
    """
    return lambda request: tenant_id((request.claims or {}).get(name))


def user_attribute(name: str = "tenant_id") -> Resolver:
    """Resolve the tenant from attribute *name* of the signed-in user; nobody names none.

    The client cannot choose it. Reading the attribute must send no query: no tenant is active yet.

    Raises:
        ConfigurationError: On a request whose user has no such attribute.
    """
    return lambda request: tenant_id(_attribute(request.user, name))


def user_tenants(name: str = "tenant_ids") -> Membership:
    """Name all tenants of the signed-in user, for `checked(…, against=user_tenants())`.

    Args:
        name: The user's attribute, with a collection of ids; None counts as an empty one.

    Raises:
        ConfigurationError: On a request whose user has no such attribute.
    """

    def members(request: RequestView) -> Any:
        user = request.user
        found = _attribute(user, name)
        return () if found is None and user is not None else found

    return members


def _attribute(user: Any, name: str) -> Any:
    if user is None:
        return None
    found = getattr(user, name, _MISSING)
    if found is _MISSING:
        raise ConfigurationError(
            f"The signed-in user has no attribute {name!r}. Name the attribute that holds the "
            "tenant's id, or give the adapter a user= that has it."
        )
    return found
