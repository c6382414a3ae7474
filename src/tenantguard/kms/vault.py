"""A key of the transit engine of HashiCorp Vault or OpenBao."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tenantguard.crypto.secret_file import require_label
from tenantguard.errors import ConfigurationError, KeyUnavailableError
from tenantguard.kms.asking import SECONDS
from tenantguard.kms.envelope import EnvelopeKek, altered
from tenantguard.kms.http import JsonService, at, require_address, token_from

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

__all__ = ["VaultTransit"]

# Of Vault's names; none of these can lead to another path.
_KEY = re.compile(r"\w[\w.-]{0,98}\w|\w", re.ASCII)
_MOUNT = re.compile(r"\w[\w-]*(?:/\w[\w-]*)*", re.ASCII)
_WRAPPED = re.compile(rb"vault:v[0-9]+:[A-Za-z0-9+/=]+")
_NAME = "Vault"
_OK, _BAD_REQUEST = 200, 400
_REASONS = {
    403: f"{_NAME} refuses the token: it has expired, or its policy lacks 'update' on "
    "MOUNT/encrypt/KEY and MOUNT/decrypt/KEY. Renew the token, or mend the policy.",
    404: f"{_NAME} has no transit engine there. Look at mount=, address= and namespace=.",
    429: f"{_NAME} is asked too often (its rate limit). Raise the limit, or try again later.",
    503: f"{_NAME} is sealed, or under maintenance. Unseal it.",
}
_SAID = {
    "not found": f"{_NAME}'s transit engine has no such key. Make it, of the type aes256-gcm96, "
    "or look at key= and mount=.",
    "too old": f"{_NAME} does not decrypt with so old a version of the key. Lower its "
    "min_decryption_version; to retire old versions, `tenantguard keys rewrap` under a new key.",
    "non-aead": f"The key in {_NAME} takes no associated data. Use one of the type aes256-gcm96.",
}


class VaultTransit:
    """A key-encryption key in the transit engine of HashiCorp Vault or OpenBao.

    Args:
        address: Of the server, such as `https://vault.internal:8200`; https, but on loopback.
        key: The name of a key of the type aes256-gcm96.
        environment: Where the application runs; part of what keysets are bound to.
        token: Returns a token that is valid now; called for each question.
        mount: Where the transit engine is mounted.
        namespace: Of Vault Enterprise, or of OpenBao.
        ca_file: The certificates that the server's is verified by; by default the system's.
        timeout: How long an answer may take, in seconds.

    Raises:
        ConfigurationError: If an argument is malformed, or the way to the server not encrypted.
    """

    def __init__(
        self,
        address: str,
        key: str,
        *,
        environment: str,
        token: Callable[[], str],
        mount: str = "transit",
        namespace: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = SECONDS,
    ) -> None:
        require_label(environment)
        self._address = require_address("VaultTransit(address)", address)
        names = [mount] if namespace is None else [mount, namespace.rstrip("/")]
        if not _KEY.fullmatch(key) or not all(_MOUNT.fullmatch(name) for name in names):
            raise ConfigurationError(
                "VaultTransit(key), mount= and namespace= take names as Vault has them: letters, "
                "digits, '_', '-', in the key's '.', in the others' '/' between names."
            )
        self.environment = environment
        self._key, self._mount, self._namespace = key, mount, namespace
        self._token = token
        self._ca_file = None if ca_file is None else str(ca_file)
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<VaultTransit environment={self.environment!r} key={self._key!r}>"

    @property
    def uri(self) -> str:
        """What names the key in `tenantguard_keys`; it does not change with the address."""
        return f"vault-transit:{self.environment}/{self._mount}/{self._key}"

    @cached_property
    def kek(self) -> EnvelopeKek:
        """The key.

        Raises:
            ConfigurationError: If urllib3 is not installed.
        """
        http = JsonService(
            _NAME,
            self._address,
            self._headers,
            extra="vault",
            timeout=self._timeout,
            ca_file=self._ca_file,
        )
        return EnvelopeKek(_Service(http, f"/v1/{self._mount}", self._key))

    def _headers(self) -> dict[str, str]:
        token = token_from("VaultTransit(token=…)", self._token)
        namespace = {"X-Vault-Namespace": self._namespace} if self._namespace else {}
        return {"X-Vault-Token": token, "X-Vault-Request": "true", **namespace}


class _Service:
    """Wraps by the transit engine, with the digest as its associated data.

    Of the transit API: https://developer.hashicorp.com/vault/api-docs/secret/transit.
    """

    def __init__(self, http: JsonService, path: str, key: str) -> None:
        self._http = http
        self._path = path
        self._key = key

    def wrap(self, key: bytes, digest: str) -> bytes:
        wrapped = self._answer("encrypt", digest, "ciphertext", plaintext=_base64(key)).encode()
        if not _WRAPPED.fullmatch(wrapped):
            raise _not_the_protocol(_OK)
        return wrapped

    def unwrap(self, wrapped: bytes, digest: str) -> bytes:
        if not _WRAPPED.fullmatch(wrapped):
            raise altered()
        answer = self._answer("decrypt", digest, "plaintext", ciphertext=wrapped.decode())
        try:
            return b64decode(answer, validate=True)
        except ValueError:
            pass
        raise _not_the_protocol(_OK)

    def _answer(self, verb: str, digest: str, wanted: str, **document: str) -> str:
        document["associated_data"] = _base64(digest.encode())
        path = f"{self._path}/{verb}/{self._key}"
        status, answer = self._http.post(path, document)
        if status != _OK:
            raise _refusal(status, answer)
        value = at(at(answer, "data"), wanted)
        if not isinstance(value, str):
            raise _not_the_protocol(status)
        return value


def _refusal(status: int, answer: Any) -> KeyUnavailableError:
    if status == _BAD_REQUEST:
        said = str(at(answer, "errors")).lower()
        reasons = [reason for words, reason in _SAID.items() if words in said]
        return KeyUnavailableError(reasons[0]) if reasons else altered()
    # Vault's own text may name paths and policies.
    return (
        KeyUnavailableError(_REASONS[status]) if status in _REASONS else _not_the_protocol(status)
    )


def _not_the_protocol(status: int) -> KeyUnavailableError:
    return KeyUnavailableError(
        f"{_NAME} answered with the status {status}, and not as its transit engine does. Look at "
        "address=, which has to be of an active node or a load balancer before it, and at the "
        "server's log."
    )


def _base64(content: bytes) -> str:
    return b64encode(content).decode()
