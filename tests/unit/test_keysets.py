"""A tenant's keys: bound to their row, and refused in words where they are missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealing import KEK, field_of, new_keys, repeatable

from tenantguard.columns import kinds
from tenantguard.columns.search import Exact
from tenantguard.crypto.keysets import (
    new_data_keyset,
    new_index_keyset,
    new_kek,
    open_data_keyset,
    open_index_keyset,
    read_kek,
)
from tenantguard.crypto.tenant_keys import TenantKeys
from tenantguard.errors import KeyUnavailableError, TenantShreddedError

KEYS = new_keys("a")


# -- keysets ------------------------------------------------------------------------------------


def test_keyset_of_another_type_is_refused() -> None:
    """A keyset for indexes seals nothing, one for values indexes nothing, even if wrapped so."""
    data, searching = new_data_keyset(KEK, b"x"), new_index_keyset(KEK, b"x")
    for opened, row in ((open_data_keyset, searching), (open_index_keyset, data)):
        with pytest.raises(KeyUnavailableError, match="belongs to another tenant or purpose"):
            opened(*row, KEK, b"x")


def test_check_value_of_another_keyset_is_refused() -> None:
    """A keyset that was exchanged with another, wrapped for the same row, is noticed."""
    for made, opened in (
        (new_data_keyset, open_data_keyset),
        (new_index_keyset, open_index_keyset),
    ):
        (wrapped, check), (other, another) = made(KEK, b"x"), made(KEK, b"x")
        opened(wrapped, check, KEK, b"x")
        for mixed in ((wrapped, another), (other, check), (wrapped, b""), (wrapped, check[:-1])):
            with pytest.raises(KeyUnavailableError, match="was altered"):
                opened(*mixed, KEK, b"x")
        with pytest.raises(KeyUnavailableError, match="was altered"):
            opened(wrapped, check, read_kek(new_kek()), b"x")


@given(wrapped=st.binary(max_size=200), check=st.binary(max_size=60))
@repeatable
def test_any_row_is_refused(wrapped: bytes, check: bytes) -> None:
    """Whatever stands in a row, also encrypted by the right key, the error is ours."""
    for row in (wrapped, KEK.encrypt(wrapped, b"x")):
        for opened in (open_data_keyset, open_index_keyset):
            with pytest.raises(KeyUnavailableError):
                opened(row, check, KEK, b"x")


@given(keyset=st.text(max_size=60))
@repeatable
def test_any_key_file_is_refused(keyset: str) -> None:
    """What is no key is refused without being quoted."""
    for text in (keyset, f'{{"primaryKeyId": 1, "key": [{{"keyData": {keyset!r}}}]}}'):
        with pytest.raises(KeyUnavailableError, match="holds no key") as info:
            read_kek(text)
        assert info.value.__cause__ is None
        assert info.value.__suppress_context__


# -- keys that are not there --------------------------------------------------------------------


def test_without_keys_nothing_is_sealed_or_opened() -> None:
    """A tenant without keys gets an error that says how it gets them."""
    field, none = field_of(kinds.STR, Exact()), TenantKeys(b"a")
    stored = field.seal(KEYS, "Anna")
    for act in (lambda: field.seal(none, "Anna"), lambda: field.open(none, stored)):
        with pytest.raises(KeyUnavailableError, match="has no key that this transaction can see"):
            act()


def test_without_keys_a_search_finds_nothing() -> None:
    """The index that is searched then is new each time."""
    field, none = field_of(kinds.STR, Exact()), TenantKeys(b"a")
    assert len({field.index(none, "Anna") for _ in range(20)}) == 20


def test_nothing_is_sealed_with_an_index_that_finds_nothing() -> None:
    """Without the keyset for blind indexes a searchable value is refused, another is sealed."""
    keys = TenantKeys(b"a", data=KEYS.data)
    with pytest.raises(KeyUnavailableError, match="has no key that this transaction can see"):
        field_of(kinds.STR, Exact()).seal(keys, "Anna")
    plain = field_of(kinds.STR)
    assert plain.open(keys, plain.seal(keys, "Anna")) == "Anna"


def test_decrypt_only_keys_open_and_seal_nothing() -> None:
    """What was sealed is read, and nothing new is written."""
    field = field_of(kinds.STR, Exact())
    keys = TenantKeys(b"a", data=KEYS.data, searching=KEYS.searching, writable=False)
    assert field.open(keys, field.seal(KEYS, "Anna")) == "Anna"
    with pytest.raises(KeyUnavailableError, match="decrypt-only"):
        field.seal(keys, "Anna")


def test_shredded_keys_do_nothing() -> None:
    """Reading, writing and searching are refused."""
    field, keys = field_of(kinds.STR, Exact()), TenantKeys(b"a", shredded=True)
    stored = field.seal(KEYS, "Anna")
    for act in (
        lambda: field.seal(keys, "Anna"),
        lambda: field.open(keys, stored),
        lambda: field.index(keys, "Anna"),
    ):
        with pytest.raises(TenantShreddedError, match="was destroyed"):
            act()
