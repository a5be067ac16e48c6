"""Rows of work items as JSON: what of them is decoded, and what stays as it is."""

from __future__ import annotations

from hotmesh.core.codec import Payload
from hotmesh.core.wire import dumps_text
from hotmesh.postgres.escalations import escalation_from


class Upper:
    """Encodes by case; what it did not write it refuses."""

    def encode(self, text: str) -> str:
        return text.upper()

    def decode(self, text: str) -> str:
        if text != text.upper():
            raise ValueError("not mine")
        return text.lower()


def test_user_values_are_decoded_and_the_rest_is_left_alone() -> None:
    payload = Payload(Upper())
    row = f'{{"id": "1", "role": "ADMIN", "envelope": {_text(payload, {"a": 1})}, "escalation_payload": null, "resolver_payload": null}}'

    found = escalation_from(row, payload)

    assert (found["role"], found["envelope"], found["escalation_payload"]) == ("ADMIN", {"a": 1}, None)


def test_what_cannot_be_decoded_stays_as_it_is() -> None:
    row = f'{{"id": "1", "envelope": {_text(Payload(Upper()), {"a": 1})}, "escalation_payload": null, "resolver_payload": 1}}'

    found = escalation_from(row, Payload(None))

    assert found["envelope"] == Payload(Upper()).conceal({"a": 1})
    assert found["resolver_payload"] == 1


def _text(payload: Payload, value: object) -> str:
    return dumps_text(payload.conceal(value))
