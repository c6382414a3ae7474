"""An AES key in a hardware security module, by its PKCS#11 library."""

from __future__ import annotations

import os
import re
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

from tenantguard.crypto.secret_file import require_label
from tenantguard.errors import ConfigurationError, KeyUnavailableError
from tenantguard.kms.asking import given, package
from tenantguard.kms.envelope import EnvelopeKek, altered
from tenantguard.kms.processes import PerProcess, forget_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pkcs11"]

_LABEL = re.compile(r"[\w.-][\w .-]{0,62}", re.ASCII)
_NONCE_SIZE = 12
_KEY_BITS = 256
_TAG_BITS = 128
_NAME = "The PKCS#11 token"
_PIN = (
    f"{_NAME} refuses the PIN. It is not tried again in this process, since a token locks itself "
)
_REASONS = {
    "NoSuchToken": f"{_NAME} is not there. Look at token_label=, and that the module is connected.",
    "MultipleTokensReturned": "Several PKCS#11 tokens have that label. Give each its own.",
    "NoSuchKey": f"{_NAME} has no AES key of that label that the user may see. Look at key_label=.",
    "MultipleObjectsReturned": f"{_NAME} has several AES keys of that label. Give each its own.",
    "MechanismInvalid": f"{_NAME} has no AES-GCM (CKM_AES_GCM). Use one that has.",
}
_PIN_ERRORS = ("PinIncorrect", "PinInvalid", "PinLenRange", "PinLocked", "PinExpired")
_STALE = (
    "SessionHandleInvalid",
    "SessionClosed",
    "UserNotLoggedIn",
    "KeyHandleInvalid",
    "ObjectHandleInvalid",
    "DeviceError",
    "DeviceRemoved",
    "TokenNotPresent",
)
"""What a token says when it was restarted, or taken out and put back."""


class Pkcs11:
    """A key-encryption key in a PKCS#11 token: AES with 256 bits, for CKM_AES_GCM.

    Args:
        library: The file of the module's PKCS#11 library.
        token_label: The token's label.
        key_label: The key's label.
        environment: Where the application runs; part of what keysets are bound to.
        pin: Returns the PIN of the token's user; called when a process logs in.

    Raises:
        ConfigurationError: If a label is malformed.
    """

    def __init__(
        self,
        library: str | os.PathLike[str],
        token_label: str,
        key_label: str,
        *,
        environment: str,
        pin: Callable[[], str],
    ) -> None:
        require_label(environment)
        if not (_LABEL.fullmatch(token_label) and _LABEL.fullmatch(key_label)):
            raise ConfigurationError(
                "Pkcs11(token_label, key_label) take up to 63 letters, digits, '.', '_', '-' and "
                "spaces. Label token and key so: they stand in the database and in messages."
            )
        self.environment = environment
        self._library, self._token, self._key = str(library), token_label, key_label
        self._pin = pin

    def __repr__(self) -> str:
        return f"<Pkcs11 environment={self.environment!r} key={self._key!r}>"

    @property
    def uri(self) -> str:
        """What names the key in `tenantguard_keys`."""
        return f"pkcs11:{self.environment}/{self._token}/{self._key}"

    @cached_property
    def kek(self) -> EnvelopeKek:
        """The key.

        Raises:
            ConfigurationError: If python-pkcs11 is not installed.
        """
        module = package("pkcs11", "pkcs11")
        login = _Login(module, self._library, self._token, self._key, self._pin)
        return EnvelopeKek(_Service(module, login))


