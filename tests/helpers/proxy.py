"""A TCP proxy before a Unix socket, in a thread, that can cut its clients off in two ways."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any


class CutProxy:
    """`refuse` resets every connection and takes no new one; `swallow` keeps them and passes nothing on, as a
    network does that has lost its way; `restore` lets all through again (what was swallowed is gone: those
    connections end)."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._mode = "pass"
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._call(self._start())

    def url(self, database: str) -> str:
        """Where clients find the database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def refuse(self) -> None:
        self._mode = "refuse"
        self._call(self._abort())

    def swallow(self) -> None:
        self._mode = "swallow"

    def restore(self) -> None:
        if self._mode == "swallow":
            self._call(self._abort())
        self._mode = "pass"

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._abort()
            while self._writers:
                writer = self._writers.pop()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(asyncio.current_task())
        self._writers.add(writer)
        if self._mode == "refuse":
            writer.transport.abort()
            return
        while self._swallows():  # the client waits for an answer that does not come
            await asyncio.sleep(0.05)
            if writer.transport.is_closing():
                return
        try:
            upstream_reader, upstream = await asyncio.open_unix_connection(self._path)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(upstream)
        for source, sink in ((reader, upstream), (upstream_reader, writer)):
            self._keep(self._loop.create_task(self._pump(source, sink)))

    def _keep(self, task: asyncio.Task[Any] | None) -> None:
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _passes(self) -> bool:
        return self._mode == "pass"

    def _swallows(self) -> bool:
        return self._mode == "swallow"

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if self._passes():
                    sink.write(data)
                    await sink.drain()
        while self._swallows():  # noqa: ASYNC110 - not even the end of a connection gets through
            await asyncio.sleep(0.05)
        sink.transport.abort()
