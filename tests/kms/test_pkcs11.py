"""Keys in a PKCS#11 token: SoftHSM, started by the tests with a configuration of its own."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pkcs11
import pytest
from wrapping import BOUND, KEYSET, in_child, refusal_by

from tenantguard import ConfigurationError, KeyUnavailableError
from tenantguard.kms import Pkcs11

if TYPE_CHECKING:
    from collections.abc import Iterator

softhsm = pytest.mark.softhsm
PIN, OTHER_PIN = "1234-a-pin", "4321-another"
PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)


def library() -> str:
    found = [place for place in PLACES if Path(place).exists()]
    if not found:
        raise FileNotFoundError("SoftHSM is not installed: apt-get install softhsm2")
    return found[0]


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SoftHSM with two tokens: one with a key, one with keys that do not do."""
    directory = tmp_path_factory.mktemp("softhsm")
    (directory / "tokens").mkdir()
    file = directory / "softhsm2.conf"
    file.write_text(f"directories.tokendir = {directory}/tokens\nlog.level = ERROR\n", "utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SOFTHSM2_CONF", str(file))
        for label, pin in (("tenants", PIN), ("odd", PIN)):
            command = ["softhsm2-util", "--init-token", "--free", "--label", label]
            options = ["--pin", pin, "--so-pin", "5678"]
            subprocess.run([*command, *options], check=True, capture_output=True)
        module: Any = pkcs11.lib(library())
        make(module, "tenants", "kek", 256)
        make(module, "tenants", "next", 256)
        make(module, "odd", "short", 128)
        make(module, "odd", "twice", 256)
        make(module, "odd", "twice", 256)
        yield library()
        module.finalize()


def make(module: Any, token: str, label: str, bits: int) -> None:
    with module.get_token(token_label=token).open(rw=True, user_pin=PIN) as session:
        kept = {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False}
        session.generate_key(pkcs11.KeyType.AES, bits, label=label, store=True, template=kept)


@pytest.fixture
def keys(configured: str) -> Pkcs11:
    return token_key(configured)


def token_key(library: str, key: str = "kek", token: str = "tenants", **options: Any) -> Pkcs11:
    options = {"environment": "test", "pin": lambda: PIN, **options}
    return Pkcs11(library, token, key, **options)


refused_by = partial(refusal_by, secrets=(PIN, OTHER_PIN))


# -- what a token does ------------------------------------------------------------------------


@softhsm
def test_what_was_wrapped_opens(keys: Pkcs11, configured: str) -> None:
    """A keyset of any size goes through the token and back; another login opens it."""
    for keyset in (KEYSET, b"x" * 100_000):
        sealed = keys.kek.encrypt(keyset, BOUND)
        assert token_key(configured).kek.decrypt(sealed, BOUND) == keyset


@softhsm
def test_other_associated_data_does_not_open(keys: Pkcs11) -> None:
    """The token itself refuses the data key under another digest."""
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    with pytest.raises(KeyUnavailableError, match=r"belongs to another tenant.*it says \w+"):
        keys.kek.decrypt(sealed, BOUND + b"x")
    assert keys.kek.decrypt(sealed, BOUND) == KEYSET


@softhsm
def test_each_altered_byte_of_the_wrapped_key_is_noticed(keys: Pkcs11) -> None:
    """And the session goes on to serve."""
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    for place in range(3, 3 + 12 + 32 + 16):
        altered = bytearray(sealed)
        altered[place] ^= 1
        with pytest.raises(KeyUnavailableError, match="belongs to another tenant"):
            keys.kek.decrypt(bytes(altered), BOUND)
    refused_by(keys, "belongs to another tenant", b"\x01\x00\x05short" + bytes(40))
    assert keys.kek.decrypt(sealed, BOUND) == KEYSET


@softhsm
def test_two_keys_of_one_token(keys: Pkcs11, configured: str) -> None:
    """The login is the process's, not the provider's; one key does not open the other's."""
    successor = token_key(configured, "next")
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    assert successor.kek.decrypt(successor.kek.encrypt(KEYSET, BOUND), BOUND) == KEYSET
    assert keys.kek.decrypt(sealed, BOUND) == KEYSET
    refused_by(successor, "belongs to another tenant", sealed)


