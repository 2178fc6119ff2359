"""What goes wrong with PostgreSQL: what may pass by itself, what does not, and what is said of it."""

import math
import time
from collections.abc import Callable

import asyncpg

LOG_SECONDS = 60.0


class Unusable(Exception):
    """The database cannot be used as it is; the text says why, and what would change it."""


# The connection went away, or the server cannot be written to (a standby after a failover): a new one may do better.
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
# What may pass by itself, at start and later. Every statement here may be run twice, so it is simply run again.
PASSING = (
    *LOST,
    asyncpg.TransactionRollbackError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.InvalidCatalogNameError,
)
ROW_REFUSED = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, ValueError)
FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, Unusable)


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
