"""The kinds of error, and every error text that a visitor or a front-end developer can see."""

from collections.abc import Mapping
from uuid import UUID

# Why the gateway closes a WebSocket
POLICY_VIOLATION, INTERNAL_ERROR, SERVICE_RESTART, SUPERSEDED = 1008, 1011, 1012, 4001

# WebSocket error frames
INVALID_JSON = "Invalid JSON format"
INVALID_MESSAGE = "Invalid message: {}"
DB_FAILED = "Internal Server Error: DB operation failed"
UNKNOWN_ERROR = "Internal Server Error: Unknown error occurred"
RESTARTING = "Server is restarting"
TOO_MANY_PENDING = "Too many pending messages"
TOO_MANY_MESSAGES = "Too many messages"
OPENED_ELSEWHERE = "The session was opened elsewhere"
# Why a frame was refused, for the metrics
REASONS = {
    INVALID_JSON: "refused_invalid_json",
    RESTARTING: "refused_draining",
    TOO_MANY_PENDING: "refused_pending",
    TOO_MANY_MESSAGES: "refused_rate",
    DB_FAILED: "refused_database",
    UNKNOWN_ERROR: "refused_unforeseen",
}

# What the bot says when the LLM server fails
LLM_STATUS = "LLM 서버 오류 (HTTP {})"
LLM_TIMEOUT = "LLM 서버 통신 오류: 응답 시간이 초과되었습니다."
LLM_UNREACHABLE = "LLM 서버 통신 오류: 서버에 연결할 수 없습니다."
LLM_FORMAT = "LLM 서버 통신 오류: 응답 형식이 올바르지 않습니다."

# What the bot says when an answer was stopped before there was any text
STOPPED = "답변이 중지되었습니다."

# REST details
NO_ANSWER = "Nothing was answered under this message_id."
NO_SESSION = "There is no such session."
NOT_CONNECTED = "No such session is connected."
NO_PERSONA = "There is no such persona."
TOO_MANY_LOGINS = "Too many logins of this session. Try again in a minute."
LOGINS_FULL = "The server has all the logins it can handle at once. Try again."
MCP_FAILED = "The recommendation could not be made. Try again."
HEAD_TOO_LARGE = "The request's headers are too large."
BODY_TOO_LARGE = "The request body is too large."
BODY_TOO_SLOW = "The request body did not arrive in time."
FOREIGN_ORIGIN = "This origin is not allowed."
TOO_MANY_SESSIONS = "The server has all the sessions it can hold. Try again."


class GatewayError(Exception):
    """Base of the errors whose detail the caller may read; the cause is logged, not shown."""

    status_code = 500
    detail: object = DB_FAILED
    headers: Mapping[str, str] | None = None

    def __init__(self, detail: object = None) -> None:
        self.detail = detail or self.detail
        super().__init__(self.detail)


class DatabaseError(GatewayError):
    """The database failed, or took too long."""


class RowRefused(DatabaseError):
    """The database refuses this statement's values, and would do so again."""


class NotFound(GatewayError):
    status_code = 404


class TooManyLogins(GatewayError):
    """Of one session in a minute."""

    status_code, detail, headers = 429, TOO_MANY_LOGINS, {"retry-after": "60"}


class LoginsFull(GatewayError):
    """Too many at once on this instance."""

    status_code, detail, headers = 503, LOGINS_FULL, {"retry-after": "5"}


class RecommendationFailed(GatewayError):
    """The MCP server failed in any way."""

    status_code, detail = 502, MCP_FAILED


class Refused(Exception):
    """A frame that is answered with an error; the connection stays open."""

    def __init__(self, text: str, message_id: UUID | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.message_id = message_id
        self.reason = REASONS.get(text, "refused_invalid_message")
