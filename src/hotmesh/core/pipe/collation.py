"""The order of texts: the default Unicode collation, by base letters, then accents, then case.

Exact for Latin text and printable ASCII. Letters of other scripts come after Latin, by code point.
"""

from __future__ import annotations

import unicodedata
from typing import Final, final

_BLANKS: Final = "\t\n\v\f\r\u0085\u2028\u2029"
_ASCII: Final = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz"
_RANK: Final[dict[str, tuple[float, ...]]] = {
    **{character: (index,) for index, character in enumerate(_BLANKS)},
    **{character: (index,) for index, character in enumerate(_ASCII, 100)},
}
_QUOTES: Final = dict.fromkeys("‘’‚‛‹›", "'") | dict.fromkeys("“”„‟«»", '"')

# After which ASCII character the other signs of a category come.
_AFTER: Final = {
    "Pc": "_",
    "Pd": "-",
    "Ps": "}",
    "Pe": "}",
    "Po": "%",
    "Sm": "~",
    "Sk": "`",
    "So": "~",
    "Sc": "$",
}
_OTHER_LETTER: Final = 10_000

# Accents in the order of the default collation; any other comes after them by code point.
_ACCENTS: Final = {
    mark: index
    for index, mark in enumerate(
        "\u0301\u0300\u0306\u0302\u030c\u030a\u0308\u030b\u0303\u0307\u0338\u0327\u0328\u0304", 1
    )
}

# Letters that sort as others although they have no decomposition.
_EXPANSIONS: Final = {
    "ß": "ss", "ẞ": "SS", "æ": "ae\u0338", "Æ": "AE\u0338", "œ": "oe\u0338", "Œ": "OE\u0338",
    "ø": "o\u0338", "Ø": "O\u0338", "đ": "d\u0338", "Đ": "D\u0338", "ł": "l\u0338", "Ł": "L\u0338",
    "ı": "i\u0338", "ð": "d\u0338\u0338", "Ð": "D\u0338\u0338",
}  # fmt: skip

Order = tuple[str, str, str, str]
"""Base letters, accents and case, each level as text that compares as its weights do; then the text itself."""

_Weight = tuple[str, str, str]
"""What a character adds to each of these levels."""

_NEXT: Final = "\0"
"""Begins the accents of each base letter, and is less than any accent: a letter with none precedes one with some."""

_MOST_KNOWN: Final = 20_000
"""Characters whose weights are remembered."""


@final
class _Weights(dict[str, _Weight]):
    """The weights of characters, found out at their first use."""

    def __missing__(self, character: str) -> _Weight:
        weight = _weigh(character)
        if len(self) < _MOST_KNOWN:
            self[character] = weight
        return weight


_WEIGHTS: Final = _Weights()


def text_order(text: str) -> Order:
    """A key that sorts texts: lower levels count only where all before are equal."""
    characters = text
    if not text.isascii():
        expanded = "".join(_EXPANSIONS.get(character, character) for character in text)
        characters = unicodedata.normalize("NFKD", expanded)
        text = unicodedata.normalize("NFD", text)
    weights = [_WEIGHTS[character] for character in characters]
    if not weights:
        return "", "", "", text
    bases, accents, upper = map("".join, zip(*weights, strict=True))
    if accents[:1] != _NEXT:  # accents without a letter before them
        accents = accents[accents.find(_NEXT) :] if bases else ""
    return bases, accents, upper, text


def _weigh(character: str) -> _Weight:
    rank = _RANK.get(character)
    upper = False
    if rank is None:
        if unicodedata.combining(character):
            return "", chr(_ACCENTS.get(character, ord(character)) + 1), ""
        lower = character.lower()
        category = unicodedata.category(character)
        if category in {"Cc", "Cf"}:
            return "", "", ""
        rank = _RANK.get(lower) or _other(lower, category)
        upper = lower != character
    # The first number alone tells how many follow, so a text of them compares as a list of ranks would. Some end in a half.
    first, *rest = rank
    return chr(int(2 * first)) + "".join(chr(int(code)) for code in rest), _NEXT, str(int(upper))


def _other(character: str, category: str) -> tuple[float, ...]:
    if category[0] == "N":
        digit = unicodedata.digit(character, None)
        if digit is not None:
            return _RANK[str(digit)]
    if character in _QUOTES or category[0] in "PSZ":
        after = _QUOTES.get(character) or _AFTER.get(category, " ")
        return (_RANK[after][0] + 0.5, ord(character))
    return (_OTHER_LETTER, ord(character))
