"""Keys in Google Cloud KMS and Azure Managed HSM, by their REST APIs over real HTTP."""

from __future__ import annotations

import os
import sys
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from serving import Service, closed_address, serving
from wrapping import BOUND, KEYSET, refusal_by

from tenantguard import ConfigurationError, KeyUnavailableError
from tenantguard.kms import AzureManagedHsm, GoogleKms
from tenantguard.kms.google import crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serving import Asked

    Provider = GoogleKms | AzureManagedHsm

TOKEN = "ya29.a-token-that-nobody-sees"
GOOGLE = "projects/clinic/locations/europe-west3/keyRings/app/cryptoKeys/tenants"
AZURE = "/keys/tenants/0698c2156c1a4e1da5b6bab6f6422fd6"


@dataclass(slots=True)
class Google:
    """Encrypt and decrypt as the REST reference of cryptoKeys documents them."""

    key: bytes = field(default_factory=lambda: AESGCM.generate_key(256))

    def __call__(self, request: Asked) -> tuple[int, Any]:
        name, _, verb = request.path.partition(":")
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            return _google_error(401, "UNAUTHENTICATED")
        if name != f"/v1/{GOOGLE}":
            return _google_error(404, "NOT_FOUND")
        bound = self.received(request.body, "additionalAuthenticatedData")
        if verb == "encrypt":
            nonce, content = os.urandom(12), self.received(request.body, "plaintext")
            sealed = nonce + AESGCM(self.key).encrypt(nonce, content, bound)
            return 200, {**self.sent("ciphertext", sealed), "verifiedPlaintextCrc32c": True}
        sealed = self.received(request.body, "ciphertext")
        try:
            content = AESGCM(self.key).decrypt(sealed[:12], sealed[12:], bound)
        except InvalidTag:
            return _google_error(400, "INVALID_ARGUMENT")
        return 200, self.sent("plaintext", content)

    def received(self, body: dict[str, str], name: str) -> bytes:
        content = b64decode(body[name])
        assert body[f"{name}Crc32c"] == str(crc32c(content))
        return content

    def sent(self, name: str, content: bytes) -> dict[str, Any]:
        return {name: b64encode(content).decode(), f"{name}Crc32c": str(crc32c(content))}


def _google_error(code: int, status: str) -> tuple[int, Any]:
    return code, {"error": {"code": code, "message": f"a text with {TOKEN}", "status": status}}


@dataclass(slots=True)
class Azure:
    """Wrap key and unwrap key as the REST reference of Key Vault documents them."""

    key: bytes = field(default_factory=lambda: os.urandom(32))

    def __call__(self, request: Asked) -> tuple[int, Any]:
        path, _, query = request.path.partition("?")
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            return _azure_error(401, "Unauthorized")
        name, _, verb = path.rpartition("/")
        if name != AZURE or query != "api-version=7.4":
            return _azure_error(404, "KeyNotFound")
        assert request.body["alg"] == "A256KW"
        value = request.body["value"]
        content = urlsafe_b64decode(value + "=" * (-len(value) % 4))
        try:
            use = aes_key_wrap if verb == "wrapkey" else aes_key_unwrap
            done = use(self.key, content)
        except (InvalidUnwrap, ValueError):
            return _azure_error(400, "BadParameter")
        return 200, {
            "kid": f"https://clinic.managedhsm.azure.net{AZURE}",
            "value": urlsafe_b64encode(done).rstrip(b"=").decode(),
        }


def _azure_error(status: int, code: str) -> tuple[int, Any]:
    return status, {"error": {"code": code, "message": f"a text with {TOKEN}"}}


def google(address: str, key: str = GOOGLE, **options: Any) -> GoogleKms:
    options = {"environment": "test", "token": lambda: TOKEN, **options}
    return GoogleKms(key, address=address, **options)


