"""From a request to a tenant id.

A resolver looks at a `RequestView` and returns the tenant's id, or None when the request names
none; the adapter answers None with 403. A resolver never falls back to a default tenant.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from tenantguard.context import TenantId

__all__ = ["RequestView", "Resolver", "session_key"]


class RequestView(Protocol):
    """What a resolver may look at; each framework adapter provides one."""

    @property
    def host(self) -> str:
        """The host the client asked for, without the port."""

    @property
    def path(self) -> str:
        """The path the client asked for."""

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


Resolver = Callable[[RequestView], TenantId | None | Awaitable[TenantId | None]]
"""Names the tenant of a request; may be asynchronous where the framework is."""


def session_key(name: str = "tenant_id") -> Resolver:
    """Resolve the tenant from *name* in the framework's signed session.

    The application writes it there at sign-in, after it has verified the user.
    """

    def resolve(request: RequestView) -> TenantId | None:
        value = request.session.get(name)
        return value if isinstance(value, str | int) and not isinstance(value, bool) else None

    return resolve
