"""Asking a service over HTTPS: one pool of connections a process, JSON both ways."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tenantguard.errors import ConfigurationError, KeyUnavailableError
from tenantguard.kms.asking import asked, given, package, unreachable
from tenantguard.kms.processes import PerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JsonService", "at", "require_address", "token_from"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_VISIBLE = range(0x21, 0x7F)


class JsonService:
    """A service that answers POST with JSON.

    It follows no redirect, which would carry the token elsewhere, and asks no proxy.

    Args:
        name: The service's, for messages.
        address: Where it is; checked by `require_address`.
        headers: Returns what proves who asks; called for each question.
        extra: Which of tenantguard's extras brings what is needed.
        timeout: How long connecting and the answer may take together, in seconds.
        ca_file: The certificates that its own is verified by; by default the system's.

    Raises:
        ConfigurationError: If urllib3 is not installed.
    """

    def __init__(
        self,
        name: str,
        address: str,
        headers: Callable[[], dict[str, str]],
        *,
        extra: str,
        timeout: float,
        ca_file: str | None = None,
    ) -> None:
        self.name = name
        self._address = address
        self._headers = headers
        library = package("urllib3", extra)
        self._errors: Any = library.exceptions
        limit = library.Timeout(total=timeout)
        make = partial(library.PoolManager, timeout=limit, retries=False, ca_certs=ca_file)
        self._pool: PerProcess[Any] = PerProcess(make)

    def post(self, path: str, document: Any) -> tuple[int, Any]:
        """Return the status and the document that *path* answers; None if that is no JSON.

        Raises:
            KeyUnavailableError: If there is no answer.
        """
        headers, errors = self._headers(), self._errors
        lost = (errors.NewConnectionError, errors.ProtocolError)
        try:
            answer = asked(partial(self._send, path, headers, document), lost)
        except errors.HTTPError:
            answer = None
        if answer is None:
            # Outside of the block: the cause's frames hold the token.
            raise KeyUnavailableError(unreachable(self.name))
        return answer.status, _parsed(answer.data)

    def _send(self, path: str, headers: dict[str, str], document: Any) -> Any:
        return self._pool().request(
            "POST",
            f"{self._address}{path}",
            headers={"Content-Type": "application/json", **headers},
            body=json.dumps(document).encode(),
            redirect=False,
        )


def at(document: Any, name: str) -> Any:
    """Return what *document* has under *name*; None if it is no object, or has nothing."""
    return document.get(name) if isinstance(document, dict) else None


def require_address(option: str, address: str) -> str:
    """Return *address*, which the user gave as *option*, without a slash at its end.

    Raises:
        ConfigurationError: If the way there is not encrypted, or it is no address of a server.
    """
    parts = urlsplit(address)
    if parts.username or parts.query or parts.fragment or not parts.hostname:
        raise ConfigurationError(
            f"{option} takes the address of a server, such as 'https://vault.internal:8200', "
            "without a name, a password or parameters."
        )
    if parts.scheme != "https" and (parts.scheme != "http" or parts.hostname not in _LOOPBACK):
        raise ConfigurationError(
            f"{option} has to begin with https://: keys and a token go there. Only on this "
            "machine's own address http:// will do."
        )
    return address.rstrip("/")


def token_from(option: str, function: Any) -> str:
    """Return the token that *function*, which the user gave as *option*, returns.

    Raises:
        KeyUnavailableError: If it raises, or returns what is no token.
    """
    token = given(option, function)
    stripped = token.strip() if isinstance(token, str) else ""
    # An HTTP library's error for anything else quotes it.
    if not stripped or any(ord(each) not in _VISIBLE for each in stripped):
        raise KeyUnavailableError(
            f"{option} returned nothing, or no token: it has to be text without spaces."
        )
    return stripped


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
