"""Resolvers made of others: the first that names a tenant, and the check against the user."""

from typing import TYPE_CHECKING

from tenantguard.errors import ConfigurationError, TenantNotSetError
from tenantguard.resolvers.asking import Steps, run
from tenantguard.resolvers.values import answered, text_of, texts_of
from tenantguard.resolvers.view import Membership, RequestView, Resolver

if TYPE_CHECKING:
    from tenantguard.context import TenantId

__all__ = ["checked", "first_of"]


def first_of(*resolvers: Resolver) -> Resolver:
    """Resolve the tenant by the first of *resolvers* that names one.

    All are asked: where two name different tenants, the request is refused, because code that looks
    at the other name would act for somebody else. A refusal by one of them is final.

    Raises:
        ConfigurationError: If there is no resolver.
        TenantNotSetError: On a request for which two of them name different tenants.
    """
    if not resolvers:
        raise ConfigurationError("first_of() needs at least one resolver.")

    def steps(request: RequestView) -> Steps:
        tenant: TenantId | None = None
        for resolver in resolvers:
            named = answered((yield resolver(request)))
            if tenant is None:
                tenant = named
            elif named is not None and text_of(named) != text_of(tenant):
                raise TenantNotSetError(
                    "Two resolvers name different tenants for one request. Sign the user in anew, "
                    "or let the request name its tenant in one way only."
                )
        return tenant

    return lambda request: run(steps(request))


def checked(resolver: Resolver, *, against: Membership, anonymous: bool = False) -> Resolver:
    """Resolve the tenant by *resolver*, and refuse it unless it is the signed-in user's.

    What *resolver* reads may then be the client's free choice. Ids are compared by their canonical
    text, so that a UUID and its text are the same tenant; letters' case counts.

    Args:
        resolver: Names the tenant, such as `subdomain("portal.example")`.
        against: Names the user's tenants, from what the application has verified: `user_tenants()`,
            `user_attribute()`, `session_key()`, `verified_claim()` or a function of your own.
        anonymous: Let requests of nobody through, for public pages of a tenant. Anybody then runs
            as any tenant: every other view must require a signed-in user itself. A signed-in user
            without a tenant is still refused.

    Raises:
        TenantNotSetError: On a request for another tenant than the user's, or of nobody.
        ConfigurationError: On a request for which *against* returns anything but ids.
    """

    def steps(request: RequestView) -> Steps:
        tenant = answered((yield resolver(request)))
        if tenant is None:
            return None
        members = yield against(request)
        if members is None:
            if anonymous and request.user is None:
                return tenant
            raise TenantNotSetError(
                "The request names a tenant, and no user of a tenant is signed in. Redirect to the "
                "sign-in before the tenant is resolved, or use checked(…, anonymous=True) where "
                "the tenants have public pages."
            )
        if text_of(tenant) not in texts_of(members):
            raise TenantNotSetError(
                "The request names a tenant that is not the signed-in user's. Sign in as a user "
                "of that tenant."
            )
        return tenant

    return lambda request: run(steps(request))
