"""What a resolver gets, and what it is."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from tenantguard.context import TenantId

__all__ = ["Membership", "NameLookup", "RequestView", "Resolver"]


class RequestView(Protocol):
    """What a resolver may look at; each framework adapter provides one."""

    @property
    def host(self) -> str:
        """The host the client asked for, without the port."""

    @property
    def path(self) -> str:
        """The path the client asked for, percent-decoded, as the application's routes have it."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers; names are case-insensitive."""

    @property
    def session(self) -> Mapping[str, Any]:
        """The framework's signed session; empty where there is none."""

    @property
    def claims(self) -> Mapping[str, Any]:
        """The claims of a token that the application has verified; empty where there is none."""

    @property
    def user(self) -> Any:
        """The user whom the application has signed in; None where there is none."""


Resolver = Callable[[RequestView], TenantId | Awaitable[TenantId | None] | None]
"""Names the tenant of a request; may be asynchronous where the framework is."""

NameLookup = Callable[[str], TenantId | Awaitable[TenantId | None] | None]
"""Turns a name from a request into a tenant's id, or None; may be asynchronous."""

Membership = Callable[[RequestView], Any]
"""Names the signed-in user's tenants: an id, a collection of ids, or None where nobody is signed
in; may be asynchronous."""