@softhsm
def test_threads_share_a_session(keys: Pkcs11) -> None:
    """A session does one thing at a time; nobody gets another's answer."""
    texts = [b"%d" % number for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        sealed = list(threads.map(lambda text: keys.kek.encrypt(text, text), texts))
        opened = list(threads.map(keys.kek.decrypt, sealed, texts))
    assert opened == texts


@softhsm
def test_a_token_that_was_restarted_is_logged_into_again(keys: Pkcs11, configured: str) -> None:
    """The old session is gone; the PIN is asked for anew."""
    sealed = keys.kek.encrypt(KEYSET, BOUND)
    restarted: Any = pkcs11.lib(configured)
    restarted.reinitialize()
    assert keys.kek.decrypt(sealed, BOUND) == KEYSET


@softhsm
def test_a_forked_process_logs_in_for_itself(keys: Pkcs11, configured: str) -> None:
    """With two keys of one library, which is initialised anew once; the parent's go on."""
    successor = token_key(configured, "next")
    sealed = [each.kek.encrypt(KEYSET, BOUND) for each in (keys, successor)]

    def opens() -> bool:
        return all(
            each.kek.decrypt(content, BOUND) == KEYSET
            for each, content in [*zip((keys, successor), sealed, strict=True)] * 2
        )

    assert in_child(opens) == 0
    assert opens()


# -- what can be wrong ------------------------------------------------------------------------


@softhsm
@pytest.mark.parametrize(
    ("token", "key", "because"),
    [
        ("absent", "kek", "token is not there"),
        ("tenants", "absent", "no AES key of that label"),
        ("odd", "twice", "several AES keys of that label"),
        ("odd", "short", "not one of AES with 256 bits"),
    ],
)
def test_an_unsuitable_key_is_named(configured: str, token: str, key: str, because: str) -> None:
    """What is not there, not alone or not strong enough."""
    refused_by(token_key(configured, key, token), because)


@softhsm
def test_a_wrong_pin_is_tried_once(configured: str) -> None:
    """A token locks itself after some, so that a provider does not try again."""
    module: Any = pkcs11.lib(configured)
    module.reinitialize()
    asked = []
    keys = token_key(configured, pin=lambda: asked.append(1) or OTHER_PIN)  # type: ignore[func-returns-value]
    refused_by(keys, "refuses the PIN.*PinIncorrect")
    refused_by(keys, "refuses the PIN.*PinIncorrect")
    assert len(asked) == 1
    assert token_key(configured).kek.encrypt(KEYSET, BOUND)


@softhsm
def test_a_pin_that_cannot_be_had(configured: str) -> None:
    """The user's function fails, or returns none."""

    def pin() -> str:
        raise OSError(PIN)

    refused_by(token_key(configured, pin=pin), "pin=….* has raised OSError")
    refused_by(token_key(configured, pin=lambda: None), "returned no text")


def test_a_library_that_cannot_be_loaded(tmp_path: Path) -> None:
    """Nothing there, and something that is no library."""
    refused_by(token_key(str(tmp_path / "absent.so")), "library cannot be loaded")
    (tmp_path / "text.so").write_text("text", "utf-8")
    refused_by(token_key(str(tmp_path / "text.so")), "library cannot be loaded")


def test_names_can_be_printed() -> None:
    """The labels stand in the database and in messages."""
    keys = token_key("lib.so", "kek 1", "HSM-2")
    assert keys.uri == "pkcs11:test/HSM-2/kek 1"
    assert repr(keys) == "<Pkcs11 environment='test' key='kek 1'>"
    for names in (("", "t"), ("k", "t/../x"), ("k\x1b", "t"), ("k", "t" * 64)):
        with pytest.raises(ConfigurationError, match="Label token and key so"):
            token_key("lib.so", *names)


def test_the_package_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without python-pkcs11 the first engine is not protected, and the extra is named."""
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(ConfigurationError, match=r"Install `tenantguard\[pkcs11\]`"):
        _ = token_key("lib.so").kek
