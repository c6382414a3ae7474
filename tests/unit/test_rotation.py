"""Keysets with other keys than before: whatever was sealed opens, until its key is disabled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealing import KEK, repeatable
from tink import aead

from tenantguard.crypto.format import FieldContext
from tenantguard.crypto.keysets import (
    DataKeyset,
    new_data_keyset,
    new_index_keyset,
    open_data_keyset,
    open_index_keyset,
)
from tenantguard.crypto.rotation import (
    Row,
    Stored,
    add_key,
    disable_keys,
    enable_keys,
    is_full,
    keys_of,
    promote_key,
)
from tenantguard.errors import KeyUnavailableError, UnknownKeyError

ACTS = {"add": add_key, "promote": promote_key}


def stored(row: Row) -> Stored:
    return Stored(*row, KEK, b"x")


def opened(row: Row) -> DataKeyset:
    return open_data_keyset(*row, KEK, b"x")


def rotated(row: Row, *acts: str) -> Row:
    for act in acts:
        row = ACTS[act](stored(row)) or row
    return row


def assert_unknown(keyset: DataKeyset, value: bytes) -> None:
    """Assert that *keyset* lacks the key of *value*, and says what may have become of it."""
    with pytest.raises(DataKeyset.refused):
        keyset.decrypt(value, b"y")
    failure = keyset.failure(value, FieldContext("patients", "name"))
    assert type(failure) is UnknownKeyError
    assert "keys retire --undo" in str(failure)


@given(acts=st.lists(st.sampled_from(["add", "promote", "seal"]), max_size=10))
@repeatable
def test_what_was_sealed_opens(acts: list[str]) -> None:
    """Whatever was done to a keyset, every value that one of its states has sealed opens."""
    row, values = new_data_keyset(KEK, b"x"), []
    for act in acts:
        if act == "seal":
            values.append(opened(row).seal(b"value", b"y"))
        else:
            row = rotated(row, act)
    assert {opened(row).decrypt(value, b"y") for value in values} <= {b"value"}


def test_a_new_key_opens_before_it_seals() -> None:
    """Added, it opens; made primary, it seals; a process without it opens nothing of its."""
    first = new_data_keyset(KEK, b"x")
    added = rotated(first, "add")
    primary = rotated(added, "promote")
    assert [(key.seals, key.opens) for key in keys_of(stored(added))] == [
        (True, True),
        (False, True),
    ]
    assert [key.seals for key in keys_of(stored(primary))] == [False, True]
    assert opened(first).decrypt(opened(added).seal(b"value", b"y"), b"y") == b"value"
    new = opened(primary).seal(b"value", b"y")
    assert opened(added).decrypt(new, b"y") == b"value"
    assert_unknown(opened(first), new)


def test_tink_opens_what_was_sealed_and_the_other_way_round() -> None:
    """Whichever key seals: values are in Tink's format, altered ones open in neither."""
    row = rotated(new_data_keyset(KEK, b"x"), "add")
    for keyset in (opened(row), opened(rotated(row, "promote"))):
        tinks = keyset.handle.primitive(aead.Aead)
        ours, theirs = keyset.seal(b"value", b"y"), tinks.encrypt(b"value", b"y")
        assert ours[:5] == theirs[:5] == keyset.prefix
        assert tinks.decrypt(ours, b"y") == keyset.decrypt(theirs, b"y") == b"value"
        for at in range(len(ours)):
            altered = ours[:at] + bytes([ours[at] ^ 1]) + ours[at + 1 :]
            for decrypt in (tinks.decrypt, keyset.decrypt):
                with pytest.raises(DataKeyset.refused):
                    decrypt(altered, b"y")


def test_no_third_key_is_added() -> None:
    """A keyset whose new key does not seal yet gets no other; one that seals is not made to."""
    added = rotated(new_data_keyset(KEK, b"x"), "add")
    assert add_key(stored(added)) is None
    assert promote_key(stored(rotated(added, "promote"))) is None
    assert len(keys_of(stored(rotated(added, "promote", "add")))) == 3


