"""What stands around a gateway in a test, and gateways that end together."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from tests.support.backends import LlmStub, McpStub
from tests.support.gateway import ALLOWED_ORIGIN, Gateway
from tests.support.postgres import Database


@dataclass(frozen=True)
class World:
    """Everything around a gateway: two databases and two backends, and the settings that point there."""

    chatdb: Database
    card_qna: Database
    llm: LlmStub
    mcp: McpStub

    @property
    def settings(self) -> dict[str, str | None]:
        """The required settings, and the optional ones that a test may count on."""
        return {
            "FRONTEND_HOST": ALLOWED_ORIGIN,
            "LLMSERVER_URL": self.llm.url,
            "MCP_SERVER_URL": self.mcp.url,
            "DATABASE_URL": self.chatdb.url,
            "FAQ_DATABASE_URL": self.card_qna.url,
            "HTTPX_TIMEOUT": "300.0",
            "LOGINS_PER_MINUTE": "1000000",
            "MAX_LOGINS": "10000",
            "ENVIRONMENT": "development",
        }

    def turns(self, session_id: str) -> list[dict[str, Any]]:
        """The session's prompts, oldest first, each with every answer that is stored for it, or none."""
        return self.chatdb.fetch(
            "SELECT p.id::text AS prompt_id, p.content AS prompt, a.content AS answer, a.created_at,"
            " r.source_tool, r.response_payload"
            ' FROM "Chat" p'
            ' LEFT JOIN "ChatbotResponse" r ON r.prompt_chat_id = p.id'
            ' LEFT JOIN "Chat" a ON a.id = r.chat_id'
            " WHERE p.session_id = $1::text::uuid AND p.is_user ORDER BY p.created_at, a.created_at",
            session_id,
        )

    def feedback(self, session_id: str) -> list[bool | None]:
        """The feedback on the session's answers and pushes, oldest first."""
        rows = self.chatdb.fetch(
            'SELECT r.is_helpful FROM "ChatbotResponse" r JOIN "Chat" c ON c.id = r.chat_id'
            " WHERE c.session_id = $1::text::uuid ORDER BY c.created_at",
            session_id,
        )
        return [row["is_helpful"] for row in rows]


NewWorld = Callable[..., World]
NewGateway = Callable[..., Gateway]


class GatewayFactory:
    """Starts gateways and ends them together."""

    def __init__(self) -> None:
        self._gateways: list[Gateway] = []

    def make(self, world: World, **more: Any) -> Gateway:
        """Start a gateway in a world; see the fixture `new_gateway`."""
        settings = world.settings | {name: value for name, value in more.items() if name.isupper()}
        options = {name: value for name, value in more.items() if not name.isupper()}
        gateway = Gateway(settings, **options)
        self._gateways.append(gateway)
        return gateway.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for gateway in self._gateways:
            gateway.close()


_serial = itertools.count(1)


def unique(text: str) -> str:
    """`text` with a number that no other test gets: for messages whose LLM reply a test sets."""
    return f"{text} #{next(_serial)}"


def add_personas(database: Database, *names: str) -> list[int]:
    """Insert personas into a ChatDB that a gateway has brought up to date; returns their ids."""
    rows = database.fetch(
        'INSERT INTO "Persona" (name, description)'
        " SELECT name, name || '의 소비' FROM unnest($1::text[]) AS name RETURNING id",
        list(names),
    )
    return [row["id"] for row in rows]
