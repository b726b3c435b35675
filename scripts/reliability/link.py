"""HTTP/1.1 as far as the load needs it: one connection a client, which asks again when it breaks."""

import asyncio
import json


class Broken(Exception):
    """No whole answer came."""


class Link:
    """A connection to a gateway, opened again when it has broken."""

    def __init__(self, port: int) -> None:
        self.port, self.streams = port, None

    async def ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, patience: float = 30) -> tuple[int, object]:
        """Status and JSON of one answer."""
        try:
            async with asyncio.timeout(patience):
                return await self.once(method, path, body, headers or {})
        except (OSError, EOFError, TimeoutError, ValueError) as cause:
            self.close()
            raise Broken(repr(cause)) from cause

    async def once(self, method: str, path: str, body: object, headers: dict[str, str]) -> tuple[int, object]:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        reader, writer = self.streams
        text = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(text)}", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + text)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        answer = await self.body(reader, head)
        if "connection: close" in head:
            self.close()
        return int(head.split(" ", 2)[1]), json.loads(answer) if answer.strip() else None

    async def body(self, reader: asyncio.StreamReader, head: str) -> bytes:
        if "transfer-encoding: chunked" not in head:
            length = head.partition("content-length: ")[2].partition("\r\n")[0]
            return await reader.readexactly(int(length or 0))
        whole = b""
        while size := int(await reader.readline(), 16):
            whole += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
        return whole

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None
