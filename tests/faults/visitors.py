"""Visitors as the front end makes them: they come back when their socket is gone, and repeat what has no answer yet."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Self
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.support.card_qna import FAQS
from tests.support.chat import Frame, new_id, receive
from tests.support.gateway import Gateway
from tests.support.keys import key_of, protocols
from tests.support.waiting import become
from tests.support.world import unique

EPOCH = "1970-01-01T00:00:00+00:00"  # `since` before the first answer
PAUSE_SECONDS = 0.2  # before coming back, and before repeating a prompt that was refused
TAKEN_OVER = 4001
PASSING = ("Internal Server Error: DB operation failed", "Server is restarting")
PUSHED_BY = "consumption_recommend"
FAILED = ("LLM 서버 통신 오류: 응답 형식이 올바르지 않습니다.", "LLM 서버 ", "답변이 중지되었습니다.")


class FrontEnd:
    """One visitor, whose socket may be on any of the instances, the next one each time it is lost.

    `sent` says how often each prompt was sent, `answers` and `pushes` are all frames that came, on all sockets. Who
    `streams` sees answers while they are made, `made` by the rule of attempts and offsets; `wrong` are those whose text
    is not how the answer begins, or that something came of after the answer.
    """

    def __init__(
        self, gateways: Sequence[Gateway], first: int = 0, session_id: str | None = None, *, streams: bool = False
    ) -> None:
        self.session_id = session_id
        self.streams = streams
        self.made: dict[str, tuple[int, str]] = {}
        self.deltas = 0
        self.wrong: set[str] = set()
        self.since = EPOCH
        self.waiting: dict[str, str] = {}
        self.sent: Counter[str] = Counter()
        self.answers: list[Frame] = []
        self.pushes: list[Frame] = []
        self.problems: list[str] = []
        self.gateway = gateways[first % len(gateways)]
        self.online = asyncio.Event()
        self.enough = asyncio.Event()
        self._gateways: Iterator[Gateway] = itertools.islice(itertools.cycle(gateways), first % len(gateways), None)
        self._seen: set[tuple[str, str]] = set()
        self._socket: ClientConnection | None = None
        self._changed = asyncio.Event()
        self._probed = asyncio.Event()
        self._repeating: set[asyncio.Task[None]] = set()
        self._living: asyncio.Task[None] | None = None

    def turn_to(self, gateways: Sequence[Gateway]) -> None:
        """Go to these instances the next time."""
        self._gateways = itertools.cycle(gateways)

    def come(self) -> Self:
        """Connect, and stay connected until `leave`."""
        self._living = asyncio.create_task(self._live())
        return self

    async def leave(self, *, closing: bool = True) -> None:
        """Go for good: with a closing handshake, or by cutting the connection."""
        socket, living = self._socket, self._living
        assert living is not None
        if socket is not None and not closing:
            socket.transport.abort()
        for task in (living, *self._repeating):
            task.cancel()
        await asyncio.wait([living])
        self._living = None

    async def _live(self) -> None:
        while True:
            self.gateway = next(self._gateways)
            query = {"session_id": self.session_id, "since": self.since} if self.session_id else {}
            query |= {"stream": "true"} if self.streams else {}
            try:
                async with self.gateway.connect(
                    query=urlencode(query),
                    subprotocols=protocols(key_of(self.session_id)) if self.session_id else None,
                    max_queue=None,
                    ping_interval=None,
                    close_timeout=1,
                ) as socket:
                    await self._converse(socket)
            except (OSError, TimeoutError, WebSocketException) as error:
                if isinstance(error, ConnectionClosed) and error.rcvd and error.rcvd.code == TAKEN_OVER:
                    self.problems.append("told that the session was opened elsewhere")
            finally:
                self._socket = None
                self.online.clear()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _converse(self, socket: ClientConnection) -> None:
        hello = await receive(socket)
        if "error" in hello:
            return
        expected = {"session_id": self.session_id, "resumed": True} | ({"stream": True} if self.streams else {})
        if self.session_id is not None and hello != expected:
            self.problems.append(f"the session is gone: {hello}")
        self.session_id = hello["session_id"]
        self._socket = socket
        self.online.set()
        for message_id in list(self.waiting):
            await self._send(message_id)
        async for data in socket:
            self._take(json.loads(data))

    async def ask(self, message: str) -> str:
        """Have a prompt answered, however often it must be sent; its id."""
        message_id = new_id()
        self.waiting[message_id] = message
        await self._send(message_id)
        return message_id

    async def _send(self, message_id: str) -> None:
        if self._socket is not None and message_id in self.waiting:
            self.sent[message_id] += 1
            with suppress(ConnectionClosed):
                await self._socket.send(json.dumps({"message_id": message_id, "message": self.waiting[message_id]}))

    async def _repeat(self, message_id: str) -> None:
        await asyncio.sleep(PAUSE_SECONDS)
        await self._send(message_id)

    def cut(self) -> None:
        """Lose the socket, and come back."""
        if self._socket is not None:
            self.online.clear()
            self._socket.transport.abort()

    async def stop(self, message_id: str) -> None:
        """Stop a prompt."""
        assert self._socket is not None
        await self._socket.send(json.dumps({"type": "stop", "message_id": message_id}))

    def _grow(self, frame: Frame) -> None:
        message_id = frame["message_id"]
        if message_id not in self.waiting:
            self.wrong.add(message_id)
        attempt, text = self.made.get(message_id, (0, ""))
        if frame["attempt"] > attempt:
            attempt, text = frame["attempt"], ""
        units = text.encode("utf-16-le")
        if frame["type"] == "delta" and frame["attempt"] == attempt and 2 * frame["offset"] <= len(units):
            self.deltas += 1
            text = (units[: 2 * frame["offset"]] + frame["text"].encode("utf-16-le")).decode("utf-16-le")
        self.made[message_id] = (attempt, text)

    def _take(self, frame: Frame) -> None:
        error = frame.get("error")
        if "type" in frame:
            self._grow(frame)
            self._changed.set()
            return
        if error == "Invalid JSON format":
            self._probed.set()
        elif error in PASSING and frame.get("message_id") in self.waiting:
            repeating = asyncio.create_task(self._repeat(frame["message_id"]))
            self._repeating.add(repeating)
            repeating.add_done_callback(self._repeating.discard)
        elif error is not None:
            if error not in PASSING:
                self.problems.append(f"told: {frame}")
        else:
            (self.pushes if frame.get("tool_name") == PUSHED_BY else self.answers).append(frame)
            made = self.made.get(frame["message_id"], (0, ""))[1]
            if not frame["message"].startswith((made, *FAILED)):
                self.wrong.add(frame["message_id"])
            self.waiting.pop(frame["message_id"], None)
            if (key := (frame["message_id"], frame["timestamp"])) not in self._seen:
                self._seen.add(key)
                self.since = frame["timestamp"]
        self._changed.set()

    async def until(self, check: Callable[[], object]) -> None:
        """Wait until something holds that can only change with a frame."""
        while not check():
            self._changed.clear()
            await self._changed.wait()

    async def until_answered(self) -> None:
        """Wait until every prompt has its answer."""
        await self.until(lambda: not self.waiting)

    async def probe(self) -> None:
        """Wait until everything that was on its way has come."""
        await self.online.wait()
        assert self._socket is not None
        self._probed.clear()
        await self._socket.send("no JSON")
        await self._probed.wait()

    async def talk(self) -> None:
        """Ask one thing after the other until it is enough, every fourth one a question of the FAQ."""
        for n in itertools.count():
            await self.ask(FAQS[n % len(FAQS)].question if n % 4 == 3 else unique("질문"))
            await self.until_answered()
            if self.enough.is_set():
                return


class Crowd:
    """Visitors of one row of the matrix; use it as a context manager. They all leave at its end."""

    def __init__(self, gateways: Sequence[Gateway], size: int, *, first: int = 0, streams: bool = False) -> None:
        self.visitors = [FrontEnd(gateways, first + n, streams=streams) for n in range(size)]
        self._talking: list[asyncio.Task[None]] = []

    @property
    def answered(self) -> int:
        """How many answers have come."""
        return sum(len(visitor.answers) for visitor in self.visitors)

    def talk(self) -> None:
        """Begin to ask without a pause."""
        self._talking = [asyncio.create_task(visitor.talk()) for visitor in self.visitors]

    async def more_answers(self, count: int | None = None) -> None:
        """Wait for so many more answers, two for each visitor unless told."""
        enough = self.answered + (2 * len(self.visitors) if count is None else count)
        await become(lambda: self.answered >= enough, what=f"{enough} answers")

    async def finish(self) -> None:
        """Ask no more, and wait for the last answer."""
        for visitor in self.visitors:
            visitor.enough.set()
        await asyncio.gather(*self._talking)
        await asyncio.gather(*(visitor.until_answered() for visitor in self.visitors))

    async def __aenter__(self) -> Self:
        for visitor in self.visitors:
            visitor.come()
        for visitor in self.visitors:
            await visitor.online.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._talking:
            task.cancel()
        await asyncio.gather(*(visitor.leave() for visitor in self.visitors))
