"""The envelope: what was sealed opens as it was sealed, and as nothing else."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wrapping import BOUND, KEYSET, in_child

from tenantguard import KeyUnavailableError
from tenantguard.kms.envelope import EnvelopeKek, digest_of
from tenantguard.kms.processes import PerProcess


class Shelf:
    """A service that keeps keys and gives tickets for them; it looks at no digest."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.asked: list[str] = []
        self.go, self.waiting, self.lock = Event(), Event(), Lock()
        self.go.set()

    def wrap(self, key: bytes, digest: str) -> bytes:
        self.asked.append(f"wrap {digest}")
        self.keys.append(key)
        return b"%d" % (len(self.keys) - 1)

    def unwrap(self, wrapped: bytes, digest: str) -> bytes:
        with self.lock:
            self.asked.append(f"unwrap {digest}")
        self.waiting.set()
        self.go.wait()
        try:
            return self.keys[int(wrapped)]
        except (ValueError, IndexError):
            raise KeyUnavailableError("no such ticket 4711") from None


@settings(max_examples=30)
@given(st.binary(max_size=10_000), st.binary(max_size=200))
def test_what_was_sealed_opens(content: bytes, bound: bytes) -> None:
    """Of any size, with any associated data; never twice the same."""
    kek = EnvelopeKek(Shelf())
    sealed = kek.encrypt(content, bound)
    assert kek.decrypt(sealed, bound) == content
    assert kek.encrypt(content, bound) != sealed


def test_other_associated_data_does_not_open() -> None:
    """Although the service would unwrap the data key for everybody."""
    kek = EnvelopeKek(Shelf())
    sealed = kek.encrypt(KEYSET, BOUND)
    for other in (b"", BOUND[:-1], BOUND + b"x", BOUND.replace(b"4711", b"4712")):
        with pytest.raises(KeyUnavailableError, match="belongs to another tenant"):
            kek.decrypt(sealed, other)


def test_each_altered_byte_is_noticed() -> None:
    """The version, the wrapped key, the nonce and the content."""
    kek = EnvelopeKek(Shelf())
    sealed = kek.encrypt(KEYSET, BOUND)
    for place in range(len(sealed)):
        altered = bytearray(sealed)
        altered[place] ^= 1
        with pytest.raises(KeyUnavailableError):
            kek.decrypt(bytes(altered), BOUND)
    for size in range(len(sealed)):
        with pytest.raises(KeyUnavailableError):
            kek.decrypt(sealed[:size], BOUND)


def test_wrapped_keys_cannot_be_exchanged() -> None:
    """A data key with another's content opens nothing: both were sealed as one."""
    shelf = Shelf()
    kek = EnvelopeKek(shelf)
    one, two = kek.encrypt(KEYSET, BOUND), kek.encrypt(KEYSET, BOUND)
    shelf.keys.append(shelf.keys[0])
    with pytest.raises(KeyUnavailableError, match="belongs to another tenant"):
        kek.decrypt(two[:4] + one[4:], BOUND)
    with pytest.raises(KeyUnavailableError, match="belongs to another tenant"):
        kek.decrypt(one[:3] + b"2" + one[4:], BOUND)


def test_the_service_sees_no_tenant_and_no_keyset() -> None:
    """It gets a random key of 32 bytes, and a digest."""
    shelf = Shelf()
    sealed = EnvelopeKek(shelf).encrypt(KEYSET, BOUND)
    assert shelf.asked == [f"wrap {digest_of(BOUND)}"]
    assert [len(key) for key in shelf.keys] == [32]
    assert len(digest_of(BOUND)) == 64
    assert b"4711" not in digest_of(BOUND).encode() + sealed
    assert KEYSET not in sealed


def test_the_format_is_final() -> None:
    """What this version has sealed opens in every version to come."""
    shelf = Shelf()
    shelf.keys.append(bytes(range(32)))
    sealed = bytes.fromhex(
        "010001300000000000000000000000006f9cdebbcc5fe6c92488c05b3858f9fcf2203a3649f362de"
        "57b8fdca699ffbe8777a1405562e"
    )
    assert EnvelopeKek(shelf).decrypt(sealed, BOUND) == KEYSET


