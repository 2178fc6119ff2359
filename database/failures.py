"""What goes wrong with PostgreSQL: what may pass by itself, what does not, and what is said of it."""

import math
import time
from collections.abc import Callable

import asyncpg

LOG_SECONDS = 60.0


class Unusable(Exception):
    """The database cannot be used as it is; the text says why, and what would change it."""


ROW_REFUSED = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, ValueError)
FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, Unusable)


# Connections are being ended, or cannot be had or written to for now (a standby after a failover)
_LOST = {"57P01", "57P02", "57P03", "57P05", "25006"}
# Rollbacks for concurrency, too few resources, an object or a server in another state, a database that is not there yet
_PASSING = ("40", "53", "55", "57", "3D")


def is_lost(error: BaseException) -> bool:
    """Whether a new connection may do better."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        return not isinstance(error, Unusable | asyncpg.ClientConfigurationError)
    return state.startswith("08") or state in _LOST


def may_pass(error: BaseException) -> bool:
    """What is waited for at start, and tried again later: every statement here may be run twice."""
    return is_lost(error) or str(getattr(error, "sqlstate", "")).startswith(_PASSING)


def describe(error: BaseException) -> str:
    """An error for the log: PostgreSQL's own sentence, which names no values; otherwise the kind."""
    if isinstance(error, asyncpg.PostgresError):
        return f"{type(error).__name__}: {error.message}"
    if isinstance(error, Unusable):
        return str(error)
    return f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__


class Repeated:
    """What was logged of failing statements: the same is logged once a minute, with how often it was the case."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, str, type[BaseException]], tuple[float, int]] = {}

    def log(self, write: Callable[..., None], event: str, statement: str, error: BaseException) -> None:
        now, key = time.monotonic(), (event, statement, type(error))
        said_at, times = self._times.get(key, (-math.inf, 0))
        if is_due := now - said_at >= LOG_SECONDS:
            write(event, statement=statement, error=describe(error), times=times + 1)
        self._times[key] = (now, 0) if is_due else (said_at, times + 1)
