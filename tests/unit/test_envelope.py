"""Envelopes: what a message proves about the tenant of its job."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantguard import ConfigurationError, EnvelopeError, EnvelopeExpiredError, SigningFile
from tenantguard.crypto.signing import (
    add_signing_key,
    make_signing_file,
    promote_signing_key,
    remove_signing_key,
)
from tenantguard.jobs import envelope as module
from tenantguard.jobs.envelope import Envelope, new_envelope, open_envelope, seal_envelope

if TYPE_CHECKING:
    from pathlib import Path

CANARY, ACTOR, REASON = "kanarienvogel-4711", "canary@example.org", "canary reason"
TASK = "mail.send"
FORGED = "not signed for this task by a key"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signing") / "signing.json"
    make_signing_file(path, environment="test")
    return path


@pytest.fixture(scope="module")
def signing(path: Path) -> SigningFile:
    return SigningFile(path, environment="test")


def fresh(tenant: int | str = CANARY) -> Envelope:
    return new_envelope(tenant, actor=ACTOR, purpose=REASON, expires_in=timedelta(hours=1))


def sealed(signing: SigningFile, tenant: int | str = CANARY) -> str:
    return seal_envelope(fresh(tenant), task=TASK, signing=signing)


def refused(text: Any, signing: SigningFile, task: str = TASK) -> str:
    """Return the refusal's message, which shows nothing of the envelope."""
    with pytest.raises(EnvelopeError) as caught:
        open_envelope(text, task=task, signing=signing)
    said = f"{caught.value} {caught.value!r}"
    assert [each for each in (CANARY, ACTOR, REASON) if each in said] == []
    return said


@given(
    tenant=st.one_of(st.integers(), st.text(min_size=1)),
    actor=st.none() | st.text(min_size=1),
    purpose=st.none() | st.text(min_size=1),
    task=st.text(),
)
def test_what_was_sealed_is_opened(
    signing: SigningFile, tenant: int | str, actor: str | None, purpose: str | None, task: str
) -> None:
    """Tenant, actor and purpose come back as they were, whatever their letters."""
    envelope = new_envelope(tenant, actor=actor, purpose=purpose, expires_in=timedelta(minutes=1))
    text = seal_envelope(envelope, task=task, signing=signing)
    assert text.isascii()
    assert open_envelope(text, task=task, signing=signing) == envelope


@pytest.mark.parametrize("missing", [None, ""])
def test_a_missing_envelope_is_refused(signing: SigningFile, missing: str | None) -> None:
    """A job without one is nobody's."""
    assert "has no envelope" in refused(missing, signing)


@pytest.mark.parametrize(
    "text",
    [
        7,
        b"tg1.x",
        ["tg1"],
        "tg1",
        "tg1...",
        "tg2.e30.00000000." + "0" * 64,
        "tg1.e30.0000000." + "0" * 64,
        "tg1.e30.00000000." + "0" * 63,
        "tg1.e30=.00000000." + "0" * 64,
        "tg1.e30.00000000." + "0" * 64 + "\n",
        "tg1.e30.00000000." + "\u0660" * 64,
        "tg1." + "a" * 70_000 + ".00000000." + "0" * 64,
    ],
)
def test_a_malformed_envelope_is_refused(signing: SigningFile, text: Any) -> None:
    """What does not have the form is refused before anything in it is looked at."""
    assert "is malformed" in refused(text, signing)


def test_no_character_can_be_altered_left_out_or_added(signing: SigningFile) -> None:
    """Each place of the text counts, and there is one text only for one envelope."""
    text = sealed(signing)
    alphabet = "Aa0f9._-=\n\x00"
    for place in range(len(text)):
        for letter in alphabet:
            if letter != text[place]:
                refused(text[:place] + letter + text[place + 1 :], signing)
            refused(text[:place] + letter + text[place:], signing)
        refused(text[:place] + text[place + 1 :], signing)
        refused(text[:place], signing)
    assert open_envelope(text, task=TASK, signing=signing).tenant == CANARY


@given(data=st.data())
def test_bits_cannot_be_turned(signing: SigningFile, data: st.DataObject) -> None:
    """Whatever bits of whatever bytes are turned, the envelope does not open."""
    text = bytearray(sealed(signing).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] ^= data.draw(st.integers(1, 255))
    altered = text.decode("latin-1")
    if altered != sealed(signing):
        refused(altered, signing)


@given(text=st.text())
def test_no_text_is_taken_for_an_envelope(signing: SigningFile, text: str) -> None:
    """Nothing but an error of ours comes of any text."""
    refused(text, signing)


