"""Messages from one instance to another: both ends of LISTEN and NOTIFY."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from common.errors import DatabaseError
from common.logs import log, session_hash
from database.connecting import connect
from database.failures import FAILED, describe
from database.pool import Database
from database.shared import BatchedStatement

WATCH_SECONDS = 2.0
RECONNECT_SECONDS = (0.1, 2.0)
BEAT_SECONDS = 1.0
NOTIFY_TRIES, RETRY_SECONDS = 3, 1.0
INSTANCE_LOCK = 0x6761_7465  # first key of each instance's advisory lock; the second is its id


# An instance's channels: for ids of sessions to look at, and for typed messages, which older versions do not know.
SESSIONS, WORDS = "gateway_instance_{}", "gateway_words_{}"


class Notifier:
    """Tells instances, each on its own channels, what happened."""

    def __init__(self, chatdb: Database) -> None:
        self._notices = BatchedStatement(chatdb, "notify_instances", apart="payload")
        self._words = BatchedStatement(chatdb, "notify_instances", apart="payload")

    async def notify(self, instance_id: int, session_id: UUID) -> None:
        """Has an instance look at a session."""
        for _ in range(NOTIFY_TRIES):
            try:
                await self._notices.put({"payload": str(session_id), "channel": SESSIONS.format(instance_id)})
                return
            except DatabaseError as error:
                if isinstance(error.__cause__, asyncpg.ProgramLimitExceededError):
                    break  # the queue is full, and as long as it is, everybody looks by themselves
                await asyncio.sleep(RETRY_SECONDS)
        log.error("an instance could not be notified", session=session_hash(session_id))

    async def tell(self, instance_id: int, words: list[dict[str, Any]]) -> int:
        """Sends typed messages below 8,000 bytes, in order; returns the bytes sent. Whoever misses one asks again."""
        payloads, channel = [orjson.dumps(word) for word in words], WORDS.format(instance_id)
        try:
            await asyncio.gather(*(self._words.put({"payload": p.decode(), "channel": channel}) for p in payloads))
        except DatabaseError:
            return 0
        return sum(map(len, payloads))


class Listener:
    """A connection of its own, never from the pool, which is checked every two seconds.

    The advisory lock that it holds shows the other instances that this one is alive.
    """

    def __init__(self, dsn: str, instance_id: int, timeout: float) -> None:
        self._dsn = dsn
        self._instance_id = instance_id
        self._timeout = timeout
        self.beat = 0  # the instance's sign of life
        self.is_shown = False  # on this connection
        self.heard_at = time.monotonic()  # when it last answered
        self.is_listening = False
        self.has_listened = asyncio.Event()

    async def listen(
        self, hearing: dict[str, Callable[[str], None]], on_connected: Callable[[], Awaitable[None]]
    ) -> None:
        """Calls what `hearing` has for a channel with each payload that arrives there.

        Calls `on_connected` after every connect, since notices may have been missed before.
        """
        pause, longest = RECONNECT_SECONDS
        while True:
            connection: Any = None
            try:
                connection = await connect(self._dsn, timeout=self._timeout, command_timeout=self._timeout)
                for channel, hear in hearing.items():
                    await connection.add_listener(channel.format(self._instance_id), partial(_hear, hear))
                await on_connected()
                await self._watch(connection)
            except (*FAILED, DatabaseError) as error:
                log.warning("LISTEN connection lost", error=describe(error))
            finally:
                pause = RECONNECT_SECONDS[0] if self.is_listening else min(pause * 2, longest)
                self.is_listening = self.is_shown = False
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(pause)

    async def _watch(self, connection: Any) -> None:
        """Raises an error as soon as the connection is known to be lost."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        take_lock, has_lock = "SELECT pg_try_advisory_lock($1::int, $2::int)", False
        show = "SELECT set_config('application_name', $1, false)"
        while True:
            # A backend whose connection died silently may still hold the lock for a while.
            if not has_lock:
                has_lock = await connection.fetchval(take_lock, INSTANCE_LOCK, self._instance_id, timeout=WATCH_SECONDS)
            if has_lock:
                await connection.fetchval(show, f"gateway {self._instance_id} beat {self.beat}", timeout=WATCH_SECONDS)
                self.is_shown = True
            self.heard_at, self.is_listening = time.monotonic(), True
            self.has_listened.set()
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    await lost.wait()
                raise ConnectionResetError("closed by the server")
            except TimeoutError:
                pass


def _hear(hear: Callable[[str], None], connection: Any, pid: int, channel: str, payload: object) -> None:
    try:
        hear(str(payload))
    except Exception as error:  # it is another version's, or anybody's who can write to the database
        log.warning("notice not understood", channel=channel, error=type(error).__name__)
