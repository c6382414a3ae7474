"""Keys in the transit engine of Vault, over real HTTP."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import sys
from base64 import b64decode
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from serving import Service, closed_address, serving
from transit import KEY, TOKEN, Transit
from wrapping import BOUND, KEYSET, refusal_by

from tenantguard import ConfigurationError, KeyUnavailableError
from tenantguard.kms import VaultTransit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def engine() -> Transit:
    return Transit()


@pytest.fixture
def service(engine: Transit) -> Iterator[Service]:
    with serving(engine) as running:
        yield running


def vault(address: str, key: str = KEY, **options: Any) -> VaultTransit:
    return VaultTransit(address, key, **{"environment": "test", "token": lambda: TOKEN, **options})


@pytest.fixture
def keys(service: Service) -> VaultTransit:
    return vault(service.address)


refused_by = partial(refusal_by, secrets=(TOKEN,))


# -- what Vault does --------------------------------------------------------------------------


def test_what_was_wrapped_opens(keys: VaultTransit, service: Service) -> None:
    """A keyset goes through Vault and back, in another process too."""
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    assert vault(service.address).kek.decrypt(sealed, BOUND) == KEYSET
    assert b"vault:v1:" in sealed


def test_other_associated_data_does_not_open(keys: VaultTransit, service: Service) -> None:
    """Vault itself refuses the data key under another digest, with the status 400."""
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    with pytest.raises(KeyUnavailableError, match="belongs to another tenant"):
        keys.kek.decrypt(sealed, b"other")
    assert len(service.asked) == 2


def test_vault_sees_no_tenant_and_no_keyset(keys: VaultTransit, service: Service) -> None:
    """It gets a random key of 32 bytes, and a digest; its audit log can show no more."""
    keys.kek.decrypt(keys.kek.encrypt(KEYSET, BOUND), BOUND)
    seal, opening = service.asked
    assert (seal.path, opening.path) == (
        "/v1/transit/encrypt/tenants",
        "/v1/transit/decrypt/tenants",
    )
    assert len(b64decode(seal.body["plaintext"])) == 32
    assert len(b64decode(seal.body["associated_data"])) == 64
    assert seal.body["associated_data"] == opening.body["associated_data"]
    assert "4711" not in str(service.asked)


def test_a_rotated_key_opens_what_it_has_wrapped(keys: VaultTransit, engine: Transit) -> None:
    """Vault's key versions need nothing here, until old ones are not decrypted with any more."""
    first = keys.kek.encrypt(KEYSET, BOUND)
    engine.versions.append(bytes(32))
    second = keys.kek.encrypt(KEYSET, BOUND)
    assert b"vault:v2:" in second
    assert keys.kek.decrypt(first, BOUND) == keys.kek.decrypt(second, BOUND) == KEYSET
    engine.oldest = 2
    assert keys.kek.decrypt(second, BOUND) == KEYSET
    refused_by(keys, "so old a version", first)


def test_mount_and_namespace(engine: Transit, service: Service) -> None:
    """The engine may be mounted anywhere, and be a namespace's."""
    engine.mount, engine.namespace = "team/transit", "clinic"
    refused_by(vault(service.address), "no transit engine there")
    refused_by(vault(service.address, mount="team/transit"), "no transit engine there")
    keys = vault(service.address, mount="team/transit", namespace="clinic")
    assert keys.kek.decrypt(keys.kek.encrypt(KEYSET, BOUND), BOUND) == KEYSET
    assert keys.uri == "vault-transit:test/team/transit/tenants"


# -- what can be wrong ------------------------------------------------------------------------


def test_the_token_is_asked_for_each_time(service: Service) -> None:
    """One that was renewed is used at once; one that has expired is refused by Vault."""
    tokens = iter([TOKEN, "hvs.expired", f"{TOKEN}\n"])
    keys = vault(service.address, token=lambda: next(tokens))
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    refused_by(keys, "refuses the token", sealed)
    assert keys.kek.decrypt(sealed, BOUND) == KEYSET


@pytest.mark.parametrize("token", ["", " ", "two words", f"{TOKEN}\nX-Other: 1", "ä", None, b"x"])
def test_what_is_no_token_is_not_sent(service: Service, token: Any) -> None:
    """A library's error would quote it."""
    refused_by(vault(service.address, token=lambda: token), "returned nothing, or no token")
    assert service.asked == []


def test_a_token_that_cannot_be_had(service: Service) -> None:
    """The user's function fails: its error's text may hold a secret, and is not shown."""

    def token() -> str:
        raise OSError(TOKEN)

    refused_by(vault(service.address, token=token), "token=….* has raised OSError")


def test_a_sealed_vault_says_so(keys: VaultTransit, engine: Transit, service: Service) -> None:
    """It is not asked again at once; unsealed, it serves."""
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    engine.sealed = True
    refused_by(keys, "sealed, or under maintenance", sealed)
    assert len(service.asked) == 2
    engine.sealed = False
    assert keys.kek.decrypt(sealed, BOUND) == KEYSET


def test_an_unsuitable_key_is_named(service: Service, engine: Transit) -> None:
    """One that is not there, and one that takes no associated data."""
    refused_by(vault(service.address, "absent"), "has no such key")
    engine.supports = False
    refused_by(vault(service.address), "takes no associated data")


