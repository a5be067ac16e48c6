"""YAML or JSON text to a tree of nodes that know where they stand, and the meaning of its scalars.

The rules are those of YAML 1.2's core schema: `on`, `yes` and `off` are text, `010` is 10, `0o17` is 15 and
`12:30:45` is text. Two habits of graph authors are kept on top of it: the merge key `<<`, and an unquoted
timestamp, which becomes ISO text. JSON is YAML 1.2, so `.json` files take the same way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from hotmesh.errors import Problem

if TYPE_CHECKING:
    from yaml.composer import Composer
    from yaml.parser import Parser
    from yaml.reader import Reader
    from yaml.scanner import Scanner

    class _Parser(Reader, Scanner, Parser, Composer):
        def __init__(self, stream: str) -> None: ...

else:
    try:
        from yaml.cyaml import CParser as _Parser
    except ImportError:  # PyYAML was built without libyaml
        from yaml.composer import Composer
        from yaml.parser import Parser
        from yaml.reader import Reader
        from yaml.scanner import Scanner

        class _Parser(Reader, Scanner, Parser, Composer):
            def __init__(self, stream):
                Reader.__init__(self, stream)
                Scanner.__init__(self)
                Parser.__init__(self)
                Composer.__init__(self)


MAX_DEPTH: Final = 150
"""Levels of nesting. libyaml recurses on the C stack and would overflow it; no graph comes near."""

MAX_VALUES: Final = 200_000
"""Values of a document, as it is written and once its aliases and references are written out: a few seconds of work."""

PLAIN: Final = "plain"
TEXT: Final = "tag:yaml.org,2002:str"
LITERAL: Final = "literal"
"""A scalar node that carries a Python value instead of text: it came from data, not from a file."""

_SEQUENCE: Final = "tag:yaml.org,2002:seq"
_MAPPING: Final = "tag:yaml.org,2002:map"


_MOST_CHARACTERS: Final = 500 * MAX_VALUES
"""Characters of the pointers of all values together: each has the names of all that it stands in."""


@final
class Budget:
    """What is left of the values that one document may have."""

    __slots__ = ("_characters", "_values")

    def __init__(self) -> None:
        self._values = MAX_VALUES
        self._characters = _MOST_CHARACTERS

    def spend(self, pointer: str) -> str | None:
        """Count a value; what there is too much of, if there is."""
        self._values -= 1
        self._characters -= len(pointer)
        if self._values < 0:
            return f"more than {MAX_VALUES:,} values"
        if self._characters < 0:
            return f"names that are too long for so many values (over {_MOST_CHARACTERS:,} characters)"
        return None


class _TooDeepError(yaml.MarkedYAMLError):
    """A text has more than `MAX_DEPTH` levels."""


class _TooLargeError(yaml.MarkedYAMLError):
    """A text has more than `MAX_VALUES` values."""


class _Composer(_Parser):
    """Composes nodes; plain scalars are only marked as such, `scalar` reads them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0

    def descend_resolver(self, current_node: Node | None, index: Any) -> None:
        """Called before each node is composed; `index` is None for the key of a mapping."""
        if index is not None:
            self._values += 1
            if self._values >= MAX_VALUES:  # the root is one, too
                raise _TooLargeError(
                    problem=f"more than {MAX_VALUES:,} values",
                    problem_mark=None if current_node is None else current_node.start_mark,
                )
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _TooDeepError(
                problem=f"nested deeper than {MAX_DEPTH} levels",
                problem_mark=None if current_node is None else current_node.start_mark,
            )

    def ascend_resolver(self) -> None:
        self._depth -= 1

    def check_resolver_prefix(self, *_: Any) -> bool:
        return False

    def resolve(self, kind: type[Node], _value: Any, implicit: Any) -> str:
        if kind is ScalarNode:
            return PLAIN if implicit[0] else TEXT
        return _SEQUENCE if kind is SequenceNode else _MAPPING


