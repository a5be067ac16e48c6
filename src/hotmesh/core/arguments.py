"""What callers hand in, looked at before anything is done with it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final
from uuid import UUID

from hotmesh.core.lengths import excess
from hotmesh.errors import ConfigError


def checked_text(value: Any, name: str, most: int | None = None) -> str:
    """A text that Postgres holds, of at most `most` bytes. Raises ConfigError that names the argument."""
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a text, not {value!r}")
    if not is_storable(value):
        raise ConfigError(f"{name} has a NUL character or half of a surrogate pair: {value[:80]!r}")
    found = 0 if most is None else excess(value, most)
    if found:
        raise ConfigError(f"{name} has {found} bytes; it may have at most {most}: {value[:80]!r}")
    return value


def checked_texts(value: Any, name: str) -> list[str]:
    """A list of such texts. Raises ConfigError, also for a text, whose characters nobody means."""
    if isinstance(value, str) or not isinstance(value, Collection):
        raise ConfigError(f"{name} is a list of texts, not {value!r}")
    return [checked_text(item, f"each of {name}") for item in value]


def checked_flag(value: Any, name: str) -> bool:
    """True or False, and nothing that only counts as one. Raises ConfigError."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {value!r}")
    return value


def checked_mapping(value: Any, name: str) -> dict[str, Any]:
    """A dict with texts as keys; None is an empty one. Raises ConfigError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} must be a dict, not {value!r}")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(f"the keys of {name} must be texts, not {key!r}")
    return dict(value)


_NAME: Final = re.compile(r"[A-Za-z0-9-]+\Z")

RESERVED_APP: Final = "a"
"""An app may not be called so."""


def unusable_name(what: str, value: Any) -> str | None:
    """Why `value` cannot be the name of an app or a namespace, and how about which one; None if it can."""
    if isinstance(value, str) and _NAME.match(value):
        return None
    near = re.sub(r"[^A-Za-z0-9]+", "-", value).strip("-") if isinstance(value, str) else ""
    hint = f"; how about {near!r}?" if near else ""
    return f"{what} {value!r} cannot be used, letters, digits and hyphens only{hint}"


class GivenUrl(str):
    """A URL that somebody gave under another name than `connection=`, such as `--connection`: errors call it so."""

    __slots__ = ("origin",)
    origin: str


def given_as(url: str, origin: str) -> GivenUrl:
    """The URL, with the name under which it was given."""
    found = GivenUrl(url)
    found.origin = origin
    return found


def is_storable(text: str) -> bool:
    """Whether Postgres holds the text: it has no NUL character, and no half of a surrogate pair."""
    if "\0" in text:
        return False
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


def is_generation(value: Any) -> bool:
    """Whether it may be the generation of a job (`gid`)."""
    if not isinstance(value, str):
        return False
    try:
        UUID(value)
    except ValueError:
        return False
    return True
