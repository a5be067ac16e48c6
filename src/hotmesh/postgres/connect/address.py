"""Where connection options lead, in words for messages: without the password."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg


def address(options: Mapping[str, Any]) -> str:
    """Such as `127.0.0.1:5432 as anna`; what is not said comes from libpq's variables, or is the driver's default."""
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    dsn = given.get("dsn")
    if isinstance(dsn, str):
        given = {**_parts(dsn), **given}
    host = given.get("host") or os.environ.get("PGHOST") or "localhost"
    port = given.get("port") or os.environ.get("PGPORT") or 5432
    user = given.get("user") or os.environ.get("PGUSER")
    hosts = host if isinstance(host, list | tuple) else str(host).split(",")
    ports = port if isinstance(port, list | tuple) else str(port).split(",")
    places = [
        f"{one} (a socket)" if str(one).startswith("/") else _joined(str(one), ports[min(at, len(ports) - 1)])
        for at, one in enumerate(hosts)
    ]
    return " or ".join(places) + (f" as {user}" if user else "")


def reason(error: BaseException, options: Mapping[str, Any]) -> str:
    """Why there is no connection, and what to look at."""
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is it running, and does it listen there?"
    if isinstance(error, FileNotFoundError):
        return "there is no such socket; is it running?"
    if isinstance(error, asyncpg.exceptions.InvalidCatalogNameError):
        return f"{error}; create it, or name another one"
    if isinstance(error, OSError) and "Connect call failed" in str(error):
        # Of several addresses of one host; each may have its own reason.
        return f"connection refused; is it running, and does it listen there? ({error})"
    return str(error)


def _parts(dsn: str) -> dict[str, Any]:
    try:
        url = urlsplit(dsn)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    except ValueError:
        return {}
    login, separator, place = url.netloc.rpartition("@")
    hosts, ports = [], []
    for one in place.split(",") if place else ():
        host, colon, port = one.rpartition(":") if not one.endswith("]") else (one, "", "")
        hosts.append(unquote(host if colon else one).strip("[]"))
        ports.append(port if colon else "5432")
    found: dict[str, Any] = {}
    if any(hosts):
        found = {"host": hosts, "port": ports}
    if separator and login:
        found["user"] = unquote(login.partition(":")[0])
    return found | {name: query[name] for name in ("host", "port", "user") if name in query}


def _joined(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
