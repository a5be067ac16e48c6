"""User values at rest: as JSON, or encoded by a codec of the user's.

An encoded value is the JSON text `hotmesh.codec:<what the codec made of the JSON of the value>`. Text of the user's that
begins like that is stored as `hotmesh.plain:<the text>`, with and without a codec, so that it is never mistaken for one.
So each stored value says by itself whether it is encoded, and rows from before a codec was registered read as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from hotmesh.core.values import Json
from hotmesh.core.wire import dumps_text, loads
from hotmesh.errors import CodecError
from hotmesh.foreign_errors import storable, words_or_kind_of
from hotmesh.interrupts import is_interrupt

ENCODED: Final = "hotmesh.codec:"
PLAIN: Final = "hotmesh.plain:"
_MARKS: Final = (ENCODED, PLAIN)


class Codec(Protocol):
    """Turns the JSON of a value into other text and back. Called on the event loop, so it should be quick.

    `decode` raises for what it cannot decode, as of an unknown key; whatever either raises reaches callers as the cause
    of a CodecError.
    """

    def encode(self, text: str, /) -> str: ...

    def decode(self, text: str, /) -> str: ...


LONGEST_ERROR: Final = 2_000
"""Characters that are kept of the error of an attempt, the first ones."""


class Payload:
    """How the values of an app are written and read. `dumps` is decided once, so that no codec costs nothing."""

    __slots__ = ("codec", "conceal", "dumps")

    def __init__(self, codec: Codec | None = None) -> None:
        self.codec = codec
        self.conceal: Callable[[Json], Json] = _escaped if codec is None else self._encoded
        """A value as JSON to be put into other JSON."""
        self.dumps: Callable[[Json], str] = _dumps_plain if codec is None else self._dumps_encoded
        """A value as the text of a column."""

    def kept_error(self, words: str) -> str | None:
        """The error of an attempt as its row keeps it: bounded, and like all that users' code says, encoded if the app has a codec.

        None: it cannot be.
        """
        try:
            return str(self.conceal(storable(words[:LONGEST_ERROR].replace("\0", "\ufffd"))))
        except CodecError:
            return None

    def _encoded(self, value: Json) -> Json:
        if self.codec is None:
            raise AssertionError("chosen only with a codec")
        try:
            encoded = self.codec.encode(dumps_text(value))
            if isinstance(encoded, str):
                encoded.encode()  # it may have half of a surrogate pair
        except BaseException as error:
            if is_interrupt(error):
                raise
            # `sys.exit()` in a codec ends no engine, and nobody can be cancelled in here.
            raise CodecError(f"the codec could not encode a value: {words_or_kind_of(error)}") from error
        if not isinstance(encoded, str):
            raise CodecError(
                f"the codec's encode returned {type(encoded).__name__}; it must return a text, at once"
            )
        return ENCODED + encoded

    def _dumps_encoded(self, value: Json) -> str:
        return dumps_text(self._encoded(value))

    def loads(self, text: str | bytes) -> Json:
        """The value in a column. Raises CodecError."""
        return self.reveal(loads(text))

    def reveal(self, value: Json) -> Json:
        """The reverse of `conceal`. Raises CodecError for a value that this codec, or none, cannot decode."""
        if type(value) is not str or not value.startswith(_MARKS):
            return value
        if value.startswith(PLAIN):
            return value[len(PLAIN) :]
        if self.codec is None:
            raise CodecError(
                "a stored value is encoded, and this process has no codec: register the one it was written with, by "
                "HotMesh.register_codec or HotMesh.init(codec=…)"
            )
        try:
            return loads(self.codec.decode(value[len(ENCODED) :]))
        except CodecError:
            raise
        except BaseException as error:
            if is_interrupt(error):
                raise
            raise CodecError(
                f"the codec could not decode a stored value: {words_or_kind_of(error)}"
            ) from error


class Opaque(Payload):
    """Reads for those who need no values: what is encoded becomes a placeholder."""

    def reveal(self, value: Json) -> Json:
        if type(value) is str and value.startswith(ENCODED):
            return CONCEALED
        return super().reveal(value)


CONCEALED: Final = "(encoded)"


def _escaped(value: Json) -> Json:
    if type(value) is str and value.startswith(_MARKS):
        return PLAIN + value
    return value


def _dumps_plain(value: Json) -> str:
    if type(value) is str and value.startswith(_MARKS):
        return dumps_text(PLAIN + value)
    return dumps_text(value)


CLEAR: Final = Payload()
"""No codec."""

OPAQUE: Final = Opaque()
