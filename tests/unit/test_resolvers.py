"""Resolvers name the tenant that the request names, or none; never another."""

from __future__ import annotations

import asyncio
import posixpath
import string
import uuid
from dataclasses import dataclass, field
from enum import Enum
from inspect import isawaitable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, MetaData, String, Table, Uuid
from starlette.datastructures import Headers

from tenantguard import ConfigurationError, TenantNotSetError, UnknownTenantError
from tenantguard.catalog import Catalog
from tenantguard.resolvers import (
    checked,
    first_of,
    header,
    path_prefix,
    session_key,
    subdomain,
    user_attribute,
    user_tenants,
    verified_claim,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tenantguard.resolvers import RequestView, Resolver

A = uuid.UUID("aaaaaaaa-0000-4000-8000-000000000001")
B = uuid.UUID("bbbbbbbb-0000-4000-8000-000000000002")
NO_IDS = [None, "", True, False, 1.5, b"a", ["a"], {"a": 1}, object()]


@dataclass
class View:
    host: str = "portal.example"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    session: Mapping[str, Any] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict)
    user: Any = None


def now(value: Any) -> Any:
    return value


async def later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


both = pytest.mark.parametrize("answer", [now, later])


def named(value: Any, answer: Callable[[Any], Any] = now) -> Resolver:
    """A resolver of the application's own, which names *value* at once or later."""
    return lambda _view: answer(value)


def ask(resolver: Resolver, view: View | None = None) -> Any:
    answer = resolver(view or View())

    async def wait() -> Any:
        return (await answer) if isawaitable(answer) else None

    return asyncio.run(wait()) if isawaitable(answer) else answer


# -- what the application has verified --------------------------------------------------------

VERIFIED = [
    (session_key(), lambda value: View(session={"tenant_id": value})),
    (session_key("practice"), lambda value: View(session={"practice": value})),
    (verified_claim(), lambda value: View(claims={"tenant_id": value})),
    (verified_claim("org"), lambda value: View(claims={"org": value})),
    (user_attribute(), lambda value: View(user=SimpleNamespace(tenant_id=value))),
    (user_attribute("org"), lambda value: View(user=SimpleNamespace(org=value))),
]


@pytest.mark.parametrize(("resolver", "view"), VERIFIED)
@pytest.mark.parametrize("tenant", [A, "a", 7, 0])
def test_verified_values_are_the_tenant(
    resolver: Resolver, view: Callable[[Any], View], tenant: Any
) -> None:
    """An id of any of the three types is returned as it is, at once."""
    assert resolver(view(tenant)) is tenant


@pytest.mark.parametrize(("resolver", "view"), VERIFIED)
@pytest.mark.parametrize("value", NO_IDS)
def test_what_is_no_id_names_no_tenant(
    resolver: Resolver, view: Callable[[Any], View], value: Any
) -> None:
    """Truth values, empty texts, lists and objects never become a tenant."""
    assert resolver(view(value)) is None


@pytest.mark.parametrize(
    "resolver",
    [
        *(resolver for resolver, _ in VERIFIED),
        subdomain("portal.example"),
        path_prefix(),
        header("X-Tenant", trusted=True),
        first_of(session_key(), subdomain("portal.example")),
        checked(path_prefix(), against=user_tenants()),
        checked(path_prefix(), against=user_tenants(), anonymous=True),
    ],
)
def test_a_request_that_says_nothing_has_no_tenant(resolver: Resolver) -> None:
    """There is no default tenant, whichever resolver is asked."""
    assert ask(resolver) is None


def test_claims_may_be_missing_altogether() -> None:
    """An application that leaves None as its claims has none."""
    nothing: Any = None
    assert verified_claim()(View(claims=nothing)) is None


@pytest.mark.parametrize("ask_user", [user_attribute("tenant"), user_tenants("tenant")])
def test_a_user_without_the_attribute_is_a_mistake_in_the_setup(ask_user: Any) -> None:
    """A misspelt attribute is said, and not answered with 403 for ever."""
    with pytest.raises(ConfigurationError, match="no attribute 'tenant'"):
        ask_user(View(user=SimpleNamespace(tenant_id=A)))


# -- the subdomain ----------------------------------------------------------------------------

