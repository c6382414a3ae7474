"""The file of the key-encryption key: who may read it, what is refused, what is never said."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from tenantguard import KeyFile
from tenantguard.crypto import secret_file
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.errors import ConfigurationError, KeyUnavailableError, TenantGuardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOT_A_KEY_FILE = "not one that `tenantguard keys init` has written.*Restore it from its backup"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A key file for the environment "test"."""
    made = tmp_path / "key.json"
    make_key_file(made, environment="test")
    return made


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Sets the process's umask for the test."""
    before = os.umask(0o077)
    os.umask(before)
    yield os.umask
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def secret_of(path: Path) -> str:
    """The key itself, as the file has it."""
    return str(json.loads(path.read_bytes())["keyset"]["key"][0]["keyData"]["value"])


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def refused(path: Path, pattern: str) -> None:
    """The file is refused with *pattern*, and nothing of its content is said anywhere."""
    content = path.read_bytes().decode(errors="ignore")
    for asked in ("kek", "uri"):
        with pytest.raises(ConfigurationError, match=pattern) as caught:
            getattr(KeyFile(path, environment="test"), asked)
        said = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)
        for piece in re.findall(r"[A-Za-z0-9+/=]{24,}", content):
            assert piece not in said
        chain: BaseException | None = caught.value
        while chain is not None:
            # The parsers' errors carry the whole text, as .doc or .object.
            assert not {"doc", "object"} & set(dir(chain))
            chain = chain.__context__


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277, 0o777])
def test_file_is_its_owners_whatever_the_umask(
    tmp_path: Path, umask: Callable[[int], int], mask: int
) -> None:
    """The mode is 0600: nobody else gets a right, and the owner does not lose one."""
    umask(mask)
    path = tmp_path / "key.json"
    uri = make_key_file(path, environment="production")
    assert mode_of(path) == 0o600
    key = KeyFile(path, environment="production")
    assert key.uri == uri
    assert key.kek.decrypt(key.kek.encrypt(b"text", b"data"), b"data") == b"text"