def test_disabled_key_opens_nothing_until_it_is_enabled() -> None:
    """The one that seals and the one that waits are never disabled."""
    first = new_data_keyset(KEK, b"x")
    value = opened(first).seal(b"value", b"y")
    row = rotated(first, "add", "promote", "add")
    old, primary, waiting = (key.number for key in keys_of(stored(row)))
    assert disable_keys(stored(row), [primary, waiting]) is None
    retired = disable_keys(stored(row), [old, primary, waiting])
    assert retired is not None
    assert [key.opens for key in keys_of(stored(retired))] == [False, True, True]
    assert opened(retired).numbers == (primary, waiting)
    assert_unknown(opened(retired), value)
    enabled = enable_keys(stored(retired))
    assert enabled is not None
    assert opened(enabled).decrypt(value, b"y") == b"value"
    assert enable_keys(stored(enabled)) is None


def test_numbers_of_a_keyset_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key whose number the keyset has already is not taken."""
    from tenantguard.crypto import rotation  # noqa: PLC0415

    first = new_data_keyset(KEK, b"x")
    compose, given = rotation._composed, iter([opened(first).handle])
    monkeypatch.setattr(rotation, "_composed", lambda handle: compose(next(given, handle)))
    monkeypatch.setattr(rotation, "_opened", lambda _: compose(opened(first).handle))
    added = add_key(stored(first))
    monkeypatch.undo()
    assert added is not None
    assert len({key.number for key in keys_of(stored(added))}) == 2


def test_keysets_of_another_kind_or_row_are_refused() -> None:
    """What does not open as the row's data keyset is not changed."""
    row = new_data_keyset(KEK, b"x")
    for damaged in (
        Stored(*new_index_keyset(KEK, b"x"), KEK, b"x"),
        Stored(*row, KEK, b"another"),
        Stored(row[0], b"", KEK, b"x"),
    ):
        with pytest.raises(KeyUnavailableError):
            add_key(damaged)


def test_a_stored_keyset_does_not_show_itself() -> None:
    """Neither the keyset nor what it is bound to, which names the tenant, is in its text."""
    shown = repr(Stored(b"wrapped", b"check", KEK, b"context"))
    assert not [each for each in ("wrapped", "check", "context") if each in shown]


def index_row(*acts: str) -> Row:
    row = new_index_keyset(KEK, b"x")
    for act in acts:
        row = ACTS[act](index_stored(row)) or row
    return row


def index_stored(row: Row) -> Stored:
    return Stored(*row, KEK, b"x", "index")


def test_a_new_index_key_is_searched_by_before_it_computes() -> None:
    """Added, a value has its index among the candidates; made primary, it comes first."""
    first = new_index_keyset(KEK, b"x")
    rows = [first, add_key(index_stored(first))]
    assert rows[1] is not None
    rows.append(promote_key(index_stored(rows[1])))
    alone, added, primary = (open_index_keyset(*row, KEK, b"x") for row in rows if row)
    old = alone.compute(b"value")
    assert alone.candidates(b"value") == [old]
    [same, new] = added.candidates(b"value")
    assert (same, added.compute(b"value")) == (old, old)
    assert primary.candidates(b"value") == [new, old]
    assert primary.compute(b"value") == new
    assert [each.rotating for each in (alone, added, primary)] == [False, True, True]


def test_as_many_index_keys_are_enabled_as_a_search_asks_for() -> None:
    """No third is added, and of several that were disabled the newest comes back."""
    row = index_row("add", "promote")
    assert is_full(index_stored(row))
    assert add_key(index_stored(row)) is None
    assert not is_full(index_stored(index_row("add")))
    [first, second] = [key.number for key in keys_of(index_stored(row))]
    row = disable_keys(index_stored(row), [first]) or row
    for act in ("add", "promote"):
        row = ACTS[act](index_stored(row)) or row
    row = disable_keys(index_stored(row), [second]) or row
    assert [key.opens for key in keys_of(index_stored(row))] == [False, False, True]
    row = enable_keys(index_stored(row)) or row
    assert [key.opens for key in keys_of(index_stored(row))] == [False, True, True]
    assert enable_keys(index_stored(row)) is None
    assert not is_full(stored(rotated(new_data_keyset(KEK, b"x"), "add", "promote")))
