"""A visitor with a WebSocket."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection

from tests.support.documents import MESSAGES, SENT_FRAME
from tests.support.gateway import Gateway
from tests.support.keys import bearer, remember
from tests.support.waiting import PATIENCE_SECONDS
from tests.support.world import unique

Frame = dict[str, Any]

PLAIN_ANSWER = {
    "sender",
    "timestamp",
    "message_id",
    "login_required",
    "message",
}  # the keys of an answer without a tool


def new_id() -> str:
    """A fresh id, as the front end makes them."""
    return str(uuid.uuid4())


class Visitor:
    """One connected session: `hello` is its first frame, `session_id` stands in it, and for a new session `key`."""

    def __init__(self, gateway: Gateway, socket: ClientConnection, hello: Frame) -> None:
        self.gateway = gateway
        self.socket = socket
        self.hello = hello
        self.session_id: str = hello["session_id"]
        self.key: str | None = hello.get("key")

    async def send(self, data: str | bytes | Frame) -> None:
        """Send a frame: text, bytes for a binary one, or an object that becomes JSON."""
        await self.socket.send(json.dumps(data, ensure_ascii=False) if isinstance(data, dict) else data)

    async def prompt(self, message: str, message_id: str | None = None, **more: Any) -> str:
        """Send a prompt as the front end does; returns its id, a fresh one unless given."""
        message_id = message_id or new_id()
        await self.send({"message_id": message_id, "message": message} | more)
        return message_id

    async def receive(self, seconds: float = PATIENCE_SECONDS) -> Frame:
        """The next frame, which must be a text frame with a JSON object; TimeoutError after `seconds`."""
        return await receive(self.socket, seconds)

    async def ask(self, message: str, seconds: float = PATIENCE_SECONDS, **more: Any) -> Frame:
        """Send a prompt and return the answer, which must be the next frame and carry the prompt's id.

        A prompt that is answered must be one as documented; a refused one need not.
        """
        message_id = await self.prompt(message, **more)
        frame = await self.receive(seconds)
        assert frame.get("message_id") == message_id, frame
        if "error" not in frame:
            MESSAGES["prompt"].assert_fits({"message_id": message_id, "message": message} | more)
        return frame

    async def nothing_pending(self) -> None:
        """Assert that no frame is on its way, by provoking an error and finding it next."""
        await self.send("no JSON")
        assert await self.receive() == {"error": "Invalid JSON format"}

    async def goes_on(self) -> None:
        """Assert that the session still answers prompts, with the LLM stub's default reply."""
        text = unique("계속")
        assert (await self.ask(text))["message"] == f"re: {text}"

    async def leave(self) -> None:
        """Close the socket, with the closing handshake."""
        await self.socket.close()

    def history(self, **parameters: Any) -> list[Frame]:
        """The session's history, over HTTP."""
        path, headers = f"/api/chat/history/{self.session_id}", bearer(self.session_id)
        response = self.gateway.http.get(path, params=parameters, headers=headers)
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["session_id"] == self.session_id
        history: list[Frame] = body["history"]
        return history


async def receive(socket: ClientConnection, seconds: float = PATIENCE_SECONDS) -> Frame:
    """The next frame of a socket, which must be a text frame with a JSON object, and as /asyncapi.json has it."""
    async with asyncio.timeout(seconds):
        data = await socket.recv()
    assert isinstance(data, str), f"a binary frame: {data!r}"
    frame = json.loads(data)
    assert isinstance(frame, dict), frame
    SENT_FRAME.assert_fits(frame)
    remember(frame)
    return frame


@asynccontextmanager
async def visit(gateway: Gateway, **options: Any) -> AsyncIterator[Visitor]:
    """Open a session and read its hello frame; options are those of `Gateway.connect`."""
    async with gateway.connect(**options) as socket:
        yield Visitor(gateway, socket, await receive(socket))
