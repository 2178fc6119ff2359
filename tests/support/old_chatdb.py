"""A ChatDB as the earlier FastAPI version made it, with its data."""

from tests.support.postgres import Database

SESSION = "0b0e7f3c-5a52-4c07-9d4e-0f1c2a3b4c01"  # logged in, with a long conversation
OTHER_SESSION = "0b0e7f3c-5a52-4c07-9d4e-0f1c2a3b4c02"  # not logged in, its last prompt was never answered
EMPTY_SESSION = "0b0e7f3c-5a52-4c07-9d4e-0f1c2a3b4c03"

PROMPT = "1a6c1f9e-0000-4000-8000-000000000001"
ANSWER = "1a6c1f9e-0000-4000-8000-000000000002"
PROMPT_WITH_TWO_ANSWERS = "1a6c1f9e-0000-4000-8000-000000000003"
FIRST_OF_TWO = "1a6c1f9e-0000-4000-8000-000000000004"
SECOND_OF_TWO = "1a6c1f9e-0000-4000-8000-000000000005"
OLD_PROMPT = "1a6c1f9e-0000-4000-8000-000000000006"
PLAIN_BOT_CHAT = "1a6c1f9e-0000-4000-8000-000000000007"  # without a row in "ChatbotResponse"
UNANSWERED = "1a6c1f9e-0000-4000-8000-000000000008"

# As SQLAlchemy writes it; the names of the constraints are those that PostgreSQL and SQLAlchemy give.
_TABLES = """
CREATE TABLE "Persona" (
    id SERIAL NOT NULL,
    name VARCHAR(100) NOT NULL,
    description VARCHAR(255),
    created_at TIMESTAMP WITH TIME ZONE {time_default} NOT NULL,
    CONSTRAINT "Persona_pkey" PRIMARY KEY (id),
    CONSTRAINT "Persona_name_key" UNIQUE (name)
);
CREATE TABLE "ChatSession" (
    session_id CHAR(36) NOT NULL,
    {session_extra}
    persona_id INTEGER,
    created_at TIMESTAMP WITH TIME ZONE {time_default} NOT NULL,
    CONSTRAINT "ChatSession_pkey" PRIMARY KEY (session_id),
    CONSTRAINT "ChatSession_persona_id_fkey" FOREIGN KEY (persona_id) REFERENCES "Persona" (id) ON DELETE SET NULL
);
CREATE TABLE "Chat" (
    id CHAR(36) NOT NULL,
    session_id CHAR(36) NOT NULL,
    persona_id INTEGER,
    is_user BOOLEAN NOT NULL,
    content {content_type} NOT NULL,
    {chat_extra}
    created_at TIMESTAMP WITH TIME ZONE {time_default} NOT NULL,
    CONSTRAINT "Chat_pkey" PRIMARY KEY (id),
    CONSTRAINT "Chat_session_id_fkey" FOREIGN KEY (session_id)
        REFERENCES "ChatSession" (session_id) ON DELETE CASCADE,
    CONSTRAINT "Chat_persona_id_fkey" FOREIGN KEY (persona_id) REFERENCES "Persona" (id) ON DELETE SET NULL
);
CREATE INDEX idx_session_created ON "Chat" (session_id, created_at);
CREATE TABLE "ChatbotResponse" (
    chat_id CHAR(36) NOT NULL,
    prompt_chat_id CHAR(36),
    is_helpful BOOLEAN,
    source_tool VARCHAR(50),
    {response_extra}
    response_payload JSON,
    CONSTRAINT "ChatbotResponse_pkey" PRIMARY KEY (chat_id),
    CONSTRAINT "ChatbotResponse_chat_id_fkey" FOREIGN KEY (chat_id) REFERENCES "Chat" (id) ON DELETE CASCADE,
    CONSTRAINT "ChatbotResponse_prompt_chat_id_fkey" FOREIGN KEY (prompt_chat_id)
        REFERENCES "Chat" (id) ON DELETE CASCADE
);
"""