BASE = "portal.example"
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(
    LABELS,
    st.sampled_from([str.upper, str.lower, str.title]),
    st.sampled_from(["", "."]),
    st.sampled_from(["", ":", ":80", ":8000"]),
    st.sampled_from([BASE, "Portal.Example", "PORTAL.EXAMPLE", BASE + "."]),
)
def test_subdomain_is_the_label_in_front(
    label: str, case: Any, dot: str, port: str, base: str
) -> None:
    """Case, a trailing dot and a port do not matter; the label is in lower case."""
    assert subdomain(base)(View(host=case(f"{label}.{BASE}") + dot + port)) == label


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "portal.example",
        "portal.example.",
        ".portal.example",
        "..portal.example",
        "x.y.portal.example",
        "evilportal.example",
        "a.evilportal.example",
        "a.portal.example.evil.example",
        "a.portal.example..",
        "a.portalxexample",
        "a.portal.example\n",
        "a.portal.example:80:80",
        "a.portal.example:evil",
        "a.portal.example@evil.example",
        "user@a.portal.example",
        "a..portal.example",
        "-a.portal.example",
        "a-.portal.example",
        "a_b.portal.example",
        "a%2eb.portal.example",
        "*.portal.example",
        "a b.portal.example",
        "ä.portal.example",
        "\u212a.portal.example",
        "a.portal.ex\u0430mple",
        "a.port\u017fl.example",
        f"{'a' * 64}.portal.example",
        "127.0.0.1",
        "127.0.0.1:8000",
        "10.127.0.0.1",
        "::1",
        "[::1]",
        "[::1]:8000",
    ],
)
def test_other_hosts_name_no_tenant(host: str) -> None:
    """The bare domain, deeper names, look-alikes and addresses are nobody's."""
    assert subdomain(BASE)(View(host=host)) is None


@given(
    st.one_of(
        st.text(),
        st.text(alphabet="aA.-:0portalexmPORTAL@\n\u212a\u017f", max_size=40),
        st.text(alphabet="aB.-\u212a ", max_size=6).map(lambda text: f"{text}.{BASE}"),
        st.text(alphabet=".:0a\n", max_size=4).map(lambda text: f"a.{BASE}{text}"),
    )
)
def test_subdomain_never_names_what_the_host_does_not(host: str) -> None:
    """Whatever the client sends, a label that is named is the one in front of the domain."""
    label = subdomain(BASE)(View(host=host))
    if label is not None:
        name, colon, port = host.partition(":")
        assert name.lower().removesuffix(".") == f"{label}.{BASE}"
        assert not colon or port == "" or port.isdecimal()


@pytest.mark.parametrize(
    "base",
    [
        "",
        ".",
        ".portal.example",
        "https://portal.example",
        "portal.example:8000",
        "portal..example",
        "*.portal.example",
        "portal.example/",
        "127.0.0.1",
        "127.0.0.1.",
        "[::1]",
        "münchen.example",
        "\u212aoeln.example",
        "portal.example\n",
    ],
)
def test_subdomain_needs_a_domain(base: str) -> None:
    """What cannot be a base domain is refused when the application starts."""
    with pytest.raises(ConfigurationError, match=r'needs the domain .* "portal\.example"'):
        subdomain(base)


@pytest.mark.parametrize("base", ["localhost", "xn--mnchen-3ya.example", "4you.example", "a.b.c"])
def test_subdomain_takes_any_domain(base: str) -> None:
    """One label is enough for development; names in ASCII form and with digits are domains."""
    assert subdomain(base)(View(host=f"north.{base}:8000")) == "north"


# -- the path ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "path", "tenant"),
    [
        ("/t/", "/t/north", "north"),
        ("/t/", "/t/north/", "north"),
        ("/t/", "/t/north/patients/7", "north"),
        ("/t/", "/t/North", "North"),
        ("/t/", f"/t/{A}/x", str(A)),
        ("/t/", "/t/7", "7"),
        ("/t/", "/t/...", "..."),
        ("/t/", "/t/.north", ".north"),
        ("/", "/north/patients", "north"),
        ("/app/t/", "/app/t/north", "north"),
    ],
)
def test_path_prefix_is_the_segment_after_it(prefix: str, path: str, tenant: str) -> None:
    """The segment is the tenant, exactly as the route sees it."""
    assert path_prefix(prefix)(View(path=path)) == tenant


