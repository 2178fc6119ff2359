"""Sends some minutes of traffic to a running demo, so that /metrics, the log and a dashboard show life.

    make traffic       or:  .venv/bin/python -m demo.traffic [ws://127.0.0.1:8001] [--minutes 3] [--visitors 30]

It ends by itself, or with Ctrl-C. PORT (8001) is an environment variable, as for `make run`.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

DATA = Path(__file__).parent / "data"
FREE_QUESTIONS = (
    "커피와 배달 할인이 되는 카드를 추천해 주세요",
    "해외 여행에 좋은 카드가 있나요?",
    "안녕하세요",
    "연회비가 없는 카드를 찾고 있어요",
    "주유 할인이 많이 되는 카드는 뭐예요?",
    "리볼빙 뜻이 뭐예요?",
    "다음 달 결제 금액이 궁금해요",
    "고맙습니다",
)
NEEDS_LOGIN = "내 소비에 맞는 카드를 추천해 주세요"
REPORT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
RETURN_SECONDS = 1.0
# Pauses of a visitor, in seconds: shortest and longest
READING = (0.5, 4.0)
AWAY = (0.5, 3.0)
BETWEEN_VISITS = (0.0, 5.0)
STOPPING = (0.1, 1.5)
# How many visitors watch their answers grow, and how often one of them stops an answer
WATCHING = 0.8
IMPATIENT = 0.1


class NoGateway(Exception):
    """Nothing that answers like the gateway is there. The text is a sentence for whoever started it."""


class Traffic:
    """A fixed number of visitors at a time, each with one visit after the other."""

    def __init__(self, base_url: str, http: httpx.AsyncClient, persona_ids: list[int]) -> None:
        self.http = http
        self.persona_ids = persona_ids
        self.counts: Counter[str] = Counter()
        self.open = 0
        self.seconds: list[float] = []
        self.exact = _texts("faqs.json", "question") + _texts("terms.json", "term")
        self._socket_url = base_url.rstrip("/") + "/api/chat/ws"

    def connect(self, key: str = "", **query: str) -> connect:
        """`since` holds a plus sign, which `urlencode` escapes as it must be."""
        query_string = "?" + urlencode(query) if query else ""
        headers = {"Authorization": f"Bearer {key}"} if key else None
        return connect(
            self._socket_url + query_string, additional_headers=headers, proxy=None, open_timeout=10, compression=None
        )

    async def visitor(self) -> None:
        """Visits again and again; a gateway that goes away meanwhile is waited for."""
        while True:
            await asyncio.sleep(random.uniform(*BETWEEN_VISITS))
            try:
                await Visit(self).run()
            except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, httpx.HTTPError):
                self.counts["errors"] += 1
                await asyncio.sleep(RETURN_SECONDS)

    async def report(self) -> None:
        """A line every few seconds."""
        started = before = time.monotonic()
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            now = time.monotonic()
            seconds, self.seconds = sorted(self.seconds), []
            median = f"{seconds[len(seconds) // 2]:.2f} s" if seconds else "-"
            rate = len(seconds) / (now - before)
            before = now
            speed = f"{rate:5.1f} answers/s  median {median}"
            say(f"{now - started:5.0f} s  {self.open:3} sessions  {speed}  {self.summary()}")

    def summary(self) -> str:
        names = ("answers", "deltas", "stopped", "logins", "feedback", "resumed", "refused", "errors")
        return ", ".join(f"{name} {self.counts[name]}" for name in names)


class Visit:
    """One session, from the first frame to the last."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._session_id = self._key = ""
        self._since = ""
        self._stream = {"stream": "true"} if random.random() < WATCHING else {}

    async def run(self) -> None:
        leaves_early = random.random() < 0.25
        async with self._traffic.connect(**self._stream) as socket:
            await self._open(socket, self._talk_and_leave if leaves_early else self._talk)
        if leaves_early:
            await asyncio.sleep(random.uniform(*AWAY))
            since = {"since": self._since} if self._since else {}
            query = {"session_id": self._session_id} | since | self._stream
            async with self._traffic.connect(self._key, **query) as socket:
                self._traffic.counts["resumed"] += 1
                await self._open(socket, self._talk)

    async def _open(self, socket: ClientConnection, talk: Callable[[ClientConnection], Awaitable[None]]) -> None:
        hello = await _receive(socket)
        self._session_id, self._key = hello["session_id"], hello.get("key", self._key)
        self._traffic.open += 1
        try:
            await talk(socket)
        finally:
            self._traffic.open -= 1

    async def _talk(self, socket: ClientConnection) -> None:
        for _ in range(random.randint(2, 6)):
            what = random.choices([self._ask, self._log_in, self._be_clumsy], [12, 2, 1])[0]
            await what(socket)
            await asyncio.sleep(random.uniform(*READING))

    async def _talk_and_leave(self, socket: ClientConnection) -> None:
        await self._ask(socket)
        await self._send(socket, random.choice(FREE_QUESTIONS))  # and leaves in mid-turn

    async def _ask(self, socket: ClientConnection) -> None:
        exact = random.random() < 0.5
        frame = await self._turn(socket, random.choice(self._traffic.exact if exact else FREE_QUESTIONS))
        if frame is not None and random.random() < 0.3:
            body = {"message_id": frame["message_id"], "is_helpful": random.random() < 0.8}
            response = await self._traffic.http.post("/api/chat/feedback", json=body)
            self._traffic.counts["feedback" if response.is_success else "errors"] += 1

    async def _log_in(self, socket: ClientConnection) -> None:
        await self._turn(socket, NEEDS_LOGIN)
        if not self._traffic.persona_ids:
            return
        body = {"session_id": self._session_id, "persona_id": random.choice(self._traffic.persona_ids)}
        response = await self._traffic.http.post("/api/login", json=body)
        self._traffic.counts["logins" if response.is_success else "errors"] += 1
        if response.is_success:
            await self._next(socket)

    async def _be_clumsy(self, socket: ClientConnection) -> None:
        await socket.send("no JSON")
        while "error" not in await self._next(socket):
            pass
        self._traffic.counts["refused"] += 1

    async def _turn(self, socket: ClientConnection, message: str) -> dict[str, Any] | None:
        """The answer to a prompt, or None if it was refused. What comes before it was asked for earlier."""
        started = time.monotonic()
        message_id = await self._send(socket, message)
        stopping = asyncio.create_task(self._stop(socket, message_id)) if self._loses_patience() else None
        try:
            while (frame := await self._next(socket)).get("message_id") != message_id:
                pass
        finally:
            if stopping is not None:
                stopping.cancel()
        if "error" in frame:
            self._traffic.counts["refused"] += 1
            return None
        self._traffic.counts["answers"] += 1
        self._traffic.seconds.append(time.monotonic() - started)
        return frame

    async def _send(self, socket: ClientConnection, message: str) -> str:
        message_id = str(uuid.uuid4())
        await socket.send(json.dumps({"message_id": message_id, "message": message}, ensure_ascii=False))
        return message_id

    def _loses_patience(self) -> bool:
        return bool(self._stream) and random.random() < IMPATIENT

    async def _stop(self, socket: ClientConnection, message_id: str) -> None:
        await asyncio.sleep(random.uniform(*STOPPING))
        await socket.send(json.dumps({"type": "stop", "message_id": message_id}))

    async def _next(self, socket: ClientConnection) -> dict[str, Any]:
        """The next answer or error; what is shown of answers in the making comes before."""
        while "type" in (frame := await _receive(socket)):
            self._traffic.counts["deltas"] += frame["type"] == "delta"
        self._since = frame.get("timestamp", self._since)
        self._traffic.counts["stopped"] += frame.get("stopped", False)
        return frame


