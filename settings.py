"""The settings: read from the environment and `.env`, checked together, reported together."""

import math
import os
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from dotenv import dotenv_values


class InvalidSettings(Exception):
    """`problems` has a line for each setting that is missing or wrong; none shows a secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _origins(text: str) -> frozenset[str]:
    origins = frozenset(part.strip().rstrip("/").lower() for part in text.split(",") if part.strip())
    if not origins or not all(re.fullmatch(r"https?://[^/\s?#@,*]+", origin) for origin in origins):
        raise ValueError("must be origins like https://chat.example.com, separated by commas")
    return origins


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or not _has_port(text)
    ):
        raise ValueError("must be a base URL like http://127.0.0.1:8000")
    return text.rstrip("/")


def _database_url(text: str) -> str:
    """A DSN as asyncpg reads it; SQLAlchemy's driver suffix and its `ssl=` are understood as well."""
    parts = urlsplit(text)
    query = [("sslmode" if key == "ssl" else key, value) for key, value in parse_qsl(parts.query)]
    has_host = bool(parts.hostname) or "host" in dict(query)
    if not re.fullmatch(r"(postgresql|postgres)(\+asyncpg)?", parts.scheme) or not has_host or not _has_port(text):
        raise ValueError("must be like postgresql://user:password@host:5432/name")
    return urlunsplit(parts._replace(scheme="postgresql", query=urlencode(query)))


def _has_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _address(text: str) -> str:
    try:
        return "127.0.0.1" if text == "localhost" else str(ip_address(text))
    except ValueError:
        raise ValueError("must be an address of this machine, like 0.0.0.0 or 127.0.0.1") from None


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError("must be addresses or networks like 10.0.0.0/8, separated by commas") from None


def _integer(minimum: int, maximum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return int(text)

    return read


def _seconds(minimum: float, maximum: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not minimum <= number <= maximum:
            raise ValueError(f"must be a number from {minimum:g} to {maximum:g}")
        return number

    return read


def _choice(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return text.lower()

    return read


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise ValueError("must be true or false")
    return text.lower() in ("true", "1", "yes", "on")


def _setting(read: Callable[[str], Any], default: Any = MISSING, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"read": read})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One field for each variable, in lower case. `.env.example` says what each is for, with its unit."""

    frontend_host: frozenset[str] = _setting(_origins)
    llmserver_url: str = _setting(_http_url, secret=True)
    mcp_server_url: str = _setting(_http_url, secret=True)
    database_url: str = _setting(_database_url, secret=True)
    faq_database_url: str = _setting(_database_url, secret=True)
    httpx_timeout: float = _setting(_seconds(0.1, 3600), 300.0)
    environment: str = _setting(_choice("development", "production"), "development")

    host: str = _setting(_address, "0.0.0.0")
    port: int = _setting(_integer(1, 65535), 8001)
    log_level: str = _setting(_choice("debug", "info", "warning", "error"), "info")
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting(_networks, _networks("127.0.0.1,::1"))
    metrics: bool = _setting(_boolean, True)
    chat_page: bool | None = _setting(_boolean, None)

    max_frame_bytes: int = _setting(_integer(1024, 16_777_216), 65536)
    max_prompt_chars: int = _setting(_integer(1, 1_000_000), 4000)
    max_pending_prompts: int = _setting(_integer(0, 1000), 8)
    prompts_per_minute: int = _setting(_integer(1, 1_000_000), 60)
    max_body_bytes: int = _setting(_integer(256, 16_777_216), 65536)
    max_sessions: int = _setting(_integer(1, 1_000_000), 10_000)
    send_timeout: float = _setting(_seconds(0.1, 600), 10.0)
    db_timeout: float = _setting(_seconds(0.1, 600), 5.0)
    delta_seconds: float = _setting(_seconds(0.01, 10), 0.04)
    drain_seconds: float = _setting(_seconds(0, 3600), 25.0)
    stop_grace_seconds: float = _setting(_seconds(0, 86_400), 30.0)
    resume_hours: float = _setting(_seconds(0, 8760), 24.0)
    ping_seconds: float = _setting(_seconds(1, 3600), 20.0)

    web_concurrency: int = _setting(_integer(1, 1000), 1)
    db_pool_size: int = _setting(_integer(2, 1000), 8)
    faq_db_pool_size: int = _setting(_integer(1, 1000), 2)
    listen_database_url: str | None = _setting(_database_url, None, secret=True)
    prepared_statements: bool = _setting(_boolean, True)
    max_upstream_connections: int = _setting(_integer(1, 1_000_000), 10_000)
    connect_timeout: float = _setting(_seconds(0.1, 600), 5.0)
    max_reply_bytes: int = _setting(_integer(1024, 1_073_741_824), 1_048_576)
    max_unstored_answers: int = _setting(_integer(0, 1_000_000), 10_000)
    qna_refresh_seconds: float = _setting(_seconds(0.1, 60), 20.0)
    max_qna_rows: int = _setting(_integer(100, 1_000_000), 10_000)

    @property
    def shows_chat_page(self) -> bool:
        return self.environment == "development" if self.chat_page is None else self.chat_page


def read_settings() -> Settings:
    """Reads every setting, the environment before `.env`. Raises InvalidSettings with all the problems there are."""
    return Settings(**_read(tuple(spec.name for spec in fields(Settings))))


def read_database_url() -> str:
    """DATABASE_URL alone, for a program that needs no other setting. Raises InvalidSettings."""
    return str(_read(("database_url",))["database_url"])


def _read(names: tuple[str, ...]) -> dict[str, Any]:
    environ = {name: value for name, value in dotenv_values(".env").items() if value is not None} | dict(os.environ)
    values: dict[str, Any] = {}
    problems = []
    for spec in (spec for spec in fields(Settings) if spec.name in names):
        name = spec.name.upper()
        text = environ.get(name, "").strip()
        if not text:
            if spec.default is MISSING:
                problems.append(f"{name} is missing")
            continue
        try:
            values[spec.name] = spec.metadata["read"](text)
        except ValueError as error:
            problems.append(f"{name} {error}")
    if problems:
        raise InvalidSettings(problems)
    return values