@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "t/north",
        "/",
        "/t",
        "/t/",
        "/t//",
        "/t//north",
        "//t/north",
        "/t/./north",
        "/t/.",
        "/t/..",
        "/t/../north",
        "/t/north/../south",
        "/t/north/..",
        "/t/north/.",
        "/t/north//x",
        "/t/north/..\\..\\south",
        "/x/../t/north",
        "/T/north",
        "/tt/north",
        "/x/t/north",
        "/t\\north",
        "/t/north\\x",
        "/t/n%6frth",
        "/t/%2e%2e",
        "/t/%2fnorth",
        "/t/north;x=1",
        "/t/north\n",
        "/t/north\0",
        "/t/ north",
        "/t/n\u00f6rd",
        "/t/north?x",
        "/t/north#x",
    ],
)
def test_other_paths_name_no_tenant(path: str) -> None:
    """A path that is not plain, or that a proxy could read differently, is nobody's."""
    assert path_prefix()(View(path=path)) is None


PATHS = st.lists(
    st.sampled_from(["", "t", "north", "south", ".", "..", "...", "%2e", "\\..", "\\", ";", "ö"]),
    max_size=7,
).map("/".join)


@given(st.one_of(st.text(), PATHS.map("/{}".format), PATHS.map("/t/{}".format)))
@example("/t/north/x/../../south")
def test_path_prefix_never_names_what_another_reader_would_not(path: str) -> None:
    """Whoever resolves dots, slashes or backslashes reads the same tenant."""
    tenant = path_prefix()(View(path=path))
    if tenant is not None:
        for read in (path, posixpath.normpath(path), posixpath.normpath(path.replace("\\", "/"))):
            assert f"{read}/".startswith(f"/t/{tenant}/")


@pytest.mark.parametrize(
    "prefix", ["", "t", "t/", "/t", "//", "/t//", "/../", "/t/./", "/ö/", "/%74/", "/a b/", "/t/x"]
)
def test_path_prefix_needs_a_plain_prefix(prefix: str) -> None:
    """What cannot stand in front of a tenant is refused when the application starts."""
    with pytest.raises(ConfigurationError, match="begins and ends with a slash"):
        path_prefix(prefix)


# -- the header -------------------------------------------------------------------------------


def sent(*values: str, name: str = "X-Tenant") -> View:
    """A request with Starlette's headers, which keep what was sent twice."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for value in values]
    return View(headers=Headers(raw=[(b"host", b"x"), *raw]))


@pytest.mark.parametrize("value", ["north", str(A), "7", "auth0|7", "urn:x:7", "a+b"])
def test_header_is_the_tenant(value: str) -> None:
    """The gateway's value is the tenant; the name's case does not matter."""
    for name in ("X-Tenant", "x-tenant", "X-TENANT"):
        assert header(name, trusted=True)(sent(value)) == value
    assert header("X-Tenant", trusted=True)(View(headers={"X-Tenant": value})) == value


@pytest.mark.parametrize(
    "values",
    [
        ("north", "south"),
        ("north", "north"),
        ("north", ""),
        ("", "north"),
        ("north, south",),
        ("north,south",),
        (",north",),
        ("north,",),
        ("north south",),
        (" north",),
        ("n\u00f6rd",),
        ("north\t",),
        ("north\n",),
        ("",),
    ],
)
def test_header_sent_twice_names_no_tenant(values: tuple[str, ...]) -> None:
    """One copy is the gateway's and one the client's: which is which cannot be told."""
    assert header("X-Tenant", trusted=True)(sent(*values)) is None


def test_headers_twice_in_different_case_name_no_tenant() -> None:
    """A mapping that tells cases apart still shows that there were two."""
    view = View(headers={"X-Tenant": "north", "x-tenant": "south"})
    assert header("X-Tenant", trusted=True)(view) is None


@pytest.mark.parametrize("options", [{}, {"trusted": False}, {"trusted": 1}, {"trusted": "yes"}])
def test_header_needs_the_word_trusted(options: dict[str, Any]) -> None:
    """Nobody trusts a header by accident; the message says what trusting means."""
    with pytest.raises(ConfigurationError, match="any client can send any header"):
        header("X-Tenant", **options)


# -- looking a name up ------------------------------------------------------------------------


@both
def test_lookup_turns_the_name_into_the_id(answer: Any) -> None:
    """Subdomain and path segment may be names; the lookup knows whose, at once or later."""
    ids = {"north": A}
    by_host = subdomain(BASE, lookup=lambda label: answer(ids.get(label)))
    by_path = path_prefix(lookup=lambda label: answer(ids.get(label)))
    assert ask(by_host, View(host=f"NORTH.{BASE}")) == A
    assert ask(by_host, View(host=f"south.{BASE}")) is None
    assert ask(by_path, View(path="/t/north/x")) == A
    assert ask(by_path, View(path="/t/NORTH/x")) is None


def test_lookup_is_not_asked_without_a_name() -> None:
    """Nothing that is no name reaches the lookup, and through it the database."""
    asked: list[str] = []
    for resolver in (subdomain(BASE, lookup=asked.append), path_prefix(lookup=asked.append)):
        assert ask(resolver, View(host="x.y.portal.example", path="/t/../x")) is None
    assert asked == []


@both
@pytest.mark.parametrize("value", NO_IDS[1:])
def test_lookup_that_returns_no_id_is_a_mistake_in_the_setup(answer: Any, value: Any) -> None:
    """A lookup that returns the object instead of its id is told so."""
    resolver = subdomain(BASE, lookup=lambda _label: answer(value))
    with pytest.raises(ConfigurationError, match="Return the id itself"):
        ask(resolver, View(host=f"north.{BASE}"))


# -- several resolvers ------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("values", "tenant"),
    [
        ([None, None], None),
        (["a", None], "a"),
        ([None, "a"], "a"),
        (["a", "a"], "a"),
        ([A, None, str(A)], A),
        ([None, str(A), A], str(A)),
        ([7, "7"], 7),
        ([0, None], 0),
    ],
)
def test_first_of_names_what_one_names(answer: Any, values: list[Any], tenant: Any) -> None:
    """Resolvers that name none are passed over; those that agree, agree in any form."""
    assert ask(first_of(*(named(value, answer) for value in values))) == tenant


@both
@pytest.mark.parametrize(
    "values", [["a", "b"], [None, A, B], ["a", "a", "b"], [A, str(B)], [7, "07"], [1, "0"]]
)
def test_first_of_refuses_two_tenants(answer: Any, values: list[Any]) -> None:
    """A request that names two tenants is nobody's, whichever comes first."""
    for order in (values, values[::-1]):
        with pytest.raises(TenantNotSetError, match="name different tenants"):
            ask(first_of(*(named(value, answer) for value in order)))