def test_file_is_never_open_to_others_while_it_is_written(
    tmp_path: Path, umask: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mode is right from the first moment, before the key is in the file."""
    modes: list[int] = []
    path = tmp_path / "key.json"
    fill = secret_file._fill

    def watched(descriptor: int, text: str) -> None:
        modes.append(mode_of(path))
        fill(descriptor, text)

    umask(0)
    monkeypatch.setattr(secret_file, "_fill", watched)
    make_key_file(path, environment="test")
    assert modes == [0o600]


def test_uri_names_the_environment_and_not_the_key(path: Path) -> None:
    """The URI goes into the database and into messages: it has a random name, not the key."""
    uri = KeyFile(path, environment="test").uri
    assert re.fullmatch(r"file:test/[0-9a-f]{16}", uri)
    assert uri.rpartition("/")[2] not in json.dumps(json.loads(path.read_bytes())["keyset"])


def test_each_key_is_another(tmp_path: Path) -> None:
    """Two files never have the same key or the same name."""
    paths = [tmp_path / str(number) for number in range(3)]
    uris = {make_key_file(path, environment="test") for path in paths}
    assert (len(uris), len({secret_of(path) for path in paths})) == (3, 3)


@pytest.mark.parametrize("content", [b"", b"other\n", None])
def test_existing_file_stays_as_it_is(path: Path, content: bytes | None) -> None:
    """Whatever is there stays, byte for byte: it may be the key of everything."""
    if content is not None:
        path.write_bytes(content)
    before = (path.read_bytes(), mode_of(path), path.stat().st_mtime_ns)
    with pytest.raises(ConfigurationError, match=r"never overwritten.*Name another file"):
        make_key_file(path, environment="test")
    assert (path.read_bytes(), mode_of(path), path.stat().st_mtime_ns) == before


def test_link_is_not_followed_to_a_new_file(tmp_path: Path) -> None:
    """A link that leads nowhere is something that exists: no key is made behind it."""
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    with pytest.raises(ConfigurationError, match="never overwritten"):
        make_key_file(link, environment="test")
    assert not target.exists()


@pytest.mark.parametrize("failing", ["fsync", "fchmod"])
def test_failed_write_leaves_no_half_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """A full disk is an error that says so, and the file can be made afterwards."""
    path = tmp_path / "key.json"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, failing, full)
        with pytest.raises(ConfigurationError, match=r"cannot be written: No space left.*Name a"):
            make_key_file(path, environment="test")
    assert list(tmp_path.iterdir()) == []
    make_key_file(path, environment="test")


def test_interrupted_write_leaves_no_half_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted from the keyboard, the command leaves nothing behind."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_key_file(tmp_path / "key.json", environment="test")
    assert list(tmp_path.iterdir()) == []


def test_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A path that cannot be written is answered with what is wrong with it."""
    with pytest.raises(ConfigurationError, match=r"cannot be written: No such file.*exists"):
        make_key_file(tmp_path / "no" / "key.json", environment="test")


@pytest.mark.parametrize("label", ["", " ", "pro duction", "-x", "ä", "a/b", "x\n", "a" * 64, "'"])
def test_environment_is_a_label(tmp_path: Path, label: str) -> None:
    """A label has no characters that a URI, a message or a terminal could take for its own."""
    with pytest.raises(ConfigurationError, match=r"up to 63 letters.*such as 'production'"):
        make_key_file(tmp_path / "key.json", environment=label)
    assert not (tmp_path / "key.json").exists()


@pytest.mark.parametrize("bits", [0o640, 0o660, 0o604, 0o602, 0o610, 0o601, 0o777])
def test_file_that_others_may_use_is_refused(path: Path, bits: int) -> None:
    """A single right of group or others is one too many."""
    path.chmod(bits)
    refused(path, r"open to others than its owner. Run `chmod 600`")


@pytest.mark.parametrize("bits", [0o600, 0o400])
def test_owner_alone_is_accepted(path: Path, bits: int) -> None:
    """A file that cannot be written any more serves as well."""
    path.chmod(bits)
    assert KeyFile(path, environment="test").kek


def test_link_is_judged_by_its_target(path: Path, tmp_path: Path) -> None:
    """Orchestrators mount secrets as links: what counts is the file that is read."""
    link = tmp_path / "link"
    link.symlink_to(path)
    assert KeyFile(link, environment="test").uri == KeyFile(path, environment="test").uri
    path.chmod(0o644)
    refused(link, "open to others")


def test_path_may_be_text(path: Path) -> None:
    """The path may come from an environment variable, as text."""
    assert KeyFile(str(path), environment="test").kek


def test_missing_file_is_said_and_how_to_go_on(tmp_path: Path) -> None:
    """A new environment is told how to make a key, an old one where its key is."""
    with pytest.raises(ConfigurationError, match=r"No such file.*keys init.*is in its backup"):
        _ = KeyFile(tmp_path / "absent", environment="test").kek


def test_directory_is_no_file(tmp_path: Path) -> None:
    """A mount point that became a directory is said to be one."""
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        _ = KeyFile(tmp_path, environment="test").kek


def test_file_that_cannot_be_read_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another user is an error of configuration, not a traceback."""

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(type(path), "open", denied)
    with pytest.raises(ConfigurationError, match="cannot be read: Permission denied"):
        _ = KeyFile(path, environment="test").kek


def test_key_of_another_environment_is_refused(path: Path) -> None:
    """Production's key does not work in staging, and both labels are named."""
    with pytest.raises(
        ConfigurationError, match=r"for the environment 'test'.*runs in 'staging'.*of its own"
    ):
        _ = KeyFile(path, environment="staging").kek


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"12",
        b'"tenantguard key-encryption key"',
        b"{}",
        b"PASSWORD=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
        b"\xff\xfe\x00AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        b"[" * 100_000,
    ],
)
def test_another_kind_of_file_is_refused(path: Path, content: bytes) -> None:
    """What is not a key file is refused without a word of it: it may be another secret."""
    path.write_bytes(content)
    refused(path, NOT_A_KEY_FILE)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(format="tenantguard receipt"),
        lambda document: document.update(version=2),
        lambda document: document.update(version="1"),
        lambda document: document.update(environment=None),
        lambda document: document.update(environment="test\x1b[2J"),
        lambda document: document.update(name=document["keyset"]["key"][0]["keyData"]["value"]),
        lambda document: document.update(name="'; --"),
        lambda document: document.update(name=7),
        *(
            lambda document, gone=gone: document.pop(gone)
            for gone in ("format", "version", "environment", "name", "keyset")
        ),
    ],
)
def test_another_format_is_refused(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A newer version's file, or one that was edited, is not guessed at."""
    rewrite(path, change)
    refused(path, NOT_A_KEY_FILE)


def test_every_truncation_is_refused(path: Path) -> None:
    """A file that lost its end is refused at each length, and never read as a weaker key."""
    content = path.read_bytes().rstrip()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        refused(path, NOT_A_KEY_FILE)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key["keyData"].update(value=key["keyData"]["value"][:12]),
        lambda key: key["keyData"].update(value="#"),
        lambda key: key["keyData"].update(typeUrl="type.googleapis.com/google.crypto.tink.None"),
        lambda key: key.update(status="DISABLED"),
        lambda key: key.pop("keyData"),
    ],
)
def test_damaged_key_is_refused(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A key file with a key that Tink cannot use is an error of ours, without the key."""
    rewrite(path, lambda document: change(document["keyset"]["key"][0]))
    with pytest.raises(KeyUnavailableError, match=r"holds no key.*from its backup") as caught:
        _ = KeyFile(path, environment="test").kek
    said = "".join(traceback.format_exception(caught.value))
    for piece in re.findall(r"[A-Za-z0-9+/=]{24,}", path.read_text()):
        assert piece not in said


def test_no_text_of_it_says_the_key_or_where_it_is(path: Path) -> None:
    """The repr names the environment only, before and after the key is read."""
    key = KeyFile(path, environment="test")
    assert repr(key) == str(key) == "<KeyFile environment='test'>"
    secret, kek = secret_of(path), key.kek
    for said in (repr(key), repr(vars(key)), repr(kek), key.uri):
        assert secret not in said


def test_nothing_is_read_before_it_is_needed(tmp_path: Path) -> None:
    """A guard can be made where the key is not, such as for `tenantguard rls sql`."""
    assert KeyFile(tmp_path / "absent", environment="test").environment == "test"


def test_file_is_read_once(path: Path) -> None:
    """The file may be taken away once the application has started."""
    key = KeyFile(path, environment="test")
    kek = key.kek
    path.unlink()
    assert key.kek is kek
    assert key.uri.startswith("file:test/")


def test_refusal_is_tried_again(path: Path) -> None:
    """A file that was mended is accepted, without another process."""
    key = KeyFile(path, environment="test")
    path.chmod(0o644)
    with pytest.raises(TenantGuardError, match="chmod 600"):
        _ = key.kek
    path.chmod(0o600)
    assert key.kek