def test_a_vault_that_ignores_the_digest_binds_all_the_same(
    service: Service, engine: Transit
) -> None:
    """Versions before associated data leave it out silently; the envelope holds it."""

    def ignoring(request: Any) -> tuple[int, Any]:
        request.body["associated_data"] = ""
        return engine(request)

    service.answer = ignoring
    keys = vault(service.address)
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    with pytest.raises(KeyUnavailableError, match="belongs to another tenant"):
        keys.kek.decrypt(sealed, b"other")


@pytest.mark.parametrize(
    ("status", "document", "because"),
    [
        (200, b"<html>a login page</html>", "status 200, and not as"),
        (200, {"data": None}, "status 200, and not as"),
        (200, {"data": {"ciphertext": 5}}, "status 200, and not as"),
        (200, {"data": {"ciphertext": f"vault:v1:{TOKEN}"}}, "status 200, and not as"),
        (500, {"errors": [TOKEN]}, "status 500"),
        (429, {"errors": ["request path: rate limit quota exceeded"]}, "asked too often"),
    ],
)
def test_another_answer_is_refused(
    service: Service, status: int, document: Any, because: str
) -> None:
    """What is not as documented, and where it leads elsewhere; without its text."""
    service.answer = lambda _: (status, document)
    refused_by(vault(service.address), because)


def test_a_token_follows_no_redirect(service: Service) -> None:
    """Where a standby or a stranger sends us, no token goes."""
    with serving(lambda _: (500, None)) as elsewhere:
        service.answer = lambda _: (307, {"location": f"{elsewhere.address}/v1/transit/x"})
        refused_by(vault(service.address), "of an active node")
        assert elsewhere.asked == []


@pytest.mark.parametrize("plaintext", [None, "not base64!", "c2hvcnQ="])
def test_an_opened_key_has_to_be_one(service: Service, plaintext: Any) -> None:
    """Whatever Vault answers: bytes that are no key open nothing."""
    keys = vault(service.address)
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    service.answer = lambda _: (200, {"data": {"plaintext": plaintext}})
    refused_by(keys, "status 200|does not open", sealed)


def test_a_row_that_was_altered_is_not_sent(keys: VaultTransit, service: Service) -> None:
    """What does not look like Vault's ciphertext never reaches it."""
    sealed = keys.kek.encrypt(KEYSET, BOUND).replace(b"vault:v1:", b"vault/v1:")
    refused_by(keys, "does not open", sealed)
    assert len(service.asked) == 1


# -- the network ------------------------------------------------------------------------------


def test_a_lost_connection_is_tried_once_more(keys: VaultTransit, service: Service) -> None:
    """One that breaks is made anew, once."""
    service.breaks = 1
    assert keys.kek.encrypt(KEYSET, BOUND)
    assert len(service.asked) == 2
    service.breaks = 2
    refused_by(keys, "could not be reached")
    assert len(service.asked) == 4


def test_a_slow_answer_is_not_waited_for(service: Service) -> None:
    """After the timeout it is an error, and Vault is not asked again."""
    service.held.clear()
    refused_by(vault(service.address, timeout=0.1), "did not answer in time")
    assert len(service.asked) == 1


def test_nobody_listens() -> None:
    """A service that is down says so."""
    refused_by(vault(closed_address()), "could not be reached")


def certificate(directory: Path) -> Path:
    """Write a certificate for 127.0.0.1 that nobody but itself has signed, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    content = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = directory / "server.pem"
    file.write_bytes(content)
    return file


def test_the_server_has_to_be_the_right_one(engine: Transit, tmp_path: Path) -> None:
    """A certificate that nobody vouches for gets no token; one that ca_file= has does."""
    file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with serving(engine, context) as service:
        refused_by(vault(service.address), "could not be reached")
        assert service.asked == []
        keys = vault(service.address, ca_file=file)
        assert keys.kek.decrypt(keys.kek.encrypt(KEYSET, BOUND), BOUND) == KEYSET


# -- how it is set up -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["http://vault.internal:8200", "http://10.0.0.1", "ftp://localhost", "http://127.0.0.1.x.org"],
)
def test_the_way_has_to_be_encrypted(address: str) -> None:
    """Only on this machine's own address a token goes in the clear."""
    with pytest.raises(ConfigurationError, match="begin with https://"):
        vault(address)


@pytest.mark.parametrize(
    "address", ["", "vault:8200", "https://", "https://root:pw@vault", "https://vault/?x=1"]
)
def test_an_address_is_a_servers(address: str) -> None:
    """Nothing that could hold a secret, or hide where the token goes."""
    with pytest.raises(ConfigurationError, match="takes the address of a server"):
        vault(address)


@pytest.mark.parametrize(
    "options", [{"key": "../sys"}, {"key": ""}, {"mount": "a/../sys"}, {"namespace": "a\nb"}]
)
def test_a_name_leads_nowhere_else(options: dict[str, str]) -> None:
    """Key and mount are names, not paths."""
    with pytest.raises(ConfigurationError, match="take names as Vault has"):
        vault("https://vault", **options)


def test_nothing_is_sent_before_it_is_needed(keys: VaultTransit, service: Service) -> None:
    """Making the provider and asking for its key talks to nobody, and shows its name."""
    assert keys.kek is keys.kek
    assert repr(keys) == "<VaultTransit environment='test' key='tenants'>"
    assert service.asked == []


def test_the_package_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without urllib3 the first engine is not protected, and the extra is named."""
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(ConfigurationError, match=r"Install `tenantguard\[vault\]`"):
        _ = vault("https://vault").kek