def test_first_of_mixes_synchronous_and_asynchronous() -> None:
    """One asynchronous resolver makes the whole asynchronous, and no other does."""
    assert ask(first_of(named(None), named("a", later), named("a"))) == "a"
    assert ask(first_of(named("a"), named(None), named("a", later))) == "a"
    assert first_of(named(None), named("a"))(View()) == "a"


def test_first_of_keeps_a_refusal() -> None:
    """A tenant that is refused by one resolver is not served because of the next."""
    refused = checked(named("a"), against=named("b"))
    with pytest.raises(TenantNotSetError, match="not the signed-in user's"):
        ask(first_of(refused, named("b")))


def test_first_of_needs_a_resolver() -> None:
    """An empty list is a mistake in the setup, and not a request without a tenant."""
    with pytest.raises(ConfigurationError, match="at least one"):
        first_of()


# -- checked against the user -----------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("tenant", "members"),
    [
        ("a", "a"),
        (A, A),
        (A, str(A)),
        (str(A), A),
        (7, "7"),
        ("7", 7),
        ("0", 0),
        (A, [B, str(A)]),
        ("a", ("b", "a")),
        (7, {1, 7}),
        (str(A), frozenset({A})),
        ("a", {"a": "admin"}.keys()),
    ],
)
def test_checked_lets_the_user_own_tenant_through(answer: Any, tenant: Any, members: Any) -> None:
    """The user's tenant, or one of them, in any form; the resolved form is returned."""
    assert ask(checked(named(tenant, answer), against=named(members, answer))) is tenant


@both
@pytest.mark.parametrize(
    ("tenant", "members"),
    [
        ("a", "b"),
        (A, B),
        (A, str(B)),
        (7, "07"),
        ("7", 70),
        (1, A),
        ("a", "abc"),
        ("a", ["b", "abc"]),
        ("a", []),
        (A, ()),
        ("a", "A"),
        (A, str(A).upper()),
        (A, A.hex),
        ("1", {10, 11}),
    ],
)
@pytest.mark.parametrize("anonymous", [False, True])
def test_checked_refuses_another_tenant(
    answer: Any, tenant: Any, members: Any, anonymous: Any
) -> None:
    """A signed-in user gets no other tenant, whether or not there are public pages."""
    resolver = checked(named(tenant, answer), against=named(members, answer), anonymous=anonymous)
    with pytest.raises(TenantNotSetError, match="not the signed-in user's"):
        ask(resolver)