def azure(address: str, key: str = AZURE, **options: Any) -> AzureManagedHsm:
    options = {"environment": "test", "token": lambda: TOKEN, **options}
    return AzureManagedHsm(f"{address}{key}", **options)


CLOUDS: dict[str, tuple[Callable[[], Any], Callable[..., Provider]]] = {
    "google": (Google, google),
    "azure": (Azure, azure),
}


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(cloud: str) -> Callable[..., Provider]:
    return CLOUDS[cloud][1]


@pytest.fixture
def service(cloud: str) -> Iterator[Service]:
    with serving(CLOUDS[cloud][0]()) as running:
        yield running


@pytest.fixture
def keys(make: Callable[..., Provider], service: Service) -> Provider:
    return make(service.address)


refused_by = partial(refusal_by, secrets=(TOKEN,))


def test_what_was_wrapped_opens(
    keys: Provider, make: Callable[..., Provider], service: Service
) -> None:
    """A keyset of any size goes through the service and back, in another process too."""
    for keyset in (KEYSET, b"x" * 100_000):
        sealed = keys.kek.encrypt(keyset, BOUND)
        assert make(service.address).kek.decrypt(sealed, BOUND) == keyset


def test_other_associated_data_does_not_open(keys: Provider) -> None:
    """Whether the service binds or the envelope alone."""
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    with pytest.raises(KeyUnavailableError, match="belongs to another tenant"):
        keys.kek.decrypt(sealed, BOUND + b"x")


def test_each_altered_byte_is_noticed(keys: Provider) -> None:
    """Of the wrapped key, which the service refuses, and of what it seals."""
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    for place in range(0, len(sealed), 7):
        altered = bytearray(sealed)
        altered[place] ^= 1
        with pytest.raises(KeyUnavailableError):
            keys.kek.decrypt(bytes(altered), BOUND)
    assert keys.kek.decrypt(sealed, BOUND) == KEYSET


def test_another_key_does_not_open(make: Callable[..., Provider], cloud: str) -> None:
    """What one service's key has wrapped is nothing to another's."""
    with serving(CLOUDS[cloud][0]()) as one, serving(CLOUDS[cloud][0]()) as other:
        sealed = make(one.address).kek.encrypt(KEYSET, BOUND)
        refused_by(make(other.address), "belongs to another tenant", sealed)


def test_the_service_sees_no_tenant_and_no_keyset(keys: Provider, service: Service) -> None:
    """It gets a random key of 32 bytes, and a digest at most."""
    keys.kek.decrypt(keys.kek.encrypt(KEYSET, BOUND), BOUND)
    assert len(service.asked) == 2
    assert "4711" not in str(service.asked)
    assert b64encode(KEYSET).decode()[:20] not in str(service.asked)


def test_a_token_that_has_expired(make: Callable[..., Provider], service: Service) -> None:
    """It is asked for each time, so that a renewed one is used at once."""
    tokens = iter(["ya29.expired", TOKEN])
    keys = make(service.address, token=lambda: next(tokens))
    refused_by(keys, "refuses the token")
    assert keys.kek.encrypt(KEYSET, BOUND)


def test_a_key_that_is_not_there(
    make: Callable[..., Provider], service: Service, cloud: str
) -> None:
    """The message names the argument."""
    other = {"google": GOOGLE[:-1], "azure": AZURE[:-1] + "0"}[cloud]
    refused_by(make(service.address, other), "has no such key")


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (200, b"<html>a login page</html>"),
        (200, {}),
        (200, {"ciphertext": 5, "value": 5, "kid": AZURE, "verifiedPlaintextCrc32c": True}),
        (200, {"value": "A", "kid": AZURE}),
        (200, {"value": "AAAA", "kid": f"{AZURE}0"}),
        (500, {"error": TOKEN}),
    ],
)
def test_another_answer_is_refused(
    keys: Provider, service: Service, status: int, document: Any
) -> None:
    """What is not as documented; without its text."""
    service.answer = lambda _: (status, document)
    refused_by(keys, "not as documented|damaged on the way")