async def _receive(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(ANSWER_SECONDS):
        frame: dict[str, Any] = json.loads(await socket.recv())
    return frame


def _texts(file: str, name: str) -> list[str]:
    return [row[name] for row in json.loads((DATA / file).read_text("utf-8"))]


def say(text: str) -> None:
    print(text, flush=True)


async def read_persona_ids(http: httpx.AsyncClient, base_url: str) -> list[int]:
    """Raises NoGateway."""
    try:
        response = await http.get("/api/login/personas")
        return [persona["id"] for persona in response.raise_for_status().json()["personas"]]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise NoGateway(
            f"No gateway answers at {base_url}. Start the demo first, in another terminal: make run"
        ) from error


async def send_traffic(base_url: str, minutes: float, visitors: int) -> Traffic:
    """Until the minutes are over or a signal comes. Raises NoGateway."""
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    http_url = "http" + base_url.removeprefix("ws")
    async with httpx.AsyncClient(base_url=http_url, timeout=ANSWER_SECONDS, trust_env=False) as http:
        traffic = Traffic(base_url, http, await read_persona_ids(http, base_url))
        say(f"{visitors} visitors for {minutes:g} minutes at {base_url}. Ctrl-C ends it. See {http_url}/metrics")
        tasks = [
            asyncio.create_task(traffic.report()),
            *(asyncio.create_task(traffic.visitor()) for _ in range(visitors)),
        ]
        waiting = asyncio.create_task(done.wait())
        try:
            await asyncio.wait([waiting, *tasks], timeout=minutes * 60, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (waiting, *tasks):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
    return traffic


def main() -> int:
    parser = argparse.ArgumentParser(description="Send bounded traffic to a running demo.")
    default = f"ws://127.0.0.1:{os.environ.get('PORT') or '8001'}"
    parser.add_argument("url", nargs="?", default=default, help=f"the gateway (default: {default})")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long, 60 at most (default: 3)")
    parser.add_argument("--visitors", type=int, default=30, help="how many at a time, 200 at most (default: 30)")
    options = parser.parse_args()
    if not options.url.startswith(("ws://", "wss://")):
        parser.error("the gateway is named by ws://HOST:PORT or wss://HOST")
    if not (0 < options.minutes <= 60 and 0 < options.visitors <= 200):
        parser.error("--minutes must be above 0 and at most 60, --visitors from 1 to 200")
    try:
        traffic = asyncio.run(send_traffic(options.url.rstrip("/"), options.minutes, options.visitors))
    except NoGateway as error:
        say(str(error))
        return 1
    say(f"Done: {traffic.summary()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
