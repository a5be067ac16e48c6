"""A codec that encrypts: AES-GCM, with any number of keys of which one encrypts."""

from __future__ import annotations

import os
import re
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final

from hotmesh.errors import CodecError, ConfigError

_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")

NONCE: Final = 12
"""Bytes; random for each value. With one key, up to 2^32 values are safe: rotate before that."""


class AesGcmCodec:
    """Encrypts and authenticates values with AES-GCM.

    `keys`: key id → key of 16, 24 or 32 bytes, as bytes or base64 text. `current` names the one that encrypts; each value
    carries the id of its key, and any of the keys decrypts. Needs the extra `hotmesh[crypto]`. Raises ConfigError.

        HotMesh.register_codec(AesGcmCodec({"2027": new, "2026": old}, current="2027"))
    """

    def __init__(self, keys: Mapping[str, bytes | str], current: str | None = None) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ConfigError(
                "AesGcmCodec needs the package cryptography: install the extra hotmesh[crypto]"
            ) from error
        if not keys:
            raise ConfigError("AesGcmCodec needs at least one key")
        if current is None and len(keys) > 1:
            raise ConfigError(f"of several keys ({', '.join(keys)}), current= names the one that encrypts")
        self._current = next(iter(keys)) if current is None else current
        if self._current not in keys:
            raise ConfigError(f"there is no key {self._current!r}; known are {', '.join(keys)}")
        self._keys: dict[str, Any] = {}
        for key_id, key in keys.items():
            if not isinstance(key_id, str) or not _KEY_ID.match(key_id):
                raise ConfigError(f"a key id has 1 to 64 letters, digits, - and _, not {key_id!r}")
            self._keys[key_id] = AESGCM(_key(key_id, key))

    def encode(self, text: str, /) -> str:
        """`<key id>.<base64 of nonce, ciphertext and tag>`."""
        nonce = os.urandom(NONCE)
        sealed = self._keys[self._current].encrypt(nonce, text.encode(), self._current.encode())
        return f"{self._current}.{urlsafe_b64encode(nonce + sealed).decode()}"

    def decode(self, text: str, /) -> str:
        """The reverse. Raises CodecError for an unknown key, and for text that was not made with it, or altered."""
        from cryptography.exceptions import InvalidTag

        key_id, _, body = text.partition(".")
        key = self._keys.get(key_id)
        if key is None:
            raise CodecError(
                f"a stored value is encrypted with key {key_id!r}, which this process does not have; it has "
                f"{', '.join(self._keys)}"
            )
        try:
            sealed = urlsafe_b64decode(body)
            opened: bytes = key.decrypt(sealed[:NONCE], sealed[NONCE:], key_id.encode())
        except (InvalidTag, ValueError) as error:
            raise CodecError(
                f"a stored value does not fit the key {key_id!r} of this process: another key has that id elsewhere, or the "
                "value was altered"
            ) from error
        return opened.decode()

    def __repr__(self) -> str:
        return f"AesGcmCodec(keys {', '.join(self._keys)}; current {self._current})"


def _key(key_id: str, key: bytes | str) -> bytes:
    if isinstance(key, str):
        try:
            key = b64decode(key.replace("-", "+").replace("_", "/"), validate=True)
        except ValueError as error:
            raise ConfigError(f"key {key_id} is neither bytes nor base64 text") from error
    if not isinstance(key, bytes) or len(key) not in (16, 24, 32):
        raise ConfigError(f"key {key_id} must have 16, 24 or 32 bytes")
    return key
