"""SCRAM-SHA-256 verifiers: what Postgres stores instead of a password. Made here, so that no statement carries one.

A statement may be logged, by the server or on the way; a verifier does not tell the password.
"""

from __future__ import annotations

import hmac
import secrets
import stringprep
import unicodedata
from base64 import b64encode
from hashlib import pbkdf2_hmac, sha256

ITERATIONS = 4096
"""As Postgres has it; a password of 256 random bits needs no slow hash."""


def verifier(password: str) -> str:
    """What `ALTER ROLE … PASSWORD` takes in place of the password."""
    salt = secrets.token_bytes(16)
    salted = pbkdf2_hmac("sha256", _prepared(password).encode(), salt, ITERATIONS)
    stored_key = sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${ITERATIONS}:{_text(salt)}${_text(stored_key)}:{_text(server_key)}"


def _text(value: bytes) -> str:
    return b64encode(value).decode()


def _prepared(password: str) -> str:
    """The password as clients hash it: SASLprep (RFC 4013), or as it is where that refuses it, which is what they do."""
    if password.isascii():
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in password
        if not stringprep.in_table_b1(character)
    )
    normal = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not normal or any(map(_is_prohibited, normal)):
        return password
    right_to_left = [stringprep.in_table_d1(character) for character in normal]
    if any(right_to_left) and not (
        right_to_left[0] and right_to_left[-1] and not any(map(stringprep.in_table_d2, normal))
    ):
        return password
    return normal


def _is_prohibited(character: str) -> bool:
    return any(
        table(character)
        for table in (
            stringprep.in_table_a1,
            stringprep.in_table_c12,
            stringprep.in_table_c21_c22,
            stringprep.in_table_c3,
            stringprep.in_table_c4,
            stringprep.in_table_c5,
            stringprep.in_table_c6,
            stringprep.in_table_c7,
            stringprep.in_table_c8,
            stringprep.in_table_c9,
        )
    )