_ROWS = f"""
INSERT INTO "Persona" (name, description, created_at) VALUES
    ('옛 사람', '카페와 편의점', '2025-01-02 03:04:05.678901+09'),
    ('지운 사람', NULL, '2025-01-02 03:04:06+09'),
    ('다른 사람', '', '2025-01-02 03:04:07+09');
DELETE FROM "Persona" WHERE name = '지운 사람';
INSERT INTO "ChatSession" (session_id, persona_id, created_at) VALUES
    ('{SESSION}', 1, '2025-03-01 10:00:00+09'),
    ('{OTHER_SESSION}', NULL, '2025-03-02 10:00:00+09'),
    ('{EMPTY_SESSION}', 3, '2025-03-03 10:00:00+09');
INSERT INTO "Chat" (id, session_id, persona_id, is_user, content, created_at) VALUES
    ('{PROMPT}', '{SESSION}', NULL, true, '안녕하세요 😀', '2025-03-01 10:00:01.000001+09'),
    ('{ANSWER}', '{SESSION}', NULL, false, '무엇을 도와드릴까요?', '2025-03-01 10:00:02.000002+09'),
    ('{PROMPT_WITH_TWO_ANSWERS}', '{SESSION}', 1, true, '내 소비에 맞는 카드는?', '2025-03-01 10:00:03+09'),
    ('{FIRST_OF_TWO}', '{SESSION}', 1, false, '로그인이 필요합니다.', '2025-03-01 10:00:04+09'),
    ('{SECOND_OF_TWO}', '{SESSION}', 1, false, '이 카드를 추천합니다.', '2025-03-01 10:00:05+09'),
    ('{OLD_PROMPT}', '{OTHER_SESSION}', NULL, true, '리볼빙', '2025-03-02 10:00:01+09'),
    ('{PLAIN_BOT_CHAT}', '{OTHER_SESSION}', NULL, false, '나누어 내는 방식입니다.', '2025-03-02 10:00:02+09'),
    ('{UNANSWERED}', '{OTHER_SESSION}', NULL, true, '그럼 수수료는?', '2025-03-02 10:00:03+09');
INSERT INTO "ChatbotResponse" (chat_id, prompt_chat_id, is_helpful, source_tool, response_payload) VALUES
    ('{ANSWER}', '{PROMPT}', true, NULL, 'null'),
    ('{FIRST_OF_TWO}', '{PROMPT_WITH_TWO_ANSWERS}', NULL, 'consumption_recommend', '{{"login_required": true}}'),
    ('{SECOND_OF_TWO}', '{PROMPT_WITH_TWO_ANSWERS}', NULL, 'consumption_recommend',
     '{{"card_list": ["카드의정석2"], "login_required": false, "card_list": ["카드의정석2", "나카드"]}}');
"""

_CONVERSATIONS = {
    SESSION: [
        (True, "안녕하세요 😀"),
        (False, "무엇을 도와드릴까요?"),
        (True, "내 소비에 맞는 카드는?"),
        (False, "로그인이 필요합니다."),
        (False, "이 카드를 추천합니다."),
    ],
    OTHER_SESSION: [(True, "리볼빙"), (False, "나누어 내는 방식입니다."), (True, "그럼 수수료는?")],
    EMPTY_SESSION: [],
}


def conversation(session_id: str) -> list[tuple[bool, str]]:
    """What was said in a session, as (is_user, content), oldest first."""
    return list(_CONVERSATIONS[session_id])


def build_old_chatdb(database: Database, *, with_further_columns: bool = False) -> Database:
    """Create the old tables with rows in an empty database, and return it.

    `with_further_columns`: each table has a column more that is NOT NULL without a default, which the old program
    filled in, the times have no default either, and the texts are VARCHAR.
    """
    extra = "NOT NULL," if with_further_columns else ""
    database.execute(
        _TABLES.format(
            time_default="" if with_further_columns else "DEFAULT now()",
            content_type="VARCHAR" if with_further_columns else "TEXT",
            session_extra=extra and f"user_agent VARCHAR(255) {extra}",
            chat_extra=extra and f"tokens INTEGER {extra}",
            response_extra=extra and f"latency_ms INTEGER {extra}",
        )
    )
    rows = _ROWS
    if with_further_columns:
        fill = "ALTER TABLE {} ALTER COLUMN {} SET DEFAULT {};"
        unfill = "ALTER TABLE {} ALTER COLUMN {} DROP DEFAULT;"
        columns = [('"ChatSession"', "user_agent", "'x'"), ('"Chat"', "tokens", "7")]
        columns += [('"ChatbotResponse"', "latency_ms", "12")]
        rows = "".join(fill.format(*column) for column in columns) + rows
        rows += "".join(unfill.format(*column[:2]) for column in columns)
    database.execute(rows)
    return database
