"""The settings: read from the environment and `.env`, checked together, reported together."""

import io
import os
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, TypeAlias

from dotenv import dotenv_values

from common import addresses

# How a text is read, and what is said of one for which that raises an error
_Kind: TypeAlias = tuple[Callable[[str], Any], str]


class InvalidSettings(Exception):
    """`problems` has a line for each setting that is missing or wrong; none shows a secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _address(text: str) -> str:
    return "127.0.0.1" if text == "localhost" else str(ip_address(text))


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def _number(minimum: float, maximum: float, *, whole: bool = False) -> _Kind:
    def read(text: str) -> float:
        if (whole and not re.fullmatch(r"-?[0-9]{1,18}", text)) or not minimum <= float(text) <= maximum:
            raise ValueError
        return int(text) if whole else float(text)

    return read, f"must be a {'whole ' if whole else ''}number from {minimum} to {maximum}"


_integer = partial(_number, whole=True)


def _choice(*names: str) -> _Kind:
    values = {name: name for name in names}
    return lambda text: values[text.lower()], f"must be one of {', '.join(names)}"


_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_BOOLEAN: _Kind = lambda text: _BOOLEANS[text.lower()], "must be true or false"
_ORIGINS = addresses.origins, "must be origins like https://chat.example.com, separated by commas"
_HTTP_URL = addresses.http_url, "must be a base URL like http://127.0.0.1:8000"
_DATABASE_URL = addresses.database_url, "must be like postgresql://user:password@host:5432/name"
_CHATDB_URL = partial(addresses.database_url, several="read-write"), _DATABASE_URL[1]
_ADDRESS = _address, "must be an address of this machine, like 0.0.0.0 or 127.0.0.1"
_NETWORKS = _networks, "must be addresses or networks like 10.0.0.0/8, separated by commas"


def _setting(kind: _Kind, default: Any = MISSING, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"kind": kind})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One field for each variable, in lower case. `.env.example` says what each is for, with its unit."""

    frontend_host: frozenset[str] = _setting(_ORIGINS)
    llmserver_url: str = _setting(_HTTP_URL, secret=True)
    mcp_server_url: str = _setting(_HTTP_URL, secret=True)
    database_url: str = _setting(_CHATDB_URL, secret=True)
    faq_database_url: str = _setting(_DATABASE_URL, secret=True)
    mcp_protocol: str = _setting(_choice("rest", "mcp"), "rest")
    httpx_timeout: float = _setting(_number(0.1, 3600), 300.0)
    environment: str = _setting(_choice("development", "production"), "development")

    host: str = _setting(_ADDRESS, "0.0.0.0")
    port: int = _setting(_integer(1, 65535), 8001)
    log_level: str = _setting(_choice("debug", "info", "warning", "error"), "info")
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting(_NETWORKS, _networks("127.0.0.1,::1"))
    metrics: bool = _setting(_BOOLEAN, True)
    chat_page: bool | None = _setting(_BOOLEAN, None)

    max_frame_bytes: int = _setting(_integer(1024, 16_777_216), 65536)
    max_prompt_chars: int = _setting(_integer(1, 1_000_000), 4000)
    max_pending_prompts: int = _setting(_integer(0, 1000), 8)
    prompts_per_minute: int = _setting(_integer(1, 1_000_000), 60)
    logins_per_minute: int = _setting(_integer(1, 1_000_000), 10)
    max_logins: int = _setting(_integer(1, 1_000_000), 100)
    max_body_bytes: int = _setting(_integer(256, 16_777_216), 65536)
    max_sessions: int = _setting(_integer(1, 1_000_000), 10_000)
    send_timeout: float = _setting(_number(0.1, 600), 10.0)
    db_timeout: float = _setting(_number(0.1, 600), 5.0)
    delta_seconds: float = _setting(_number(0.01, 10), 0.04)
    start_seconds: float = _setting(_number(0, 3600), 30.0)
    drain_seconds: float = _setting(_number(0, 3600), 25.0)
    stop_grace_seconds: float = _setting(_number(0, 86_400), 30.0)
    resume_hours: float = _setting(_number(0, 8760), 24.0)
    ping_seconds: float = _setting(_number(1, 3600), 20.0)

    web_concurrency: int = _setting(_integer(1, 1000), 1)
    db_pool_size: int = _setting(_integer(2, 1000), 8)
    faq_db_pool_size: int = _setting(_integer(1, 1000), 2)
    listen_database_url: str | None = _setting(_CHATDB_URL, None, secret=True)
    prepared_statements: bool = _setting(_BOOLEAN, True)
    max_upstream_connections: int = _setting(_integer(1, 1_000_000), 10_000)
    connect_timeout: float = _setting(_number(0.1, 600), 5.0)
    max_reply_bytes: int = _setting(_integer(1024, 1_073_741_824), 1_048_576)
    max_unstored_answers: int = _setting(_integer(0, 1_000_000), 10_000)
    qna_refresh_seconds: float = _setting(_number(0.1, 60), 20.0)
    max_qna_rows: int = _setting(_integer(100, 1_000_000), 10_000)

    @property
    def shows_chat_page(self) -> bool:
        return self.environment == "development" if self.chat_page is None else self.chat_page


def read_settings() -> Settings:
    return Settings(**read_values(*(spec.name for spec in fields(Settings))))


def read_values(*names: str) -> dict[str, Any]:
    """The settings of these names, the environment before `.env`. Raises InvalidSettings with all problems there are.

    A setting that is not given is left out, or a problem if it has no default.
    """
    environ = {**_read_dotenv(), **os.environ}
    values, problems = {}, []
    for spec in (spec for spec in fields(Settings) if spec.name in names):
        name = spec.name.upper()
        text = (environ.get(name) or "").strip()
        read, rule = spec.metadata["kind"]
        try:
            if text:
                values[spec.name] = read(text)
            elif spec.default is MISSING:
                problems.append(f"{name} is missing")
        except Exception:  # a library's own words may quote the value, so they are never shown
            problems.append(f"{name} {rule}")
    if problems:
        raise InvalidSettings(problems)
    return values


def _read_dotenv() -> dict[str, str | None]:
    try:
        text = Path(".env").read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidSettings([f".env cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidSettings([".env is not UTF-8"])
    return dotenv_values(stream=io.StringIO(text), interpolate=False)
