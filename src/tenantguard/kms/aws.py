"""A symmetric key in AWS Key Management Service."""

from __future__ import annotations

import re
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from tenantguard.crypto.secret_file import require_label
from tenantguard.errors import ConfigurationError, KeyUnavailableError
from tenantguard.kms.asking import SECONDS, asked, given, package, unreachable
from tenantguard.kms.envelope import EnvelopeKek, altered
from tenantguard.kms.processes import PerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AwsKms"]

_KEY = re.compile(
    r"(?:arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):[0-9]{12}:key/)?"
    r"(?P<id>mrk-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)
_CODE = re.compile(r"[A-Za-z0-9.]{1,80}")
_ALTERED = ("InvalidCiphertextException",)
_NAME = "AWS KMS"
_REASONS = {
    "AccessDeniedException": f"{_NAME} refuses the key. Allow the application's role kms:Encrypt "
    "and kms:Decrypt on it, by the key's policy or by its own.",
    "NotFoundException": f"{_NAME} has no such key in this region and account. Look at key_id=.",
    "DisabledException": f"The key is disabled in {_NAME}. Enable it.",
    "KMSInvalidStateException": f"The key cannot be used in {_NAME}: it may be waiting for its "
    "deletion. Cancel that now: once it is deleted, what it has wrapped is lost.",
    "IncorrectKeyException": f"Another key of {_NAME} has wrapped the tenant's keyset. Give "
    "key_id= the one that kek_uri names in tenantguard_keys.",
}


class AwsKms:
    """A key-encryption key in AWS KMS.

    Asked when a tenant's keys are read or made. A region in the key's ARN is the client's, too.

    Args:
        key_id: The key's ARN or id. No alias: one that is pointed at another key would lose all
            keysets.
        environment: Where the application runs; part of what keysets are bound to.
        client: Returns the boto3 client to use, given a `botocore.config.Config` with the timeout;
            called once in each process. By default boto3 finds credentials and region as ever.
        timeout: How long connecting, and an answer, may take, in seconds.

    Raises:
        ConfigurationError: If *key_id* or *environment* is malformed.
    """

    def __init__(
        self,
        key_id: str,
        *,
        environment: str,
        client: Callable[[Any], Any] | None = None,
        timeout: float = SECONDS,
    ) -> None:
        require_label(environment)
        parts = _KEY.fullmatch(key_id)
        if parts is None:
            raise ConfigurationError(
                "AwsKms(key_id) takes the ARN or the id of one key, such as "
                "'arn:aws:kms:eu-central-1:111122223333:key/…'. An alias can be pointed at another "
                "key, which opens nothing that this one has wrapped."
            )
        self.environment = environment
        self._key_id, self._name, self._region = key_id, parts["id"], parts["region"]
        self._client = client
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<AwsKms environment={self.environment!r} key={self._name!r}>"

    @property
    def uri(self) -> str:
        """What names the key in `tenantguard_keys`; replicas of a multi-Region key share it."""
        return f"aws-kms:{self.environment}/{self._name}"

    @cached_property
    def kek(self) -> EnvelopeKek:
        """The key.

        Raises:
            ConfigurationError: If boto3 is not installed.
        """
        package("boto3", "aws")
        make = partial(self._make, package("botocore.config", "aws").Config)
        service = _Service(self._key_id, self._name, self.environment, PerProcess(make))
        return EnvelopeKek(service)

    def _make(self, config: Any) -> Any:
        bounded = config(
            connect_timeout=self._timeout,
            read_timeout=self._timeout,
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        if self._client is not None:
            return given("AwsKms(client=…)", self._client, bounded)
        # Not boto3's default session, which threads must not share.
        session = package("boto3.session", "aws").Session(region_name=self._region)
        return session.client("kms", config=bounded)


class _Service:
    """Wraps by KMS, bound to the digest by its encryption context, which CloudTrail shows."""

    def __init__(self, key_id: str, name: str, environment: str, client: Callable[[], Any]) -> None:
        self._key_id = key_id
        self._name = name
        self._environment = environment
        self._client = client
        self._errors: Any = package("botocore.exceptions", "aws")

    def wrap(self, key: bytes, digest: str) -> bytes:
        return _bytes_at(self._answer("encrypt", digest, Plaintext=key), "CiphertextBlob")

    def unwrap(self, wrapped: bytes, digest: str) -> bytes:
        # KMS is told the key, or it would use whatever key the ciphertext names.
        answer = self._answer("decrypt", digest, CiphertextBlob=wrapped)
        if not str(answer.get("KeyId")).endswith(self._name):
            raise KeyUnavailableError(_REASONS["IncorrectKeyException"])
        return _bytes_at(answer, "Plaintext")

    def _answer(self, operation: str, digest: str, **parameters: Any) -> Any:
        errors = self._errors
        context = {"tenantguard-environment": self._environment, "tenantguard-keyset": digest}
        try:
            ask = getattr(self._client(), operation)
            ask = partial(ask, KeyId=self._key_id, EncryptionContext=context, **parameters)
            return asked(ask, (errors.EndpointConnectionError, errors.ConnectionClosedError))
        except errors.ClientError as error:
            failure = _refusal(error)
        except (errors.ConnectionError, errors.HTTPClientError):
            failure = KeyUnavailableError(unreachable(_NAME))
        except KeyUnavailableError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  (boto3 stumbles over answers that are not KMS's)
            failure = KeyUnavailableError(
                f"boto3 cannot ask {_NAME} ({type(error).__name__}). Look at the credentials, the "
                "region and the address that it finds."
            )
        # Outside of the block: the cause would show the request.
        raise failure


def _bytes_at(answer: Any, name: str) -> bytes:
    found = answer.get(name)
    if not isinstance(found, bytes):
        raise KeyUnavailableError(
            f"{_NAME} did not answer as documented. Look at the address that boto3 asks."
        )
    return found


def _refusal(error: Any) -> KeyUnavailableError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in _ALTERED:
        return altered()
    # The service's own text names accounts and roles.
    shown = code if _CODE.fullmatch(code) else "no code"
    return KeyUnavailableError(
        _REASONS.get(code, f"{_NAME} answered {shown}. Look it up in the errors of its API.")
    )