@pytest.mark.parametrize("task", ["mail.sendx", "mail.sen", "Mail.send", "", "mail.send|", "x|y"])
def test_an_envelope_opens_for_its_task_only(signing: SigningFile, task: str) -> None:
    """Moved onto another task's message, it is refused."""
    assert FORGED in refused(sealed(signing), signing, task)


@given(first=st.text(), second=st.text())
def test_tasks_are_not_confused(signing: SigningFile, first: str, second: str) -> None:
    """Two names are two tasks, whatever stands in them."""
    text = seal_envelope(fresh(), task=first, signing=signing)
    if first == second:
        assert open_envelope(text, task=second, signing=signing).tenant == CANARY
    else:
        assert FORGED in refused(text, signing, second)


def test_another_tenant_cannot_be_written_in(signing: SigningFile) -> None:
    """Who can read and write the queue cannot make a job another tenant's."""
    version, payload, key, signature = sealed(signing).split(".")
    content = json.loads(urlsafe_b64decode(payload + "=="))
    assert content["tenant"] == CANARY
    content["tenant"] = "another"
    forged = urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    assert FORGED in refused(f"{version}.{forged}.{key}.{signature}", signing)


def test_another_keys_envelope_is_refused(signing: SigningFile, tmp_path: Path) -> None:
    """A key that the application does not have signs nothing, also under a known key's name."""
    make_signing_file(tmp_path / "other.json", environment="test")
    other = SigningFile(tmp_path / "other.json", environment="test")
    text = sealed(other)
    assert FORGED in refused(text, signing)
    assert FORGED in refused(text.replace(other.primary.id, signing.primary.id), signing)


def test_another_environments_envelope_is_refused(
    signing: SigningFile, path: Path, tmp_path: Path
) -> None:
    """Even where somebody gave two environments the same key."""
    copied = json.loads(path.read_text())
    copied["environment"] = "staging"
    copy = tmp_path / "copied.json"
    copy.touch(0o600)
    copy.write_text(json.dumps(copied))
    staging = SigningFile(copy, environment="staging")
    assert staging.primary.secret == signing.primary.secret
    assert FORGED in refused(sealed(staging), signing)


def test_what_was_signed_for_something_else_is_refused(signing: SigningFile) -> None:
    """A signature that the key gave for another purpose is none of a job's."""
    version, payload, key, _ = sealed(signing).split(".")
    message = f"{version}|test|{payload}|{TASK}".encode()
    right = signing.primary.sign("job", message).hex()
    wrong = signing.primary.sign("setting", message).hex()
    assert FORGED in refused(f"{version}.{payload}.{key}.{wrong}", signing)
    assert open_envelope(f"{version}.{payload}.{key}.{right}", task=TASK, signing=signing)


def test_an_envelope_expires(signing: SigningFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is believed up to its last second and not afterwards."""
    envelope = fresh()
    text = seal_envelope(envelope, task=TASK, signing=signing)
    monkeypatch.setattr(module, "time", lambda: envelope.issued + 3599.9)
    assert open_envelope(text, task=TASK, signing=signing) == envelope
    monkeypatch.setattr(module, "time", lambda: envelope.issued + 3600.0)
    assert "has expired" in refused(text, signing)
    with pytest.raises(EnvelopeExpiredError, match="Enqueue it again"):
        open_envelope(text, task=TASK, signing=signing)


@pytest.mark.parametrize("seconds", [0, -1])
def test_an_envelope_has_to_last(seconds: int) -> None:
    """One that has expired before it is sent is a mistake."""
    with pytest.raises(ConfigurationError, match="how long a job may wait"):
        new_envelope("a", actor=None, purpose=None, expires_in=timedelta(seconds=seconds))


def test_keys_rotate_without_losing_a_job(tmp_path: Path) -> None:
    """An old key's messages open until the key is removed; a new key's, as soon as it is added."""
    path = tmp_path / "signing.json"
    old = make_signing_file(path, environment="test")

    def reread() -> SigningFile:
        return SigningFile(path, environment="test")

    before = sealed(reread())
    new = add_signing_key(path)
    worker = reread()
    promote_signing_key(path, new)
    after = sealed(reread())
    assert (old in before, new in after) == (True, True)
    for signing in (worker, reread()):
        for text in (before, after):
            assert open_envelope(text, task=TASK, signing=signing).tenant == CANARY
    remove_signing_key(path, old)
    assert FORGED in refused(before, reread())
    assert open_envelope(after, task=TASK, signing=reread()).tenant == CANARY


def test_no_representation_shows_whose_job_it_is() -> None:
    """Neither tenant, actor nor purpose."""
    assert repr(fresh()) == str(fresh()) == "<Envelope>"
