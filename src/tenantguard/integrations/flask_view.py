"""What a resolver may look at in Flask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from flask import g, request, session
from werkzeug.local import LocalProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FlaskRequestView"]


def _claims() -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", g.get("claims") or {})


def _user() -> Any:
    return g.get("user")


class FlaskRequestView:
    """What a resolver may look at, of the request that is running."""

    def __init__(
        self, claims: Callable[[], Mapping[str, Any]] | None, user: Callable[[], Any] | None
    ) -> None:
        self._claims = claims or _claims
        self._user = user or _user

    @property
    def host(self) -> str:
        """The host the client asked for, without the port."""
        # Older versions of Werkzeug pass on what is no host, such as an open bracket.
        try:
            return urlsplit(f"//{request.host}").hostname or ""
        except ValueError:
            return ""

    @property
    def path(self) -> str:
        """The path below the application's own."""
        return request.path

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers."""
        return _Headers()

    @property
    def session(self) -> Mapping[str, Any]:
        """Flask's signed session."""
        return session

    @property
    def claims(self) -> Mapping[str, Any]:
        """The verified claims."""
        return self._claims()

    @property
    def user(self) -> Any:
        """The signed-in user, or None."""
        user = self._user()
        # flask_login.current_user, for instance: a proxy for None is not None.
        user = user._get_current_object() if isinstance(user, LocalProxy) else user  # noqa: SLF001
        return user if getattr(user, "is_authenticated", True) else None


class _Headers(Mapping[str, str]):
    """The request's headers; werkzeug's own are no `Mapping` (iterating yields pairs)."""

    def __getitem__(self, name: str) -> str:
        return request.headers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(request.headers.keys())

    def __len__(self) -> int:
        return len(request.headers)
