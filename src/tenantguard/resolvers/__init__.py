"""From a request to a tenant id.

A resolver looks at a `RequestView` and returns the tenant's id, or None when the request names
none; it refuses by raising `TenantNotSetError`. The adapter answers both with 403. A resolver never
falls back to a default tenant.

`session_key`, `verified_claim` and `user_attribute` read what the application has verified.
`subdomain`, `path_prefix` and `header` read what the client sends: they belong into `checked`.
"""

from tenantguard.resolvers.combined import checked, first_of
from tenantguard.resolvers.requested import header, path_prefix, subdomain
from tenantguard.resolvers.verified import (
    session_key,
    user_attribute,
    user_tenants,
    verified_claim,
)
from tenantguard.resolvers.view import Membership, NameLookup, RequestView, Resolver

__all__ = [
    "Membership",
    "NameLookup",
    "RequestView",
    "Resolver",
    "checked",
    "first_of",
    "header",
    "path_prefix",
    "session_key",
    "subdomain",
    "user_attribute",
    "user_tenants",
    "verified_claim",
]