def compose(text: str, file: str | None) -> Node | Problem:
    """The root node of a text, or what keeps it from being YAML. An empty text is null."""
    if text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        text = _TABS.sub(lambda tabs: " " * len(tabs[0]), _SURROGATES.sub(_join_surrogates, text))
    try:
        node = _Composer(text).get_single_node()
    except yaml.MarkedYAMLError as found:
        error = _deeper_reason(found, text)
        mark = error.problem_mark or error.context_mark
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        return _syntax_problem(error, text, file, line, column)
    except yaml.reader.ReaderError as error:
        line, column = _locate(text, error.position)
        code = error.character if isinstance(error.character, int) else ord(error.character)
        return Problem("syntax", f"the character U+{code:04X} may not stand in YAML", "", file, line, column)
    except UnicodeEncodeError as error:
        line, column = _line_and_column(text[: error.start])
        return Problem("syntax", "the text holds half a surrogate pair", "", file, line, column)
    return ScalarNode(PLAIN, "") if node is None else node


def _deeper_reason(error: yaml.MarkedYAMLError, text: str) -> yaml.MarkedYAMLError:
    """The parser reads ahead, and some releases of it have a limit of their own: what precedes it may be too deep already."""
    mark = error.problem_mark
    if mark is None or isinstance(error, (_TooDeepError, _TooLargeError)):
        return error
    try:
        _Composer(text[: mark.index]).get_single_node()
    except (_TooDeepError, _TooLargeError) as deeper:
        return deeper
    except (yaml.YAMLError, UnicodeEncodeError):
        pass
    return error


def from_data(value: Any) -> Node:
    """Plain data as a tree of nodes without locations. Raises ValueError for what JSON cannot hold, and for too much of it.

    A list or an object that stands in several places counts in each: it is written out.
    """
    return _from_data(value, "", 0, Budget())


def _from_data(value: Any, pointer: str, depth: int, budget: Budget) -> Node:
    if excess := budget.spend(pointer):
        raise ValueError(f"the document has {excess}, where one that stands in several places counts in each")
    if depth > MAX_DEPTH:
        raise ValueError(f"{pointer[:200]} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        pairs: list[tuple[Node, Node]] = []
        for key, member in value.items():
            name = _key_of_data(key, pointer)
            below = _from_data(member, f"{pointer}/{escape(name)}", depth + 1, budget)
            pairs.append((ScalarNode(TEXT, name), below))
        return MappingNode(_MAPPING, pairs)
    if isinstance(value, (list, tuple)):
        items = [
            _from_data(item, f"{pointer}/{index}", depth + 1, budget) for index, item in enumerate(value)
        ]
        return SequenceNode(_SEQUENCE, items)
    if value is None or isinstance(value, (str, bool, int)):
        return ScalarNode(LITERAL, value)
    if isinstance(value, float) and math.isfinite(value):
        return ScalarNode(LITERAL, value)
    raise ValueError(f"{pointer or 'the document'} is not JSON: {value!r:.100} ({type(value).__name__})")


def _key_of_data(key: Any, pointer: str) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):  # outcome codes: {422: {…}}
        return str(key)
    raise ValueError(f"a key of {pointer or 'the document'} is not text: {key!r:.100}")


def escape(name: str) -> str:
    """A member's name as a part of a JSON pointer (RFC 6901)."""
    if "~" in name or "/" in name:
        return name.replace("~", "~0").replace("/", "~1")
    return name


def unescape(part: str) -> str:
    """The inverse of `escape`."""
    return part.replace("~1", "/").replace("~0", "~")


def scalar(node: ScalarNode) -> Any:
    """The JSON value of a scalar. Raises ValueError, in words for the author, when there is none."""
    tag = node.tag
    if tag in {TEXT, LITERAL}:
        return node.value
    text: str = node.value
    value = read_plain(text)
    if tag == PLAIN:
        return _finite(value, text)
    kind = _TAGS.get(tag)
    if kind is None:
        raise ValueError(f"unknown tag {tag.replace('tag:yaml.org,2002:', '!!')}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{text!r} is not {tag.replace('tag:yaml.org,2002:', '!!')}")
    return _finite(value, text)


_TAGS: Final[Mapping[str, type]] = {
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:null": type(None),
    "tag:yaml.org,2002:timestamp": str,
}

