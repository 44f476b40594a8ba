"""Which texts are invisible."""

import unicodedata

import pytest

from tagbus.stream.contract.fields import blank

EVERY = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
# Format characters that have a shape: signs before numbers and words of Arabic, Syriac and Kaithi, hieroglyphs.
SHAPES = {*map(chr, range(0x600, 0x606)), "\u06dd", "\u070f", "\u0890", "\u0891", "\u08e2", "\U000110bd", "\U000110cd"}
SHAPES |= {*map(chr, range(0x13430, 0x13440))}
# Letters and symbols without one: fillers of Hangul, the empty Braille cell, the place of an embedded object.
FILLERS = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u2800", "\ufffc"}


@pytest.mark.parametrize(
    "text", ["", " ", "\t\n", "\u200b\u200b", "\u00ad", "\ufeff", "\x01\x02", "\u202e", " \u200d \ufe0f"]
)
def test_spaces_control_and_zero_width_characters_show_nothing(text: str) -> None:
    assert blank(text)
    assert blank(text * 100_000)
    assert not blank(f"{text * 100}x{text * 100}")


def test_so_it_is_for_all_of_unicode() -> None:
    """Every space, control and format character; no letter, number, sign or symbol beside."""
    invisible = {one for one in EVERY if unicodedata.category(one) in {"Cc", "Cf", "Zs", "Zl", "Zp"}} - SHAPES
    assert {one for one in invisible if not blank(one)} == set()
    shown = {one for one in EVERY if unicodedata.category(one)[0] in "LNPS"} - FILLERS
    assert {one for one in shown if blank(one)} == set()


def test_a_character_that_this_unicode_does_not_know_shows_something() -> None:
    unknown = [one for one in EVERY if unicodedata.category(one) == "Cn" and ord(one) < 0xE0000]
    # But for those that will never be characters, and two ranges set aside for invisible ones.
    known = {*map(chr, range(0xFDD0, 0xFDF0)), *map(chr, range(0x2060, 0x2070)), *map(chr, range(0xFFF0, 0x10000))}
    assert {one for one in unknown if blank(one)} <= known
