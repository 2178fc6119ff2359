"""Logs: JSON lines in production, readable ones in development; never what was said, never a whole session id."""

import asyncio
import hashlib
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO
from uuid import UUID

import orjson

COLOURS = {"WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[31m"}
# What uvicorn logs of every handshake that is refused with a response of our own, and of a visitor's bad UTF-8
NOT_AN_ERROR = ("ASGI callable returned without completing handshake", "Invalid UTF-8 sequence received")
FADED, PLAIN = "\033[2m", "\033[0m"


def session_hash(session_id: UUID) -> str:
    """What a log may show of a session's id, which is enough to log the session in."""
    return hashlib.blake2s(session_id.bytes, digest_size=5).hexdigest()


class EventLog:
    """`log.info("an event", name=value)`; logging's own adapter costs more."""

    _logger = logging.getLogger("gateway")

    def info(self, event: str, **fields: object) -> None:
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, exc_info: BaseException | None = None, **fields: object) -> None:
        self._logger.warning(event, exc_info=exc_info, extra={"fields": fields})

    def error(self, event: str, exc_info: BaseException | None = None, **fields: object) -> None:
        self._logger.error(event, exc_info=exc_info, extra={"fields": fields})

    def exception(self, event: str, **fields: object) -> None:
        self._logger.exception(event, extra={"fields": fields})


log = EventLog()


class JsonFormatter(logging.Formatter):
    instance_id: int | None = None

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            "instance": self.instance_id,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class ReadableFormatter(JsonFormatter):
    def format(self, record: logging.LogRecord) -> str:
        faded, plain = (FADED, PLAIN) if sys.stderr.isatty() else ("", "")
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        values = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        colour = COLOURS.get(record.levelname, "") if plain else ""
        line = f"{faded}{time}{plain} {record.levelname:7} {colour}{record.getMessage()}{plain} {faded}{values}{plain}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JoinedHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of one pass of the event loop together; warnings, and lines from outside a loop, at once."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record))
            if record.levelno >= logging.WARNING:
                self.flush()
            elif len(self._lines) == 1:
                asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:
            self.flush()
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self.stream.write("\n".join(lines) + "\n")
        super().flush()


def set_up(level: str, environment: str) -> None:
    """Sends every log of the process, uvicorn's too, to standard error in one format."""
    # What no line shows need not be looked up for every one: the caller, the thread, the process.
    logging._srcfile = None  # as logging's own documentation recommends
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = JoinedHandler()
    handler.setFormatter(JsonFormatter() if environment == "production" else ReadableFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
    uvicorn_errors = logging.getLogger("uvicorn.error")
    # Its lines about single requests and sockets would show paths with session ids.
    uvicorn_errors.setLevel(logging.WARNING)
    uvicorn_errors.addFilter(lambda record: not str(record.msg).startswith(NOT_AN_ERROR))
