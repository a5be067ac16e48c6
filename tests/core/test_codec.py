"""Values at rest: what is encoded says so itself, and text of the user's is never mistaken for it."""

from __future__ import annotations

import asyncio
import sys
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotmesh import AesGcmCodec, CodecError, ConfigError
from hotmesh.core.codec import CLEAR, CONCEALED, ENCODED, OPAQUE, Payload
from hotmesh.core.wire import dumps_text


class Base64:
    """Turns text into other text, so that a test can see whether it was asked."""

    def encode(self, text: str, /) -> str:
        return b64encode(text.encode()).decode()

    def decode(self, text: str, /) -> str:
        return b64decode(text, validate=True).decode()


class Broken:
    def encode(self, text: str, /) -> str:
        raise OSError("no answer from the key store")

    def decode(self, text: str, /) -> str:
        raise OSError("no answer from the key store")


class Making:
    """A codec that makes the same of every value, be it a text or not."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def encode(self, text: str, /) -> str:
        return self._made  # type: ignore[no-any-return]

    def decode(self, text: str, /) -> str:
        return text


ONE, TWO = b"1" * 32, b"2" * 16
AES = Payload(AesGcmCodec({"one": ONE}))

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["hotmesh.codec:", "hotmesh.plain:", "hotmesh.codec:x", "hotmesh.plain:hotmesh.codec:e30="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(VALUES)
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    for payload in (CLEAR, Payload(Base64()), AES):
        assert payload.loads(payload.dumps(value)) == value
        assert payload.reveal(payload.conceal(value)) == value


@given(VALUES)
def test_what_was_stored_without_a_codec_reads_with_one(value: Any) -> None:
    assert AES.loads(CLEAR.dumps(value)) == value


def test_without_a_codec_values_are_stored_as_they_are() -> None:
    for value in ({"a": 1}, [1], "text", "hotmesh", 5, None, True):
        assert CLEAR.dumps(value) == dumps_text(value)


@pytest.mark.parametrize("value", ["secret", 123456789, {"secret": 1}, ["secret"], True, None])
def test_values_of_every_type_are_encoded(value: Any) -> None:
    stored = AES.dumps(value)

    assert stored.startswith(f'"{ENCODED}one.')
    assert "secret" not in stored
    assert "123456789" not in stored


def test_an_encoded_value_cannot_be_read_without_its_codec() -> None:
    with pytest.raises(CodecError, match="this process has no codec"):
        CLEAR.loads(AES.dumps("x"))
    with pytest.raises(
        CodecError, match="could not decode a stored value: no answer from the key store"
    ) as caught:
        Payload(Broken()).loads(AES.dumps("x"))
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(CodecError, match="could not encode a value: no answer from the key store"):
        Payload(Broken()).dumps("x")
    for made, words in (
        (b"x", "returned bytes; it must return a text"),
        ("\ud800", "surrogates not allowed"),
    ):
        with pytest.raises(CodecError, match=words):
            Payload(Making(made)).dumps("x")
    assert OPAQUE.loads(AES.dumps("x")) == CONCEALED
    assert OPAQUE.loads(CLEAR.dumps("hotmesh.codec:x")) == "hotmesh.codec:x"


# -- AES-GCM ---------------------------------------------------------------------------------------------


def test_keys_are_rotated() -> None:
    old = AesGcmCodec({"2026": ONE})
    both = AesGcmCodec({"2027": TWO, "2026": ONE}, current="2027")
    new = AesGcmCodec({"2027": TWO})
    before, after = old.encode("a"), both.encode("b")

    assert (both.decode(before), both.decode(after), new.decode(after)) == ("a", "b", "b")
    assert after.startswith("2027.")
    with pytest.raises(
        CodecError, match=r"encrypted with key '2026', which this process does not have; it has 2027"
    ):
        new.decode(before)


def test_equal_values_look_different_each_time() -> None:
    codec = AesGcmCodec({"k": ONE})

    assert len({codec.encode("same") for _ in range(100)}) == 100


def test_a_changed_value_and_a_wrong_key_are_told_apart_from_others() -> None:
    codec = AesGcmCodec({"k": ONE})
    stored = codec.encode("value")
    changed = stored[:-6] + ("AAAAAA" if stored[-6:] != "AAAAAA" else "BBBBBB")

    for wrong, text in ((codec, changed), (AesGcmCodec({"k": TWO}), stored), (codec, "k.x"), (codec, "k.")):
        with pytest.raises(CodecError, match="does not fit the key 'k' of this process"):
            wrong.decode(text)


def test_a_key_cannot_be_passed_off_as_another() -> None:
    codec = AesGcmCodec({"a": ONE, "b": ONE}, current="a")

    with pytest.raises(CodecError):
        codec.decode(codec.encode("x").replace("a.", "b.", 1))


@pytest.mark.parametrize(
    ("keys", "current", "message"),
    [
        ({}, None, "at least one key"),
        ({"a": ONE, "b": TWO}, None, "current= names the one that encrypts"),
        ({"a": ONE}, "b", "there is no key 'b'; known are a"),
        ({"a": b"short"}, None, "key a must have 16, 24 or 32 bytes"),
        ({"a": "no base64!"}, None, "neither bytes nor base64 text"),
        ({"a.b": ONE}, None, "a key id has 1 to 64 letters"),
    ],
)
def test_keys_that_cannot_be_used_are_refused(keys: Any, current: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AesGcmCodec(keys, current)


def test_a_key_may_be_base64_and_is_never_shown() -> None:
    codec = AesGcmCodec({"k": b64encode(ONE).decode()})

    assert AesGcmCodec({"k": ONE}).decode(codec.encode("x")) == "x"
    assert repr(codec) == "AesGcmCodec(keys k; current k)"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)

    with pytest.raises(ConfigError, match=r"install the extra hotmesh\[crypto\]"):
        AesGcmCodec({"k": ONE})


class _Wordless(BaseException):
    def __str__(self) -> str:
        raise SystemExit(1)


@pytest.mark.parametrize(
    "error", [SystemExit(1), GeneratorExit(), asyncio.CancelledError(), _Wordless(), KeyboardInterrupt()]
)
def test_whatever_a_codec_raises_is_an_error_of_the_codec(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KeyboardInterrupt, too, that is no Ctrl-C: `asyncio.run` has another handler for that than Python's own."""
    monkeypatch.setattr("signal.getsignal", lambda _: lambda *_: None)

    class Leaves:
        def encode(self, text: str, /) -> str:
            raise error

        decode = encode

    payload = Payload(Leaves())
    with pytest.raises(CodecError, match="could not encode"):
        payload.dumps({"a": 1})
    with pytest.raises(CodecError, match="could not decode"):
        payload.loads('"hotmesh.codec:x"')
