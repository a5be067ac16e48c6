"""What members send each other, byte for byte, and what they make of what comes from outside."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET, to_builtins

from hotmesh import ConfigError, HotMesh
from hotmesh.postgres.members import Rates
from hotmesh.runtime.members.ballot import Ballot
from hotmesh.runtime.members.messages import (
    Activate,
    DuressMessage,
    Ping,
    PingDetails,
    Pong,
    Prepared,
    QuorumMessage,
    RollCall,
    Throttle,
    checked_message,
    read_message,
)
from hotmesh.runtime.members.rates import MemberRates, throttle_message

ANSWER = {"guid": "me", "originator": "you", "session": 7, "parts": 2, "ballot": "q"}


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        (
            Ping(originator="me", details=PingDetails(ballot="q")),
            {"type": "ping", "originator": "me", "details": {"ballot": "q"}},
        ),
        (
            Ping(originator="me", details=PingDetails(ballot="q", activate="2", stored=False)),
            {
                "type": "ping",
                "originator": "me",
                "details": {"ballot": "q", "activate": "2", "stored": False},
            },
        ),
        (
            Pong(profile={"a": 1}, guid="me", originator="you", session=7, parts=2, ballot="q"),
            {"type": "pong", "profile": {"a": 1}, **ANSWER},
        ),
        (
            Pong(details=Prepared(version="2", checksum="c"), guid="me", originator="you", session=7, parts=1,
                 ballot=None),
            {"type": "pong", "details": {"version": "2", "checksum": "c"}, **ANSWER, "parts": 1, "ballot": None},
        ),
        (
            Pong(details=Prepared(version="2", error="no")),
            {"type": "pong", "details": {"version": "2", "error": "no"}},
        ),
        (
            Pong(guid="me", originator=None, profile={}),
            {"type": "pong", "guid": "me", "originator": None, "profile": {}},
        ),
        (throttle_message(5, None, None, "all"), {"type": "throttle", "throttle": 5}),
        (throttle_message(5, None, "w", "all"), {"type": "throttle", "throttle": 5, "topic": "w"}),
        (throttle_message(5, None, "w", "workers"), {"type": "throttle", "throttle": 5, "topic": "w"}),
        (throttle_message(-1, None, None, "engines"), {"type": "throttle", "throttle": -1, "topic": None}),
        (
            throttle_message(0, "g", None, "workers"),
            {"type": "throttle", "throttle": 0, "guid": "g", "scope": "workers"},
        ),
        (Throttle(throttle=5, stored=True), {"type": "throttle", "throttle": 5, "stored": True}),
        (
            Activate(until_version="2", originator="me"),
            {"type": "activate", "cache_mode": "nocache", "until_version": "2", "originator": "me"},
        ),
        (
            DuressMessage(originator="me", duress_score_ms=1.5, throttle_ms=250, level="mild"),
            {
                "type": "duress",
                "originator": "me",
                "duress_score_ms": 1.5,
                "throttle_ms": 250,
                "level": "mild",
            },
        ),
    ],
)  # fmt: skip
def test_a_message_has_these_keys_and_no_others(message: QuorumMessage, sent: dict[str, Any]) -> None:
    assert to_builtins(message) == sent


def test_fields_and_types_of_other_releases_are_passed_over() -> None:
    assert read_message({"type": "rollcall", "interval": 5, "max": 2, "colour": "red"}) == RollCall(
        interval=5, max=2
    )
    assert read_message({"type": "ping", "originator": "x", "details": {"more": 1}}) == Ping(
        originator="x", details=PingDetails()
    )
    for kind in ("user", "activate", "work", "of tomorrow", None, ["ping"]):
        assert read_message({"type": kind, "message": 5}) is None


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ping"},
        {"type": "ping", "originator": "x", "details": "?"},
        {"type": "pong", "session": "seven"},
        {"type": "throttle", "throttle": "fast"},
        {"type": "throttle", "throttle": True},
        {"type": "rollcall", "interval": "soon"},
        {"type": "duress", "level": "bad", "throttle_ms": 1},
        {"type": "duress", "level": "severe", "throttle_ms": "5"},
        {"type": "duress"},
    ],
)
def test_what_cannot_be_used_says_so(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Expected|Invalid|missing"):
        read_message(message)


def test_absent_and_null_are_told_apart() -> None:
    assert read_message({"type": "throttle", "throttle": 5}) == Throttle(throttle=5, topic=UNSET)
    assert read_message({"type": "throttle", "throttle": 5, "topic": None}) == Throttle(
        throttle=5, topic=None
    )


# -- ballots -------------------------------------------------------------------------------------------------


def test_who_answers_in_parts_has_answered_with_the_last_one() -> None:
    ballot = Ballot("q")
    ballot.count(Pong(session=1, parts=2, profile={"engine_id": "a"}))
    assert ballot.answers == {}
    ballot.count(Pong(session=1, parts=2, profile={"engine_id": "b"}))
    ballot.count(Pong(session=2))

    assert list(ballot.answers) == [1, 2]
    assert [profile["engine_id"] for profile in ballot.profiles] == ["a", "b"]
    with pytest.raises(ValueError, match="session"):
        ballot.count(Pong())


# -- rates ---------------------------------------------------------------------------------------------------


def rates_after(*messages: Throttle) -> tuple[int, int, int]:
    """Of the engine, of workers of `w`, and of those of another topic."""
    rates = MemberRates()
    rates.stored = Rates(engines=1, workers=2, topics={"w": 3})
    for message in messages:
        rates.adopt(message)
    return rates.engine, rates.worker("w"), rates.worker("x")


def test_a_rate_of_its_own_holds_until_a_stored_one_replaces_it() -> None:
    everything, topic = Throttle(throttle=9), Throttle(throttle=8, topic="w")

    assert rates_after() == (1, 3, 2)
    assert rates_after(everything) == (9, 9, 9)
    assert rates_after(everything, topic) == (9, 8, 9)
    assert rates_after(topic, everything) == (9, 9, 9)
    assert rates_after(Throttle(throttle=9, topic=None)) == (9, 3, 2)
    assert rates_after(Throttle(throttle=9, scope="workers")) == (1, 9, 9)
    assert rates_after(everything, topic, Throttle(throttle=5, topic="w", stored=True)) == (9, 9, 9)
    assert rates_after(everything, topic, Throttle(throttle=5, stored=True)) == (1, 3, 2)
    assert rates_after(everything, Throttle(throttle=5, topic=None, stored=True)) == (1, 9, 9)
    with pytest.raises(ConfigError, match="Throttle must be"):
        rates_after(Throttle(throttle=-2))
    with pytest.raises(ConfigError, match="Throttle must be"):
        rates_after(Throttle())


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ping", "details": None},
        {"type": "rollcall", "signature": 1},
        {"type": "rollcall", "signature": None, "interval": None},
        {"type": "throttle", "throttle": 10, "more": {"of": "another release"}},
    ],
)
def test_what_another_form_says_as_well_is_understood(message: dict[str, Any]) -> None:
    given = {"originator": "who", **message} if message["type"] == "ping" else message

    assert read_message(checked_message(given)) is not None


@pytest.mark.anyio
@pytest.mark.parametrize(
    "message",
    [
        {"type": "ping", "details": "none"},
        {"type": "duress", "level": "odd", "throttle_ms": 1},
        {"type": "throttle", "throttle": 1, "topic": ["a"]},
    ],
)
async def test_what_no_member_could_use_is_refused_where_it_is_sent(
    database_url: str, message: dict[str, Any]
) -> None:
    async with HotMesh.init("quorum", connection=database_url) as mesh:
        with pytest.raises(ConfigError, match=f"message of type {message['type']}"):
            await mesh.pub_quorum(message)
