"""The LISTEN connection of an instance: word from other instances, and the lock that shows that it lives."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from uuid import UUID

import asyncpg

from database import describe
from logs import fields

logger = logging.getLogger("gateway.listener")

WATCH_SECONDS = 2.0
RECONNECT_SECONDS = (0.1, 2.0)
# First key of each instance's advisory lock; the second is its id.
INSTANCE_LOCK = 0x6761_7465


class Listener:
    """A connection of its own, never from the pool. It is asked every two seconds whether it still hears."""

    def __init__(self, dsn: str, channel: str, instance_id: int, timeout: float) -> None:
        self._dsn = dsn
        self._channel = channel
        self._instance_id = instance_id
        self._timeout = timeout
        self.heard_at = time.monotonic()  # when it last answered
        self.is_listening = False
        self.heard = asyncio.Event()

    async def listen(self, on_word: Callable[[UUID], None], on_connected: Callable[[], None]) -> None:
        """Calls `on_word` with each session id it is told.

        And `on_connected` after every connect, since word may have been missed before.
        """
        pause, longest = RECONNECT_SECONDS
        while True:
            connection: asyncpg.Connection[asyncpg.Record] | None = None
            try:
                connection = await asyncpg.connect(self._dsn, timeout=self._timeout, command_timeout=self._timeout)
                await self._watch(connection, on_word, on_connected)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                logger.warning("LISTEN connection lost", extra=fields(error=describe(error)))
            finally:
                pause = RECONNECT_SECONDS[0] if self.is_listening else min(pause * 2, longest)
                self.is_listening = False
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(pause)

    async def _watch(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        on_word: Callable[[UUID], None],
        on_connected: Callable[[], None],
    ) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(self._channel, lambda c, pid, channel, payload: on_word(UUID(str(payload))))
        on_connected()
        has_lock = False
        while True:
            # A backend whose connection died silently may still hold the lock for a while.
            if not has_lock:
                has_lock = await connection.fetchval(
                    "SELECT pg_try_advisory_lock($1::int, $2::int)",
                    INSTANCE_LOCK,
                    self._instance_id,
                    timeout=WATCH_SECONDS,
                )
            else:
                await connection.fetchval("SELECT 1", timeout=WATCH_SECONDS)
            self.heard_at, self.is_listening = time.monotonic(), True
            self.heard.set()
            try:
                async with asyncio.timeout(WATCH_SECONDS):
                    await lost.wait()
                raise ConnectionResetError("closed by the server")
            except TimeoutError:
                pass
