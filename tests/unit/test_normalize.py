"""What a search finds alike, for good: an index that is stored was computed so."""

from __future__ import annotations

import hashlib
import unicodedata
from unicodedata import ucd_3_2_0

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealing import repeatable

from tenantguard.columns import normalize
from tenantguard.columns.normalize import EXACT, normalizer
from tenantguard.errors import ConfigurationError

VERSIONS = ["digits-v1", "email-v1", "nfc-casefold-v1"]
each_version = pytest.mark.parametrize("version", VERSIONS)
texts = st.text(max_size=40)

# What each version makes of a text, by its code points where that is not plain to see.
FROZEN = [
    ("nfc-casefold", "Müller", "müller"),
    ("nfc-casefold", "MÜLLER", "müller"),
    ("nfc-casefold", "Mu\u0308ller", "m\u00fcller"),
    ("nfc-casefold", "MUELLER", "mueller"),
    ("nfc-casefold", "Straße", "strasse"),
    ("nfc-casefold", "STRASSE", "strasse"),
    ("nfc-casefold", "STRA\u1e9eE", "strasse"),
    # Turkish: the dotted and the dotless i stay two letters, and a plain I is the dotted one.
    ("nfc-casefold", "I", "i"),
    ("nfc-casefold", "\u0131", "\u0131"),
    ("nfc-casefold", "\u0130", "i\u0307"),
    # Greek: the final sigma is a sigma, and the accent stays.
    ("nfc-casefold", "Σίσυφος", "σίσυφοσ"),
    ("nfc-casefold", "ΣΊΣΥΦΟΣ", "σίσυφοσ"),
    ("nfc-casefold", "\u1fb3", "\u03b1\u03b9"),
    # The iota below is put in its place before it becomes a letter, which accents would follow.
    ("nfc-casefold", "\u03b1\u0345\u0301", "\u03ac\u03b9"),
    ("nfc-casefold", "\u1fb4", "\u03ac\u03b9"),
    ("nfc-casefold", "\u212b", "\u00e5"),
    ("nfc-casefold", "\ufb01n", "fin"),
    ("nfc-casefold", "\uff21", "\uff41"),
    ("nfc-casefold", "a\u0323\u0302", "\u1ead"),
    ("nfc-casefold", "a\u0302\u0323", "\u1ead"),
    ("nfc-casefold", "\u13a0\uab70", "\u13a0\u13a0"),
    ("nfc-casefold", "  Anna  ", "  anna  "),
    ("nfc-casefold", "", ""),
    ("digits", "+49 (0)30 / 123-456", "49030123456"),
    ("digits", "0049 30 123456", "004930123456"),
    ("digits", "030 123456", "030123456"),
    ("digits", "A123456789", "123456789"),
    ("digits", "\u0663\u0660 \u0967", "301"),
    ("digits", "\uff11\U0001d7d8", "10"),
    # Superscripts, fractions and circled numbers are no decimal digits.
    ("digits", "1\u00b2\u00bd\u2460", "1"),
    ("digits", "Keine Nummer", "keine nummer"),
    ("digits", "--", "--"),
    ("digits", "", ""),
    ("email", " Anna.Muster@Example.ORG\n", "anna.muster@example.org"),
    ("email", "JOSE\u0301@BÜCHER.example", "jos\u00e9@bücher.example"),
    ("email", "\u00a0a@b.c\u3000", "a@b.c"),
    # Tags and dots are the provider's business.
    ("email", "a.b+c@d.e", "a.b+c@d.e"),
    ("email", "a b", "a b"),
    ("email", "", ""),
]

# SHA-256 of what each version makes of each character of Unicode 3.2, which all Pythons know.
CHARACTERS = {
    "digits-v1": "ad4d1250a2b97e1e4c4f250c7d39f4c9144db79d585126c25e9400415de639ed",
    "email-v1": "cd7fba0f7bd871dc0c858ab26ec5a918d656c87b7bbf60c147d3be718d907b01",
    "nfc-casefold-v1": "cb738f880d8cfecb1aa45ecadc406d3f7c666b14b2eed62f53f957fce511a24f",
}

_NONE = ("Cn", "Co", "Cs")
"""The categories of what is no character: unassigned, private use, surrogates."""


def applied(name: str, text: str) -> str:
    _, fold = normalizer(name)
    return fold(text)


@pytest.mark.parametrize(("name", "text", "expected"), FROZEN)
def test_examples(name: str, text: str, expected: str) -> None:
    """The table is only added to; the name without a version means the first for good."""
    assert applied(name, text) == expected
    assert applied(f"{name}-v1", text) == expected
    assert normalizer(name)[0] == f"{name}-v1"


def test_versions_are_only_added_to() -> None:
    """Those that indexes were computed with are there."""
    assert sorted(normalize._NORMALIZERS) == VERSIONS
    assert EXACT == "exact-v1"


@each_version
def test_no_character_changes(version: str) -> None:
    """Each of the 95,000 characters of Unicode 3.2 is folded as it was."""
    fold, digest = normalizer(version)[1], hashlib.sha256()
    known = [chr(code) for code in range(0x110000) if ucd_3_2_0.category(chr(code)) not in _NONE]
    assert len(known) == 95_221
    for each in known:
        digest.update(fold(f"x{each}").encode() + b"\n")
    assert digest.hexdigest() == CHARACTERS[version]


@each_version
@given(text=texts)
@repeatable
def test_twice_is_once(version: str, text: str) -> None:
    """What is normalised stays so, hence a search for what was found finds it again."""
    once = applied(version, text)
    assert applied(version, once) == once


@each_version
def test_twice_is_once_for_each_character(version: str) -> None:
    """The same for every character between accents."""
    fold = normalizer(version)[1]
    for code in range(0x110000):
        if unicodedata.category(chr(code)) not in _NONE:
            once = fold(f"\u0345{chr(code)}\u0301")
            assert fold(once) == once, hex(code)


@each_version
@given(text=texts)
@repeatable
def test_composition_makes_no_difference(version: str, text: str) -> None:
    """A letter with its accent is found, whether it is one character or two."""
    expected = applied(version, unicodedata.normalize("NFC", text))
    assert applied(version, unicodedata.normalize("NFD", text)) == expected


@given(text=texts)
@repeatable
def test_case_makes_no_difference(text: str) -> None:
    """A text and its own case-folding are found alike."""
    assert applied("nfc-casefold", text.casefold()) == applied("nfc-casefold", text)


@pytest.mark.parametrize("name", ["", "NFC-CASEFOLD", "digits-v2", "nfc-casefold-v1-v1", "exact"])
def test_unknown_normaliser_is_refused(name: str) -> None:
    """The message names those that there are."""
    with pytest.raises(ConfigurationError, match=r"digits-v1, email-v1, nfc-casefold-v1\.$"):
        normalizer(name)