class _Service:
    """Wraps by AES-GCM in the token, with the digest as associated data: nonce | ciphertext."""

    def __init__(self, module: Any, login: _Login) -> None:
        self._module = module
        self._key: PerProcess[Any] = PerProcess(login)
        # A session does one thing at a time.
        self._lock = Lock()
        forget_after_fork(self)

    def forget(self) -> None:
        """Let the lock of another process be."""
        self._lock = Lock()

    def wrap(self, key: bytes, digest: str) -> bytes:
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + self._done("encrypt", key, nonce, digest)

    def unwrap(self, wrapped: bytes, digest: str) -> bytes:
        if len(wrapped) <= _NONCE_SIZE:
            raise altered()
        return self._done("decrypt", wrapped[_NONCE_SIZE:], wrapped[:_NONCE_SIZE], digest)

    def _done(self, verb: str, content: bytes, nonce: bytes, digest: str) -> bytes:
        parameters = self._module.GCMParams(nonce, digest.encode(), _TAG_BITS)
        mechanism = self._module.Mechanism.AES_GCM
        with self._lock:
            for again in (True, False):
                try:
                    do = getattr(self._key(), verb)
                    return bytes(do(content, mechanism=mechanism, mechanism_param=parameters))
                except self._module.PKCS11Error as error:
                    kind = type(error).__name__
                if not again or kind not in _STALE:
                    break
                self._key.forget()
        raise _refusal(kind, opening=verb == "decrypt")


class _Login:
    """Logs into the token and finds the key; called by one thread."""

    def __init__(
        self, module: Any, library: str, token: str, key: str, pin: Callable[[], str]
    ) -> None:
        self._module = module
        self._library = library
        self._token, self._key = token, key
        self._pin = pin
        self._refused = ""

    def __call__(self) -> Any:
        if self._refused:
            raise KeyUnavailableError(self._refused)
        module = self._module
        session = self._session(_libraries.load(module, self._library))
        secret, aes = module.ObjectClass.SECRET_KEY, module.KeyType.AES
        key = session.get_key(object_class=secret, key_type=aes, label=self._key)
        if key.key_length != _KEY_BITS:
            raise KeyUnavailableError(f"{_NAME}'s key is not one of AES with {_KEY_BITS} bits.")
        return key

    def _session(self, library: Any) -> Any:
        token = library.get_token(token_label=self._token)
        pin = given("Pkcs11(pin=…)", self._pin)
        if not isinstance(pin, str) or not pin:
            raise KeyUnavailableError("Pkcs11(pin=…) returned no text. It has to return the PIN.")
        try:
            return token.open(user_pin=pin)
        except self._module.UserAlreadyLoggedIn:
            # By another session of this process, which counts for all of them.
            return token.open()
        except self._module.PKCS11Error as error:
            kind = type(error).__name__
            if kind not in _PIN_ERRORS:
                raise
        self._refused = f"{_PIN}({kind}): mend pin=, then start the application anew."
        raise KeyUnavailableError(self._refused)


class _Libraries:
    """PKCS#11 libraries, which a forked process has to initialise anew before it uses them."""

    def __init__(self) -> None:
        self._loaded: set[str] = set()
        self.forget()
        forget_after_fork(self)

    def forget(self) -> None:
        self._lock = Lock()
        self._stale = set(self._loaded)

    def load(self, module: Any, path: str) -> Any:
        with self._lock:
            try:
                library = module.lib(path)
                if path in self._stale:
                    library.reinitialize()
            except (module.PKCS11Error, OSError):
                library = None
            if library is not None:
                self._stale.discard(path)
                self._loaded.add(path)
        if library is None:
            raise KeyUnavailableError(
                "The PKCS#11 library cannot be loaded or initialised. Look at library=, and at "
                "what the module's maker says of its configuration."
            )
        return library


_libraries = _Libraries()


def _refusal(kind: str, *, opening: bool) -> KeyUnavailableError:
    if kind in _REASONS:
        return KeyUnavailableError(_REASONS[kind])
    if opening and kind not in _STALE:
        # Tokens do not agree on the error for a tag that is wrong.
        return KeyUnavailableError(f"{altered()} Or {_NAME.lower()} has failed: it says {kind}.")
    return KeyUnavailableError(
        f"{_NAME} answered {kind}. Look it up in PKCS#11, and at the module's own log."
    )