class Joining(dict[Any, Any]):
    """The flights of a kek, which tell when so many have asked for one."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.all_here = number, Event()

    def get(self, key: Any, default: Any = None) -> Any:
        self.number -= 1
        if not self.number:
            self.all_here.set()
        return super().get(key, default)


def test_those_who_ask_together_share_one_answer() -> None:
    """Eight threads that open the same keyset at once make one question of it; later is another."""
    shelf = Shelf()
    kek = EnvelopeKek(shelf)
    sealed = kek.encrypt(KEYSET, BOUND)
    asked = len(shelf.asked)
    joining = kek._flights._flights = Joining(8)
    shelf.go.clear()
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(kek.decrypt, sealed, BOUND) for _ in range(8)]
        joining.all_here.wait()
        shelf.go.set()
        assert {answer.result() for answer in answers} == {KEYSET}
    assert len(shelf.asked) == asked + 1
    assert not joining
    kek.decrypt(sealed, BOUND)
    assert len(shelf.asked) == asked + 2


def test_other_questions_do_not_share() -> None:
    """The same wrapped keyset asked for as another tenant's is a question of its own."""
    shelf = Shelf()
    kek = EnvelopeKek(shelf)
    sealed = kek.encrypt(KEYSET, BOUND)
    joining = kek._flights._flights = Joining(2)
    shelf.go.clear()
    with ThreadPoolExecutor(2) as threads:
        own, other = (threads.submit(kek.decrypt, sealed, bound) for bound in (BOUND, b"other"))
        joining.all_here.wait()
        shelf.go.set()
        assert own.result() == KEYSET
        assert isinstance(other.exception(), KeyUnavailableError)


def test_each_has_an_error_of_its_own() -> None:
    """A refusal reaches everybody who asked, without the frames that held a key."""
    shelf = Shelf()
    kek = EnvelopeKek(shelf)
    sealed = kek.encrypt(KEYSET, BOUND)
    shelf.keys.clear()
    with pytest.raises(KeyUnavailableError, match="no such ticket") as refusal:
        kek.decrypt(sealed, BOUND)
    assert refusal.value.__context__ is None
    frames = {entry.frame.code.name for entry in refusal.traceback}
    assert not frames & {"unwrap", "_open"}


def test_what_nobody_expected_is_raised_too() -> None:
    """A defect in a service is no endless wait, and the next question is asked anew."""
    shelf = Shelf()
    kek = EnvelopeKek(shelf)
    sealed = kek.encrypt(KEYSET, BOUND)
    unwrap, shelf.unwrap = shelf.unwrap, lambda *_: 1 / 0  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        kek.decrypt(sealed, BOUND)
    shelf.unwrap = unwrap  # type: ignore[method-assign]
    assert kek.decrypt(sealed, BOUND) == KEYSET


def test_a_forked_process_asks_for_itself() -> None:
    """What a thread of the parent waits for, and its lock, do not keep the child waiting."""
    shelf = Shelf()
    kek = EnvelopeKek(shelf)
    sealed = kek.encrypt(KEYSET, BOUND)
    shelf.go.clear()
    thread = Thread(target=kek.decrypt, args=(sealed, BOUND))
    thread.start()
    shelf.waiting.wait()

    def opens() -> bool:
        signal.alarm(10)
        shelf.go = Event()
        shelf.go.set()
        return kek.decrypt(sealed, BOUND) == KEYSET

    with kek._flights._lock:
        code = in_child(opens)
    shelf.go.set()
    thread.join()
    assert code == 0


def test_a_client_is_made_once_in_each_process() -> None:
    """Not before it is needed, once for all threads, and anew in a forked process."""
    made: list[int] = []
    client = PerProcess(lambda: made.append(os.getpid()) or len(made))  # type: ignore[func-returns-value]
    assert made == []
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: client(), range(20))) == {1}
    assert in_child(lambda: client() == 2 and made[-1] == os.getpid()) == 0
    assert client() == 1
