"""Attacks with a stolen worker login and a plain driver, by what they aim at.

An attack returns what it got hold of. It ends with an error of Postgres, one of `refused`, or without one (`harmless`).

    attack         how one is written, and all there are
    schema         tables, views, sequences, functions
    server         other logins, files, settings of the server
    work           work of others
    added_answers  answers that are added to earlier ones
    payloads       odd values, numbers and arrays
    holding        leases, locks, transactions
    sessions       notifications, search paths, plans
"""

from attacks import added_answers, holding, payloads, schema, server, sessions, work
from attacks.attack import ATTACKS

__all__ = ["ATTACKS", "added_answers", "holding", "payloads", "schema", "server", "sessions", "work"]
