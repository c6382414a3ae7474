"""An AES key in Azure Key Vault Managed HSM, by its REST API.

Not the RSA keys of Key Vault itself: whoever knows the public key could wrap a keyset of their own
and put it in a tenant's row.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import cached_property
from typing import TYPE_CHECKING

from tenantguard.crypto.secret_file import require_label
from tenantguard.errors import ConfigurationError, KeyUnavailableError
from tenantguard.kms.asking import SECONDS
from tenantguard.kms.envelope import EnvelopeKek, altered
from tenantguard.kms.http import JsonService, at, require_address, token_from

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AzureManagedHsm"]

_NAME = "Azure Managed HSM"
_KEY = re.compile(r"(?P<hsm>https?://[^/?#]+)(?P<path>/keys/[A-Za-z0-9-]{1,127}/[0-9a-f]{32})")
_VERSION = "api-version=7.4"
_ALGORITHM = "A256KW"
# Base64 without padding; no content has 4 n + 1 characters.
_BASE64 = re.compile(r"(?:[\w-]{4})*[\w-]{2,3}|(?:[\w-]{4})+", re.ASCII)
_OK, _BAD_REQUEST = 200, 400
_REASONS = {
    401: f"{_NAME} refuses the token: it has expired, or is for another resource. Let token= get "
    "one for https://managedhsm.azure.net/.default.",
    403: f"{_NAME} refuses the key: it is disabled, or the application's identity lacks the role "
    "Managed HSM Crypto Service Encryption User, or the firewall is closed to it.",
    404: f"{_NAME} has no such key, or not this version. Look at AzureManagedHsm(key).",
    429: f"{_NAME} is asked too often (its limit). Try again later.",
}


class AzureManagedHsm:
    """A key-encryption key in Azure Managed HSM: a version of a key of the type oct-HSM, 256 bits.

    The HSM binds what it wraps (A256KW, RFC 3394) to nothing; the envelope does.

    Args:
        key: Its identifier with the version, `https://NAME.managedhsm.azure.net/keys/KEY/VERSION`.
        environment: Where the application runs; part of what keysets are bound to.
        token: Returns an access token that is valid now; called for each question.
        timeout: How long an answer may take, in seconds.

    Raises:
        ConfigurationError: If an argument is malformed.
    """

    def __init__(
        self, key: str, *, environment: str, token: Callable[[], str], timeout: float = SECONDS
    ) -> None:
        require_label(environment)
        parts = _KEY.fullmatch(key)
        if parts is None:
            raise ConfigurationError(
                "AzureManagedHsm(key) takes a key's identifier with its version, such as "
                "'https://NAME.managedhsm.azure.net/keys/KEY/VERSION'."
            )
        self.environment = environment
        self._hsm = require_address("AzureManagedHsm(key)", parts["hsm"])
        self._path = parts["path"]
        self._token, self._timeout = token, timeout

    def __repr__(self) -> str:
        name = self._path.split("/")[2]
        return f"<AzureManagedHsm environment={self.environment!r} key={name!r}>"

    @property
    def uri(self) -> str:
        """What names the key in `tenantguard_keys`, with its version."""
        return f"azure-hsm:{self.environment}/{self._hsm.partition('//')[2]}{self._path}"

    @cached_property
    def kek(self) -> EnvelopeKek:
        """The key.

        Raises:
            ConfigurationError: If urllib3 is not installed.
        """
        http = JsonService(_NAME, self._hsm, self._headers, extra="azure", timeout=self._timeout)
        return EnvelopeKek(_Service(http, self._path))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {token_from('AzureManagedHsm(token=…)', self._token)}"}


class _Service:
    """Wraps by the HSM, which is not told the digest: key wrapping has no associated data.

    Of the API: https://learn.microsoft.com/en-us/rest/api/keyvault/keys/wrap-key/wrap-key.
    """

    def __init__(self, http: JsonService, path: str) -> None:
        self._http = http
        self._path = path

    def wrap(self, key: bytes, digest: str) -> bytes:  # noqa: ARG002  (the envelope binds it)
        return self._answer("wrapkey", key)

    def unwrap(self, wrapped: bytes, digest: str) -> bytes:  # noqa: ARG002
        return self._answer("unwrapkey", wrapped)

    def _answer(self, verb: str, content: bytes) -> bytes:
        value = urlsafe_b64encode(content).rstrip(b"=").decode()
        path = f"{self._path}/{verb}?{_VERSION}"
        document = {"alg": _ALGORITHM, "value": value}
        status, answer = self._http.post(path, document)
        # The answer names the key, which has to be ours.
        if status == _OK and str(at(answer, "kid")).endswith(self._path):
            found = _decoded(at(answer, "value"))
            if found:
                return found
        if status == _BAD_REQUEST and verb == "unwrapkey":
            raise altered()
        raise KeyUnavailableError(_REASONS.get(status, _strange(status)))


def _decoded(value: object) -> bytes:
    if not isinstance(value, str) or not _BASE64.fullmatch(value):
        return b""
    return urlsafe_b64decode(value + "=" * (-len(value) % 4))


def _strange(status: int) -> str:
    return f"{_NAME} answered with the status {status}, and not as documented. Look at its address."
