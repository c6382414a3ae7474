"""The envelope that a queue's message carries: for which tenant, by whom and why, signed.

`tg1.PAYLOAD.KEY.SIGNATURE`: the payload is JSON in base64url, readable by everybody who sees the
message; KEY names the signing key; the signature is hexadecimal and covers the environment, the
payload and the name of the task, so that a message cannot be moved to another task.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass
from datetime import timedelta
from time import time
from typing import TYPE_CHECKING

from tenantguard.errors import ConfigurationError, EnvelopeError, EnvelopeExpiredError

if TYPE_CHECKING:
    from tenantguard.context import TenantId
    from tenantguard.crypto.signing import SigningFile

__all__ = ["LIFETIME", "Envelope", "new_envelope", "open_envelope", "seal_envelope"]

LIFETIME = timedelta(days=1)
"""How long an envelope is believed unless it is said otherwise."""

_PURPOSE = "job"
_VERSION = "tg1"
# Hexadecimal, because base64 writes the same signature in several ways.
_FORM = re.compile(r"tg1\.([A-Za-z0-9_-]{1,65536})\.([0-9a-f]{8})\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, repr=False)
class Envelope:
    """Whose work a job is.

    Attributes:
        tenant: The tenant's id; of a UUID, the text.
        actor: Who enqueued it, as `tenant_context(actor=…)` was told.
        purpose: Why.
        issued: When it was made, in seconds since 1970.
        expires: When it is no longer believed, likewise.
    """

    tenant: int | str
    actor: str | None
    purpose: str | None
    issued: int
    expires: int

    def __repr__(self) -> str:
        return "<Envelope>"


def new_envelope(
    tenant: TenantId, *, actor: str | None, purpose: str | None, expires_in: timedelta
) -> Envelope:
    """Return an envelope for *tenant* that is made now and expires after *expires_in*.

    Raises:
        ConfigurationError: If *expires_in* is not longer than nothing.
    """
    if expires_in <= timedelta(0):
        raise ConfigurationError("expires_in= says how long a job may wait: more than nothing.")
    issued = int(time())
    given = tenant if isinstance(tenant, int) else str(tenant)
    expires = issued + int(expires_in.total_seconds())
    return Envelope(given, actor, purpose, issued, expires)


def seal_envelope(envelope: Envelope, *, task: str, signing: SigningFile) -> str:
    """Return *envelope* as text that only *task* can open.

    Raises:
        ConfigurationError: If the file of signing keys cannot be read.
    """
    content = json.dumps(asdict(envelope), separators=(",", ":")).encode()
    payload = urlsafe_b64encode(content).decode().rstrip("=")
    key = signing.primary
    signature = key.sign(_PURPOSE, _message(payload, task, signing))
    return f"{_VERSION}.{payload}.{key.id}.{signature.hex()}"


def open_envelope(text: object, *, task: str, signing: SigningFile) -> Envelope:
    """Return what *text* says, if it was sealed for *task* and has not expired.

    Raises:
        EnvelopeError: If it is missing, malformed or forged; the message says which.
        EnvelopeExpiredError: If it has expired.
        ConfigurationError: If the file of signing keys cannot be read.
    """
    if text is None or text == "":
        raise EnvelopeError(
            "The job has no envelope, so nobody knows for which tenant it is. Enqueue it while a "
            "tenant is active, or declare it tenantless, with the reason."
        )
    form = _FORM.fullmatch(text) if isinstance(text, str) else None
    if form is None:
        raise EnvelopeError(
            "The job's envelope is malformed: cut off, altered, or of a newer version of "
            "tenantguard. Pass it on as it was sealed, and enqueue the job again."
        )
    payload, key, signature = form.groups()
    found = signing.keys.get(key)
    message = _message(payload, task, signing)
    if found is None or not found.verifies(_PURPOSE, message, bytes.fromhex(signature)):
        raise EnvelopeError(
            "The job's envelope is not signed for this task by a key that the application has: "
            "forged, altered, moved from another task or environment, or signed by a key that was "
            "removed. Enqueue the job again; when rotating, remove a key only when no message "
            "needs it any more."
        )
    return _unexpired(
        Envelope(**json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
    )


def _unexpired(envelope: Envelope) -> Envelope:
    if envelope.expires <= time():
        raise EnvelopeExpiredError(
            "The job's envelope has expired: the job waited for too long, or the clocks differ. "
            "Enqueue it again, with a longer expires_in= where jobs wait long by design."
        )
    return envelope


def _message(payload: str, task: str, signing: SigningFile) -> bytes:
    # Neither an environment's label nor base64url has a "|"; the task's name, which may, is last.
    text = f"{_VERSION}|{signing.environment}|{payload}|{task}"
    return text.encode(errors="surrogatepass")
