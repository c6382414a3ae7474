"""The transit engine of Vault, as far as its API's documentation describes encrypt and decrypt.

https://developer.hashicorp.com/vault/api-docs/secret/transit#encrypt-data and #decrypt-data have
the requests and the answers, https://developer.hashicorp.com/vault/api-docs#http-status-codes the
statuses; the texts of errors are those of OpenBao's builtin/logical/transit and
sdk/helper/keysutil. The key is AES-256-GCM, as the type aes256-gcm96 is.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from serving import Asked

TOKEN = "hvs.a-token-that-nobody-sees"
KEY = "tenants"


@dataclass(slots=True)
class Transit:
    """An engine with one key.

    Attributes:
        versions: The key's, newest last.
        oldest: The oldest that decrypts, counted from 1.
        supports: Whether the key takes associated data; an RSA key does not.
    """

    mount: str = "transit"
    versions: list[bytes] = field(default_factory=lambda: [AESGCM.generate_key(256)])
    oldest: int = 1
    sealed: bool = False
    supports: bool = True
    namespace: str = ""

    def __call__(self, request: Asked) -> tuple[int, Any]:
        verb, _, key = request.path.removeprefix(f"/v1/{self.mount}/").partition("/")
        namespace = request.headers.get("x-vault-namespace", "")
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if namespace != self.namespace or verb not in ("encrypt", "decrypt"):
            return 404, {"errors": [f'no handler for route "{request.path}"']}
        if request.headers.get("x-vault-token") != TOKEN:
            return 403, {"errors": ["permission denied"]}
        if key != KEY or not self.supports:
            cipher = "'[0].associated_data' provided for non-AEAD cipher suite rsa-4096"
            return 400, {"errors": ["encryption key not found" if key != KEY else cipher]}
        return getattr(self, verb)(request.body)  # type: ignore[no-any-return]

    def encrypt(self, body: dict[str, str]) -> tuple[int, Any]:
        nonce, bound = os.urandom(12), b64decode(body["associated_data"])
        plaintext = b64decode(body["plaintext"])
        sealed = nonce + AESGCM(self.versions[-1]).encrypt(nonce, plaintext, bound)
        version = len(self.versions)
        ciphertext = f"vault:v{version}:{b64encode(sealed).decode()}"
        return 200, {"data": {"ciphertext": ciphertext, "key_version": version}}

    def decrypt(self, body: dict[str, str]) -> tuple[int, Any]:
        _, version, sealed = body["ciphertext"].split(":")
        number = int(version.removeprefix("v"))
        if number < self.oldest:
            return 400, {
                "errors": ["ciphertext or signature version is disallowed by policy (too old)"]
            }
        content, bound = b64decode(sealed), b64decode(body["associated_data"])
        try:
            aead = AESGCM(self.versions[number - 1])
            plaintext = aead.decrypt(content[:12], content[12:], bound)
        except (InvalidTag, IndexError):
            return 400, {"errors": ["invalid ciphertext: unable to decrypt"]}
        return 200, {"data": {"plaintext": b64encode(plaintext).decode()}}
