"""A symmetric key in Google Cloud Key Management Service, by its REST API."""

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
    from collections.abc import Callable

__all__ = ["GoogleKms"]

_NAME = "Google Cloud KMS"
_KEY = re.compile(
    r"projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/keyRings/[\w-]{1,63}/cryptoKeys/[\w-]{1,63}",
    re.ASCII,
)
_ADDRESS = "https://cloudkms.googleapis.com"
_OK = 200
_INVALID = "INVALID_ARGUMENT"
_REASONS = {
    "UNAUTHENTICATED": f"{_NAME} refuses the token: it has expired. Let token= renew it.",
    "PERMISSION_DENIED": f"{_NAME} refuses the key. Give the application's account the role "
    "roles/cloudkms.cryptoKeyEncrypterDecrypter on it.",
    "NOT_FOUND": f"{_NAME} has no such key. Look at GoogleKms(key).",
    "FAILED_PRECONDITION": f"The version of the key in {_NAME} is disabled or destroyed. Enable or "
    "restore it.",
    "RESOURCE_EXHAUSTED": f"{_NAME} is asked more often than the project's quota allows. Raise it.",
}


class GoogleKms:
    """A key-encryption key in Google Cloud KMS, of the purpose ENCRYPT_DECRYPT.

    Args:
        key: Its resource name, `projects/…/locations/…/keyRings/…/cryptoKeys/…`, without a version.
        environment: Where the application runs; part of what keysets are bound to.
        token: Returns an access token that is valid now; called for each question.
        address: Of the service, if it is not Google's public one.
        timeout: How long an answer may take, in seconds.

    Raises:
        ConfigurationError: If an argument is malformed.
    """

    def __init__(
        self,
        key: str,
        *,
        environment: str,
        token: Callable[[], str],
        address: str = _ADDRESS,
        timeout: float = SECONDS,
    ) -> None:
        require_label(environment)
        if not _KEY.fullmatch(key):
            raise ConfigurationError(
                "GoogleKms(key) takes a key's resource name without a version: "
                "projects/…/locations/…/keyRings/…/cryptoKeys/…."
            )
        self.environment = environment
        self._key, self._token, self._timeout = key, token, timeout
        self._address = require_address("GoogleKms(address=…)", address)

    def __repr__(self) -> str:
        return f"<GoogleKms environment={self.environment!r} key={self._key.rpartition('/')[2]!r}>"

    @property
    def uri(self) -> str:
        """What names the key in `tenantguard_keys`."""
        return f"gcp-kms:{self.environment}/{self._key}"

    @cached_property
    def kek(self) -> EnvelopeKek:
        """The key.

        Raises:
            ConfigurationError: If urllib3 is not installed.
        """
        http = JsonService(_NAME, self._address, self._headers, extra="gcp", timeout=self._timeout)
        return EnvelopeKek(_Service(http, f"/v1/{self._key}"))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {token_from('GoogleKms(token=…)', self._token)}"}


class _Service:
    """Wraps by KMS, with the digest as additional authenticated data and checksums both ways.

    Of the API: https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys.
    """

    def __init__(self, http: JsonService, path: str) -> None:
        self._http = http
        self._path = path

    def wrap(self, key: bytes, digest: str) -> bytes:
        answer = self._answer("encrypt", "plaintext", key, digest)
        if at(answer, "verifiedPlaintextCrc32c") is not True:
            raise _damaged()
        return _checked(answer, "ciphertext")

    def unwrap(self, wrapped: bytes, digest: str) -> bytes:
        return _checked(self._answer("decrypt", "ciphertext", wrapped, digest), "plaintext")

    def _answer(self, verb: str, name: str, content: bytes, digest: str) -> Any:
        bound = digest.encode()
        document = {
            name: b64encode(content).decode(),
            f"{name}Crc32c": str(crc32c(content)),
            "additionalAuthenticatedData": b64encode(bound).decode(),
            "additionalAuthenticatedDataCrc32c": str(crc32c(bound)),
        }
        status, answer = self._http.post(f"{self._path}:{verb}", document)
        if status == _OK:
            return answer
        code = str(at(at(answer, "error"), "status"))
        if code == _INVALID and verb == "decrypt":
            raise altered()
        raise KeyUnavailableError(
            _REASONS.get(code, f"{_NAME} answered with the status {status}, and not as documented.")
        )


def crc32c(content: bytes) -> int:
    """Return the CRC-32C of *content* (RFC 3720, B.4): against damage on the way, not attacks."""
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _checked(answer: Any, name: str) -> bytes:
    try:
        content = b64decode(at(answer, name), validate=True)
    except (TypeError, ValueError):
        content = b""
    if not content or str(at(answer, f"{name}Crc32c")) != str(crc32c(content)):
        raise _damaged()
    return content


def _damaged() -> KeyUnavailableError:
    return KeyUnavailableError(
        f"What {_NAME} answered was damaged on the way: a checksum is missing or wrong. Try again; "
        "if it stays so, look at what is between."
    )