_WORDS: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{sign + word: math.inf for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_MAY_BE_NUMBER: Final = frozenset("+-.0123456789")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]+")
_BASED: Final = re.compile(r"0o([0-7]+)|0x([0-9a-fA-F]+)")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TIMESTAMP: Final = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)(?:\.(\d*))?"
    r"(?:[ \t]*(?:(Z)|([-+])(\d\d?)(?::?(\d\d))?))?)?",
    re.ASCII,
)
_SHORT_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MAX_EXACT: Final = 2**63
"""Integers beyond it are read as doubles, as every consumer of the stored JSON reads them."""


def read_plain(text: str) -> Any:
    """The value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _MAY_BE_NUMBER:
        return text
    if _DECIMAL.fullmatch(text):
        return _integer(text, 10)
    if based := _BASED.fullmatch(text):
        octal, hexadecimal = based.groups()
        return _integer(octal, 8) if octal else _integer(hexadecimal, 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if stamp := _TIMESTAMP.fullmatch(text):
        return _timestamp(text, stamp)
    return text


def _integer(digits: str, base: int) -> int | float:
    if len(digits) > 4_000:  # Python refuses to convert more decimal digits than 4,300
        return math.inf
    number = int(digits, base)
    if -_MAX_EXACT <= number < _MAX_EXACT:
        return number
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _timestamp(text: str, found: re.Match[str]) -> str:
    """ISO text in UTC with milliseconds; a date that does not exist stays as it is written."""
    year, month, day, hour, minute, second, fraction, _zulu, sign, ahead, minutes = found.groups()
    if hour is None and not _SHORT_DATE.fullmatch(text):
        return text
    offset = timedelta(hours=int(ahead or 0), minutes=int(minutes or 0))
    try:
        zone = timezone(-offset if sign == "-" else offset)
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=zone
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        return text
    milliseconds = ((fraction or "") + "000")[:3]
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds}Z" if moment.year >= 1000 else text


def _finite(value: Any, text: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no number that JSON can hold; write it in quotes if it is text")
    return value


def unquoted_expression(node: MappingNode) -> str | None:
    """The text of an expression whose quotes were forgotten: `{a.output.data.x}` is a mapping to YAML."""
    if node.flow_style and len(node.value) == 1:
        key, value = node.value[0]
        if (
            isinstance(key, ScalarNode)
            and isinstance(value, ScalarNode)
            and (key.tag, value.tag, value.value) == (PLAIN, PLAIN, "")
            and ("." in key.value or key.value.startswith("$"))
        ):
            return f"{{{key.value}}}"
    return None


def _syntax_problem(
    error: yaml.MarkedYAMLError, text: str, file: str | None, line: int, column: int
) -> Problem:
    lines = text.splitlines()
    # At the end of the text the mark may stand one line below the last.
    if line > len(lines) and lines:
        line, column = len(lines), len(lines[-1]) + 1
    rest = lines[line - 1][column - 1 :] if line <= len(lines) else ""
    message = ", ".join(part for part in (error.context, error.problem) if part) or "not YAML"
    suggestion = None
    if rest.startswith("@"):
        suggestion = "put the expression in quotes: '{@domain.function}' and '@pipe' are text"
    elif rest.startswith("\t"):
        suggestion = "indent with blanks, not with tabs"
    elif "mapping values are not allowed" in message:
        suggestion = "a text that holds ': ' needs quotes"
    elif "undefined alias" in message:
        suggestion = "a text that begins with '*' needs quotes"
    return Problem("syntax", message, "", file, line, column, suggestion)


def _locate(text: str, position: int) -> tuple[int, int]:
    """The C parser counts the bytes of the UTF-8 text, the pure reader counts characters."""
    if _Parser.__module__.startswith("yaml"):
        before = text.encode()[:position].decode(errors="ignore")
    else:
        before = text[:position]
    return _line_and_column(before)


def _line_and_column(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


_TABS: Final = re.compile(r"^\t+", re.MULTILINE)
"""Indentation that JSON allows and YAML does not; the C parser is lenient, the pure one is not."""

_SURROGATES: Final = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
)


def _join_surrogates(found: re.Match[str]) -> str:
    """JSON escapes a character beyond U+FFFF as a pair, which YAML does not know."""
    backslashes, high, low = found.groups()
    return backslashes + chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
