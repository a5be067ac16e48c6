"""Regular expressions in the ECMAScript dialect, without flags, as Python patterns over UTF-16 units."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Final

import regex

from hotmesh.core.pipe.coercion import BLANKS, units
from hotmesh.core.pipe.function import BadArgumentError

_SPACE: Final = "".join(f"\\u{ord(blank):04x}" for blank in BLANKS)
_CLASSES: Final = {"d": "0-9", "w": "A-Za-z0-9_", "s": _SPACE}
_CONTROLS: Final = {"n": "\n", "r": "\r", "t": "\t", "v": "\v", "f": "\f"}
_QUANTIFIER: Final = re.compile(r"\{(?:[0-9]+)(?:,[0-9]*)?\}")
_GROUP_NAME: Final = re.compile("(?![0-9])[\\w$\ud800-\udfff]+")
_WORD_EDGE: Final = "(?:(?<![A-Za-z0-9_])(?=[A-Za-z0-9_])|(?<=[A-Za-z0-9_])(?![A-Za-z0-9_]))"
_NO_EDGE: Final = "(?:(?<![A-Za-z0-9_])(?![A-Za-z0-9_])|(?<=[A-Za-z0-9_])(?=[A-Za-z0-9_]))"
_NEVER: Final = "(?!)"
_WIDE: Final = re.compile(r"\\u(?!00)")


LONGEST_PATTERN: Final = 10_000
"""Characters of a pattern; compiling takes longer than matching."""

LONGEST_SEARCH: Final = 0.2
"""Seconds that a search may take. Such a pattern as `^(a+)+$` takes longer than the universe is old."""

MOST_CLASSES: Final = 250
"""Classes with characters beyond U+00FF, such as `\\s` and `[\\S]`: compiling one takes a millisecond or three."""

MOST_EDGES: Final = 1_000
"""Edges of words; each is written out as four looks around."""

MOST_PARTS: Final = 20_000
"""Parts of a pattern, written out: `(a{1000}){1000}` has a million."""

MOST_DOUBLED: Final = 800
"""Parts that the compiler looks at more than once: twice within what is repeated once at least, four times within two of these, ..."""

MANY_PARTS: Final = 1_000
"""Patterns of more parts take megabytes: only a few of them are remembered."""


def find(pattern: str, text: str) -> int:
    """Where the first match begins in `units` of a text; -1 if there is none. Raises BadArgumentError."""
    try:
        found = compile_pattern(pattern).search(text, timeout=LONGEST_SEARCH)
    except TimeoutError:
        raise BadArgumentError(
            f"takes more than {LONGEST_SEARCH:g} s on this text: repetitions within repetitions, as in (a+)+, take for ever",
            2,
        ) from None
    return -1 if found is None else int(found.start())


def compile_pattern(source: str) -> regex.Pattern[str]:
    """The pattern, to be matched against `units` of a text. Raises BadArgumentError if it is not valid."""
    if len(source) > LONGEST_PATTERN:
        raise BadArgumentError(f"is longer than {LONGEST_PATTERN:,} characters", 2)
    try:
        return _small(source) or _large(source)
    except (re.error, regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise BadArgumentError(f"is not a valid regular expression: {error}", 2) from None


@lru_cache(maxsize=512)
def _small(source: str) -> regex.Pattern[str] | None:
    """The pattern, unless it has many parts."""
    translator = _Translator(units(source))
    translated = translator.whole()
    return None if translator.parts > MANY_PARTS else _compiled(translated)


@lru_cache(maxsize=4)
def _large(source: str) -> regex.Pattern[str]:
    return _compiled(_Translator(units(source)).whole())


def _compiled(translated: str) -> regex.Pattern[str]:
    re.compile(translated)  # the same dialect, and one that says what is wrong in known words
    return regex.compile(translated, flags=regex.VERSION0, cache_pattern=False)


def _check_size(parts: int) -> None:
    if parts > MOST_PARTS:
        raise re.error(f"it has more than {MOST_PARTS:,} parts, written out")


def _most_times(quantifier: str) -> int:
    """How often what a quantifier follows is written out."""
    return max([1, *map(int, re.findall("[0-9]+", quantifier))])


def _is_doubled(quantifier: str) -> bool:
    """Whether what it follows has to be there."""
    return quantifier[0] == "+" or (quantifier[0] == "{" and re.match(r"\{0+[,}]", quantifier) is None)


class _Translator:
    """Reads a pattern once from left to right and writes Python's equivalent."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.names: dict[str, str] = {}
        self.groups = _count_groups(source)
        self.named = bool(re.search(r"\(\?<[^=!]", source))
        self.opened: list[tuple[bool, bool]] = []
        """For each open group: may it be quantified, is it a capture."""
        self.behind: list[list[int] | None] = []
        """For each open group: None, or of a lookbehind where in `written` it begins and its alternatives do."""
        self.written: list[str] = []
        self.open_captures: list[int] = []
        self.captures = 0
        self.parts = 0
        """Of the whole, written out."""
        self.classes = 0
        self.edges = 0

    def whole(self) -> str:
        quantifiable = False
        sizes, last = [0], 0  # parts of each open group, and of what was read last
        seen, last_seen = [0], 0  # the same as the compiler looks at them
        while self.at < len(self.source):
            character = self.source[self.at]
            if character in "*+?" or (character == "{" and _QUANTIFIER.match(self.source, self.at)):
                if not quantifiable:
                    raise re.error("nothing to repeat")
                quantifier = self._quantifier()
                sizes[-1] += last * (_most_times(quantifier) - 1)
                _check_size(sizes[-1])
                if _is_doubled(quantifier):
                    seen[-1] += last_seen
                    if seen[-1] - self.at > MOST_DOUBLED:
                        raise re.error("it has repetitions within repetitions, too many of them")
                self.written.append(quantifier)
                quantifiable = False
                continue
            depth = len(self.opened)
            piece, quantifiable = self._piece(character)
            self.written.append(piece)
            if len(self.opened) > depth:
                sizes.append(0)
                seen.append(0)
            else:
                last = 1 if len(self.opened) == depth else sizes.pop() + 1
                last_seen = 1 if len(self.opened) == depth else seen.pop() + 1
                sizes[-1] += last
                seen[-1] += last_seen
            _check_size(sizes[-1])
        if self.opened:
            raise re.error("unterminated group")
        self.parts = sizes[0]
        return "".join(self.written)

    def _quantifier(self) -> str:
        found = _QUANTIFIER.match(self.source, self.at)
        text = found[0] if found else self.source[self.at]
        if found and "," in text and text[-2] != ",":
            least, most = map(int, text[1:-1].split(","))
            if most < least:
                raise re.error("numbers out of order in {} quantifier")
        self.at += len(text)
        if self.source[self.at : self.at + 1] == "?":
            self.at += 1
            text += "?"
        return text

    def _piece(self, character: str) -> tuple[str, bool]:
        self.at += 1
        match character:
            case "(":
                return self._open(), False
            case ")":
                if not self.opened:
                    raise re.error("unmatched ')'")
                quantifiable, capture = self.opened.pop()
                if capture:
                    self.open_captures.pop()
                behind = self.behind.pop()
                return (self._alternatives(behind) if behind and len(behind) > 1 else ")"), quantifiable
            case "[":
                return self._class(), True
            case "\\":
                return self._escape()
            case ".":
                return "[^\\n\\r\\u2028\\u2029]", True
            case "$":
                return "\\Z", False
            case "^":
                return "\\A", False
            case "|":
                if self.behind and self.behind[-1]:
                    self.behind[-1].append(len(self.written))
                return "|", False
            case _:
                return re.escape(character), True

    def _open(self) -> str:
        rest = self.source[self.at :]
        for start, quantifiable in (("?:", True), ("?=", True), ("?!", True), ("?<=", False), ("?<!", False)):
            if rest.startswith(start):
                self.at += len(start)
                self.opened.append((quantifiable, False))
                self.behind.append([len(self.written)] if start.startswith("?<") else None)
                return f"({start}"
        self.captures += 1
        self.opened.append((True, True))
        self.behind.append(None)
        self.open_captures.append(self.captures)
        if rest.startswith("?<"):
            name, closed, _ = rest[2:].partition(">")
            if not closed or not _GROUP_NAME.fullmatch(name) or name in self.names:
                raise re.error("invalid capture group name")
            self.at += len(name) + 3
            self.names[name] = str(self.captures)
            return "("
        if rest.startswith("?"):
            raise re.error("invalid group")
        return "("

    def _alternatives(self, bounds: list[int]) -> str:
        """A lookbehind for each alternative in place of the open one: Python wants them to have one length."""
        opening = self.written[bounds[0]]
        ends = [*bounds[1:], len(self.written)]
        branches = [
            f"{opening}{''.join(self.written[start + 1 : end])})"
            for start, end in zip(bounds, ends, strict=True)
        ]
        del self.written[bounds[0] :]
        return f"(?:{'|'.join(branches)})" if opening == "(?<=" else "".join(branches)

    def _escape(self) -> tuple[str, bool]:
        if self.at >= len(self.source):
            raise re.error("\\ at end of pattern")
        character = self.source[self.at]
        if character in "bB":
            self.at += 1
            self.edges += 1
            if self.edges > MOST_EDGES:
                raise re.error(f"it asks more than {MOST_EDGES:,} times for the edge of a word")
            return (_WORD_EDGE if character == "b" else _NO_EDGE), False
        if character.lower() in _CLASSES:
            self.at += 1
            return self._written_class(_CLASSES[character.lower()], negated=character.isupper()), True
        if character in "123456789":
            reference = re.match("[0-9]+", self.source[self.at :])
            if reference and int(reference[0]) <= self.groups:
                self.at += len(reference[0])
                return self._reference(int(reference[0])), True
        if character == "k" and self.named:
            return self._named_reference(), True
        return re.escape(self._character()), True

    def _reference(self, number: int) -> str:
        # A group that has not matched yet, or is still open, matches nothing: the empty text.
        if number > self.captures or number in self.open_captures:
            return "(?:)"
        return f"(?:(?({number})\\{number}|))"

    def _named_reference(self) -> str:
        found = re.match(r"k<([^>]*)>", self.source[self.at :])
        if found is None:
            raise re.error("invalid named reference")
        self.at += len(found[0])
        number = self.names.get(found[1])
        if number is None:
            if f"(?<{found[1]}>" not in self.source:
                raise re.error("invalid named capture referenced")
            return "(?:)"
        return self._reference(int(number))

    def _character(self) -> str:
        """The character that an escape stands for; `at` is past the backslash."""
        character = self.source[self.at]
        self.at += 1
        if character in _CONTROLS:
            return _CONTROLS[character]
        for letter, count in (("x", 2), ("u", 4)):
            if character == letter:
                digits = self.source[self.at : self.at + count]
                if re.fullmatch(f"[0-9a-fA-F]{{{count}}}", digits):
                    self.at += count
                    return chr(int(digits, 16))
                return character
        if character == "c":
            letter = self.source[self.at : self.at + 1]
            if re.fullmatch("[A-Za-z]", letter):
                self.at += 1
                return chr(ord(letter) % 32)
            self.at -= 1
            return "\\"
        octal = re.match("[0-3][0-7]{0,2}|[4-7][0-7]?", self.source[self.at - 1 :])
        if octal:
            self.at += len(octal[0]) - 1
            return chr(int(octal[0], 8))
        return character

    def _class(self) -> str:
        negated = self.source[self.at : self.at + 1] == "^"
        self.at += negated
        members: list[str] = []
        while True:
            if self.at >= len(self.source):
                raise re.error("unterminated character class")
            if self.source[self.at] == "]":
                self.at += 1
                break
            first, single = self._class_member()
            ranged = self.source[self.at : self.at + 1] == "-" and self.source[
                self.at + 1 : self.at + 2
            ] not in {
                "]",
                "",
            }
            if not ranged:
                members.append(first)
                continue
            self.at += 1
            last, also_single = self._class_member()
            if not (single and also_single):
                members.append(f"{first}\\-{last}")
                continue
            if single > also_single:
                raise re.error("range out of order in character class")
            members.append(f"{first}-{last}")
        if not members:
            return "[\\s\\S]" if negated else _NEVER
        return self._written_class("".join(dict.fromkeys(members)), negated=negated)

    def _written_class(self, members: str, *, negated: bool) -> str:
        if _WIDE.search(members):
            self.classes += 1
            if self.classes > MOST_CLASSES:
                raise re.error(
                    f"it has more than {MOST_CLASSES} classes with characters beyond U+00FF, as \\s, [\\S] and [\\W] are"
                )
        return f"[{'^' if negated else ''}{members}]"

    def _class_member(self) -> tuple[str, str]:
        """One member as Python writes it, and the character if it is a single one."""
        character = self.source[self.at]
        self.at += 1
        if character == "\\":
            if self.at >= len(self.source):
                raise re.error("\\ at end of pattern")
            escaped = self.source[self.at]
            if escaped.lower() in _CLASSES:
                self.at += 1
                return _class_escape(escaped), ""
            if escaped == "b":
                self.at += 1
                character = "\b"
            else:
                character = self._character()
        return f"\\u{ord(character):04x}", character


@cache
def _class_escape(letter: str) -> str:
    if letter.islower():
        return _CLASSES[letter]
    inside = sorted(_code_points(_CLASSES[letter.lower()]))
    pieces, start = [], 0
    for code in [*inside, 0x10000]:
        if code > start:
            pieces.append(f"\\u{start:04x}-\\u{code - 1:04x}")
        start = code + 1
    return "".join(pieces)


def _code_points(members: str) -> set[int]:
    pattern = re.compile(f"[{members}]")
    return {code for code in range(0x10000) if pattern.match(chr(code))}


def _count_groups(source: str) -> int:
    without_escapes = re.sub(r"\\.", "", source, flags=re.DOTALL)
    without_classes = re.sub(r"\[[^\]]*\]", "", without_escapes)
    return len(re.findall(r"\((?!\?)|\(\?<(?![=!])", without_classes))
