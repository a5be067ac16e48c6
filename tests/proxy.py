"""A TCP proxy before a Postgres, which can break connections in the ways of real networks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """Passes bytes on until `mute`: from then on it takes what it gets and says nothing, on old connections and new."""

    def __init__(self, url: str) -> None:
        self._muted: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._mute = False
        self._server: asyncio.Server | None = None
        self.accepted = 0
        self.lead_to(url)

    def lead_to(self, url: str) -> None:
        """New connections go there."""
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._name = parts.path
        self._user = parts.username

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"postgresql://{self._user}@127.0.0.1:{port}{self._name}?sslmode=disable"

    def mute(self) -> None:
        """All connections become half open, and so do new ones."""
        self._mute = True
        self._muted |= self._open

    def unmute(self) -> None:
        """New connections work; those that were muted stay so."""
        self._mute = False

    def cut(self) -> None:
        """Reset all connections."""
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        if self._mute:
            self._muted.add(writer)
        with suppress(OSError):
            behind, ahead = await asyncio.open_unix_connection(self._socket)
            try:
                there = asyncio.create_task(self._pass_on(reader, ahead, writer))
                back = asyncio.create_task(self._pass_on(behind, writer, writer))
                await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
                there.cancel()
                back.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
            finally:
                ahead.transport.abort()
        self._open.discard(writer)
        writer.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        while found := await reader.read(65_536):
            if client not in self._muted:
                writer.write(found)
                await writer.drain()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy before the database of this URL, which leads to a Unix socket."""
    proxy = Proxy(url)
    await proxy.open()
    try:
        yield proxy
    finally:
        proxy.close()