def test_refusals_name_no_tenant() -> None:
    """What is logged about a refusal has neither the request's tenant nor the user's."""
    nobody = checked(named(A), against=named(None))
    foreign = checked(named(A), against=named([B]))
    for resolver in (nobody, foreign, first_of(named(A), named(B))):
        with pytest.raises(TenantNotSetError) as caught:
            ask(resolver)
        assert "aaaaaaaa" not in str(caught.value)
        assert "bbbbbbbb" not in str(caught.value)


@both
def test_checked_refuses_nobody_unless_pages_are_public(answer: Any) -> None:
    """Without a user a tenant is refused; `anonymous=True` lets nobody through, and nobody else."""
    nobody = named(None, answer)
    with pytest.raises(TenantNotSetError, match="no user of a tenant is signed in"):
        ask(checked(named("a", answer), against=nobody))
    public = checked(named("a", answer), against=nobody, anonymous=True)
    assert ask(public) == "a"
    with pytest.raises(TenantNotSetError, match="no user of a tenant is signed in"):
        ask(public, View(user=SimpleNamespace(tenant_id=None)))


@both
@pytest.mark.parametrize(
    "members", [True, b"a", bytearray(b"a"), 1.5, [None, True], [b"a"], [""], "", iter(["a"])]
)
def test_checked_against_anything_but_ids_is_a_mistake_in_the_setup(
    answer: Any, members: Any
) -> None:
    """Bytes are no numbers, objects no ids, and an iterator is empty the second time."""
    for tenant in ("a", 97, 1):
        with pytest.raises(ConfigurationError, match="what it is checked against"):
            ask(checked(named(tenant, answer), against=named(members, answer)))


def test_checked_does_not_ask_for_the_user_without_a_tenant() -> None:
    """A request that names no tenant has none, whoever is signed in."""
    asked: list[RequestView] = []
    assert ask(checked(named(None), against=asked.append)) is None
    assert asked == []


@pytest.mark.parametrize("anonymous", [False, True])
def test_user_tenants_are_the_user_collection(anonymous: Any) -> None:
    """A user of several tenants gets each of them, and no other; of none, none."""
    resolver = checked(subdomain(BASE), against=user_tenants(), anonymous=anonymous)
    user = SimpleNamespace(tenant_ids=["north", "south"])
    for name in user.tenant_ids:
        assert ask(resolver, View(host=f"{name}.{BASE}", user=user)) == name
    for tenants in (["east"], [], (), None):
        user.tenant_ids = tenants
        with pytest.raises(TenantNotSetError, match="not the signed-in user's"):
            ask(resolver, View(host=f"north.{BASE}", user=user))


class Color(str, Enum):  # noqa: UP042  (its str() is not its value, which is the point)
    RED = "north"


class Level(int, Enum):
    HIGH = 7


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "south"


@pytest.mark.parametrize(
    ("tenant", "same", "other"),
    [
        (Color.RED, "north", "Color.RED"),
        (Level.HIGH, "7", "Level.HIGH"),
        (Shouting("north"), "north", "south"),
    ],
)
def test_subclasses_are_compared_by_their_value(tenant: Any, same: str, other: str) -> None:
    """What a subclass prints does not make it another tenant."""
    assert ask(checked(named(tenant), against=named(same))) is tenant
    with pytest.raises(TenantNotSetError, match="not the signed-in user's"):
        ask(checked(named(tenant), against=named(other)))


def _registry(type_: Any) -> Catalog:
    metadata = MetaData()
    Table("tenants", metadata, Column("id", type_, primary_key=True))
    return Catalog(metadata, "tenants")


REGISTRIES = [_registry(type_) for type_ in (Uuid(), Uuid(as_uuid=False), BigInteger(), String())]
SOME_IDS = st.one_of(
    st.sampled_from([A, B]),
    st.integers(-2, 12),
    st.sampled_from([str(A), str(A).upper(), A.hex, f"{{{A}}}", A.urn, str(B)]),
    st.sampled_from(["1", "01", "+1", " 1", "1 ", "1_0", "10", "-0", "0", "\u0661", "\uff11"]),
    st.text(alphabet=string.printable, min_size=1, max_size=3),
)


@given(SOME_IDS, SOME_IDS)
@example(A, A.hex)
def test_what_is_let_through_is_the_same_tenant_in_every_registry(tenant: Any, own: Any) -> None:
    """Whatever the registry's type, a tenant that passes the check is the user's own."""
    try:
        ask(checked(named(tenant), against=named(own)))
    except TenantNotSetError:
        return
    for registry in REGISTRIES:
        try:
            ids = registry.canonical(tenant), registry.canonical(own)
        except UnknownTenantError:
            continue
        assert ids[0] == ids[1]
