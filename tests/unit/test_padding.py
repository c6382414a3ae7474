"""Padding takes nothing away, and what it leaves to be seen is a range of lengths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealing import repeatable

from tenantguard.crypto.padding import to_multiple, to_power_of_two, unpadded

plaintexts = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from([b"\x80", b"\0", b"a"]), max_size=40).map(b"".join),
)


@given(plaintext=plaintexts, size=st.integers(2, 300))
@repeatable
def test_padding_comes_off(plaintext: bytes, size: int) -> None:
    """What was padded is read back, whatever it ends with; the size is the next that fits."""
    for padded in (to_multiple(plaintext, size), to_power_of_two(plaintext)):
        assert unpadded(padded) == plaintext
    assert len(to_multiple(plaintext, size)) == (len(plaintext) // size + 1) * size


@pytest.mark.parametrize(
    ("plain", "padded"), [(0, 16), (1, 16), (15, 16), (16, 32), (31, 32), (32, 64), (1023, 1024)]
)
def test_powers_of_two(plain: int, padded: int) -> None:
    """Sizes double from 16 bytes on."""
    assert len(to_power_of_two(b"x" * plain)) == padded


@pytest.mark.parametrize(
    "padded", [b"", b"\0", b"a", b"a\0\0", b"a\x80b", b"a\x80\0b", b"\x80\0\x01"]
)
def test_what_is_not_padded_is_noticed(padded: bytes) -> None:
    """Nothing is taken off that padding has not added."""
    assert unpadded(padded) is None


@given(padded=plaintexts)
@repeatable
def test_any_bytes_have_one_reading(padded: bytes) -> None:
    """What is taken off is exactly one mark and zeros."""
    plaintext = unpadded(padded)
    if plaintext is not None:
        assert padded.startswith(plaintext + b"\x80")
        assert set(padded[len(plaintext) + 1 :]) <= {0}
