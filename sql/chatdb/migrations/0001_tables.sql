-- The tables in the form that the FastAPI version gave them; where they exist already they are left as they are.
CREATE TABLE IF NOT EXISTS "Persona" (
    id serial PRIMARY KEY,
    name varchar(100) NOT NULL UNIQUE,
    description varchar(255),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS "ChatSession" (
    session_id char(36) PRIMARY KEY,
    persona_id integer,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS "Chat" (
    id char(36) PRIMARY KEY,
    session_id char(36) NOT NULL,
    persona_id integer,
    is_user boolean NOT NULL,
    content text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS "ChatbotResponse" (
    chat_id char(36) PRIMARY KEY,
    prompt_chat_id char(36),
    is_helpful boolean,
    source_tool text,
    response_payload json
);

CREATE INDEX IF NOT EXISTS idx_session_created ON "Chat" (session_id, created_at);