@pytest.mark.parametrize(
    ("cloud", "status", "document", "because"),
    [
        ("google", *_google_error(403, "PERMISSION_DENIED"), "cryptoKeyEncrypterDecrypter"),
        ("google", *_google_error(400, "FAILED_PRECONDITION"), "disabled or destroyed"),
        ("google", *_google_error(429, "RESOURCE_EXHAUSTED"), "quota"),
        ("google", *_google_error(400, "INVALID_ARGUMENT"), "status 400"),
        ("azure", *_azure_error(403, "Forbidden"), "Crypto Service Encryption User"),
        ("azure", *_azure_error(429, "Throttled"), "asked too often"),
        ("azure", *_azure_error(400, "BadParameter"), "status 400"),
    ],
)
def test_a_refusal_says_what_to_do(
    keys: Provider, service: Service, status: int, document: Any, because: str
) -> None:
    """In our words: the service's own text may name accounts."""
    service.answer = lambda _: (status, document)
    refused_by(keys, because)
    assert len(service.asked) == 1


@pytest.mark.parametrize("cloud", ["google"])
def test_damage_on_the_way_is_noticed(keys: Provider, service: Service) -> None:
    """By checksums in both directions, before anything is stored."""
    answer = service.answer
    sealed = keys.kek.encrypt(KEYSET, BOUND)

    def damaged(**changes: Any) -> Callable[[Asked], tuple[int, Any]]:
        return lambda request: (200, {**answer(request)[1], **changes})

    for changes in (
        {"verifiedPlaintextCrc32c": False},
        {"ciphertextCrc32c": "1"},
        {"ciphertext": b64encode(b"other").decode()},
    ):
        service.answer = damaged(**changes)
        refused_by(keys, "damaged on the way")
    service.answer = damaged(plaintext=b64encode(bytes(32)).decode())
    refused_by(keys, "damaged on the way", sealed)


def test_checksums_are_crc32c() -> None:
    """The examples of RFC 3720, B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_the_network(make: Callable[..., Provider], service: Service) -> None:
    """A broken connection is made anew once; slow answers are not waited for; nobody listens."""
    service.breaks = 1
    assert make(service.address).kek.encrypt(KEYSET, BOUND)
    assert len(service.asked) == 2
    service.held.clear()
    refused_by(make(service.address, timeout=0.1), "did not answer in time")
    assert len(service.asked) == 3
    refused_by(make(closed_address()), "could not be reached")


@pytest.mark.parametrize("key", ["", "tenants", f"{GOOGLE}/cryptoKeyVersions/1", "../x"])
def test_malformed_names_are_refused(make: Callable[..., Provider], key: str) -> None:
    """One key, by its whole name."""
    with pytest.raises(ConfigurationError, match="takes a key's"):
        make("https://service", key)


def test_the_way_has_to_be_encrypted(make: Callable[..., Provider]) -> None:
    """A token goes there."""
    with pytest.raises(ConfigurationError, match="begin with https://"):
        make("http://service.example")


def test_names() -> None:
    """What stands in the database, and what is shown."""
    one, two = google("https://x"), azure("https://clinic.managedhsm.azure.net")
    assert one.uri == f"gcp-kms:test/{GOOGLE}"
    assert two.uri == f"azure-hsm:test/clinic.managedhsm.azure.net{AZURE}"
    assert repr(one) == "<GoogleKms environment='test' key='tenants'>"
    assert repr(two) == "<AzureManagedHsm environment='test' key='tenants'>"


def test_the_package_is_an_extra(
    monkeypatch: pytest.MonkeyPatch, make: Callable[..., Provider]
) -> None:
    """Without urllib3 the first engine is not protected, and the extra is named."""
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(ConfigurationError, match=r"Install `tenantguard\[(gcp|azure)\]`"):
        _ = make("https://service").kek
