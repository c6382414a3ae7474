"""Resolvers of what the client sends, and therefore chooses: they belong into `checked`."""

import re
from collections.abc import Callable, Collection

from tenantguard.errors import ConfigurationError
from tenantguard.resolvers.asking import Steps, run
from tenantguard.resolvers.values import answered
from tenantguard.resolvers.view import NameLookup, RequestView, Resolver

__all__ = ["header", "path_prefix", "subdomain"]

_DOMAIN_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# Under IGNORECASE alone, the Kelvin sign is a k and the long s an s.
_ASCII = re.IGNORECASE | re.ASCII
# The last label of an IP address is a number.
_DOMAIN = re.compile(rf"(?:{_DOMAIN_LABEL}\.)*(?!\d+\.?$){_DOMAIN_LABEL}\.?", _ASCII)
_SEGMENT = re.compile(r"(?!\.\.?$)[A-Za-z0-9._~-]+")
# Printable ASCII without the space and the comma.
_HEADER_VALUE = re.compile(r"[!-+\--~]+")


def subdomain(base_domain: str, *, lookup: NameLookup | None = None) -> Resolver:
    """Resolve the tenant from the one label in front of *base_domain*.

    The client chooses it freely: wrap the resolver in `checked`. The bare domain, deeper names,
    other domains and IP addresses name no tenant. Letters' case, a port and a trailing dot do not
    matter.

    Args:
        base_domain: Such as `portal.example`; in its ASCII form (`xn--…`) where it has another.
        lookup: Turns the label, in lower case, into the tenant's id; without it, the label is the
            id.

    Raises:
        ConfigurationError: If *base_domain* is not a domain.
    """
    if not _DOMAIN.fullmatch(base_domain):
        raise ConfigurationError(
            "subdomain() needs the domain that the tenants' names stand in front of, such as "
            '"portal.example": without scheme, port and leading dot, in ASCII, no IP address.'
        )
    base = re.escape(base_domain.removesuffix("."))
    pattern = re.compile(rf"({_DOMAIN_LABEL})\.{base}\.?(?::\d{{0,5}})?", _ASCII)

    def label(request: RequestView) -> str | None:
        found = pattern.fullmatch(request.host)
        return found[1].lower() if found else None

    return _looked_up(label, lookup)


def path_prefix(prefix: str = "/t/", *, lookup: NameLookup | None = None) -> Resolver:
    """Resolve the tenant from the path's segment after *prefix*.

    The client chooses it freely: wrap the resolver in `checked`. A segment of anything but ASCII
    letters, digits and `-._~` names no tenant, nor does a path that a proxy could read differently:
    with an empty segment, `.` or `..` anywhere.

    Args:
        prefix: The path before the tenant's name, such as `/t/`; `/` for the first segment.
        lookup: Turns the segment into the tenant's id; without it, the segment is the id.

    Raises:
        ConfigurationError: If *prefix* is not a plain path that begins and ends with a slash.
    """
    before = prefix.split("/")
    if len(before) < 2 or before[0] or before[-1] or not _plain(before[1:-1]):  # noqa: PLR2004
        raise ConfigurationError(
            'path_prefix() needs a plain path that begins and ends with a slash, such as "/t/".'
        )

    def segment(request: RequestView) -> str | None:
        found = request.path.split("/")
        name = found[len(before) - 1 : len(before)]
        own = found[: len(before) - 1] == before[:-1] and _plain(name)
        return name[0] if name and own and not _ambiguous(request.path) else None

    return _looked_up(segment, lookup)


def header(name: str, *, trusted: bool = False) -> Resolver:
    """Resolve the tenant from header *name*, which a gateway sets.

    Where the gateway does not remove the client's own header, the client chooses it freely. Wrap
    the resolver in `checked` unless the gateway has verified the tenant itself. A header sent twice
    names no tenant, nor does a value with a comma, a space or a character outside ASCII.

    Args:
        name: The header's name. Under WSGI, `X_Tenant` from a client arrives as `X-Tenant` too: the
            gateway must remove both.
        trusted: Must be True: every request passes a gateway that sets the header itself and
            removes what the client sent.

    Raises:
        ConfigurationError: Unless *trusted* is True.
    """
    if trusted is not True:
        raise ConfigurationError(
            "header() needs trusted=True: any client can send any header. It may be given only "
            "where every request passes a gateway that sets this header and removes the client's; "
            "elsewhere use session_key(), verified_claim() or user_attribute()."
        )

    def value(request: RequestView) -> str | None:
        # Starlette lists a header sent twice twice; WSGI servers join the values by a comma.
        sent = sum(each.lower() == name.lower() for each in request.headers)
        found = request.headers.get(name, "") if sent == 1 else ""
        return found if _HEADER_VALUE.fullmatch(found) else None

    return value


def _looked_up(read: Callable[[RequestView], str | None], lookup: NameLookup | None) -> Resolver:
    if lookup is None:
        return read

    def steps(request: RequestView) -> Steps:
        name = read(request)
        return None if name is None else answered((yield lookup(name)))

    return lambda request: run(steps(request))


def _plain(segments: Collection[str]) -> bool:
    return all(map(_SEGMENT.fullmatch, segments))


def _ambiguous(path: str) -> bool:
    """Return whether something in front of the application may have read *path* differently."""
    *inner, last = path.replace("\\", "/").split("/")[1:]
    return bool({"", ".", ".."}.intersection(inner)) or last in (".", "..")
