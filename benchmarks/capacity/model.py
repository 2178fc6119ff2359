"""What a number of visitors costs, from what one of each thing costs: `Units` are measured, the rest is arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

SECONDS_A_MONTH = 30 * 86_400
# Of one core. One process is one event loop; above this a short burst would make everybody wait.
TARGET_LOAD = 0.6
# What one PostgreSQL is taken to bear: a machine with 16 cores, half of them busy, and disks with a cache that holds
# through a power cut. What yours bears is told by `pgbench -N` on it.
POSTGRES_CORES, POSTGRES_COMMITS, POSTGRES_CONNECTIONS, NOTIFIES = 8.0, 20_000.0, 500, 5_000.0
POOL_CONNECTIONS = 8 + 1  # an instance's to ChatDB: DB_POOL_SIZE, and LISTEN


@dataclass(frozen=True)
class Units:
    """What was measured on one instance. Milliseconds are of CPU, of the gateway or (`_db`) of PostgreSQL.

    A turn costs most when it is alone, and less the more there are; so the costs of a turn are measured at two rates.
    """

    quiet_rate: float  # LLM turns a second of an instance, at which the figures with `quiet` were measured
    busy_rate: float
    turn_quiet_ms: float
    turn_busy_ms: float
    turn_quiet_db_ms: float
    turn_busy_db_ms: float
    statements_quiet: float  # of a turn
    statements_busy: float
    commits_quiet: float
    commits_busy: float
    piece_us: float  # of a streamed answer, shown
    session_us: float  # a second, of one that says nothing: pings and pongs
    instance_ms: float  # a second, of an instance without visitors
    instance_db_ms: float
    instance_statements: float  # a second
    instance_commits: float
    session_kb: float
    instance_mb: float
    open_ms: float  # a handshake, new or resumed
    open_db_ms: float
    wal_bytes: float  # of a turn with a short answer
    wal_streamed_bytes: float  # with one of as many pieces as were streamed
    stored_bytes: float  # likewise, indexes included
    stored_streamed_bytes: float


@dataclass(frozen=True)
class Visitors:
    """Who comes. Shares are of 1; an answer of the LLM server takes `answer_seconds`, in `pieces` if it is streamed."""

    sessions: int
    prompts_per_hour: float
    streamed: float
    known: float = 0.0  # asked exactly as the FAQ or a term has it; taken for as dear as the others
    pieces: int = 100
    logins_per_hour: float = 0.2
    visit_minutes: float = 15.0
    resumes_per_hour: float = 1.0  # networks that change, phones that sleep

    @property
    def turns(self) -> float:
        """A second."""
        return self.sessions * self.prompts_per_hour / 3600

    @property
    def openings(self) -> float:
        """Handshakes a second."""
        return self.sessions * (1 / (self.visit_minutes * 60) + self.resumes_per_hour / 3600)

    @property
    def streamed_pieces(self) -> float:
        """A second."""
        return self.turns * (1 - self.known) * self.streamed * self.pieces


@dataclass(frozen=True)
class Line:
    """One figure, with where it comes from."""

    name: str
    value: float
    unit: str
    formula: str


class Model:
    """Visitors on a number of instances; without one, on as many as they need."""

    def __init__(self, units: Units, visitors: Visitors, max_sessions: int, instances: int | None = None) -> None:
        self.units = units
        self.visitors = visitors
        self.instances = instances or self._instances_for(max_sessions)

    def _instances_for(self, max_sessions: int) -> int:
        count = math.ceil(self.visitors.sessions / max_sessions)
        while Model(self.units, self.visitors, max_sessions, count).core_share > TARGET_LOAD:
            count += max(1, count // 50)
        return count

    def between(self, quiet: float, busy: float) -> float:
        """A cost of a turn at this rate of turns an instance, on a straight line over the logarithm of the rate."""
        units, rate = self.units, self.visitors.turns / self.instances
        rate = min(max(rate, units.quiet_rate), units.busy_rate)
        part = math.log(rate / units.quiet_rate) / math.log(units.busy_rate / units.quiet_rate)
        return quiet + (busy - quiet) * part

    @property
    def gateway_cores(self) -> float:
        units, visitors = self.units, self.visitors
        milliseconds = (
            self.instances * units.instance_ms
            + visitors.sessions * units.session_us / 1000
            + visitors.turns * self.between(units.turn_quiet_ms, units.turn_busy_ms)
            + visitors.streamed_pieces * units.piece_us / 1000
            + visitors.openings * units.open_ms
        )
        return milliseconds / 1000

    @property
    def core_share(self) -> float:
        """Of one core, by each instance."""
        return self.gateway_cores / self.instances

    @property
    def postgres_cores(self) -> float:
        units, visitors = self.units, self.visitors
        milliseconds = (
            self.instances * units.instance_db_ms
            + visitors.turns * self.between(units.turn_quiet_db_ms, units.turn_busy_db_ms)
            + visitors.openings * units.open_db_ms
        )
        return milliseconds / 1000

    @property
    def statements(self) -> float:
        units, visitors = self.units, self.visitors
        turns = visitors.turns * self.between(units.statements_quiet, units.statements_busy)
        return turns + self.instances * units.instance_statements + 2 * visitors.openings

    @property
    def commits(self) -> float:
        """Of transactions that write."""
        units, visitors = self.units, self.visitors
        turns = visitors.turns * self.between(units.commits_quiet, units.commits_busy)
        return turns + self.instances * units.instance_commits + 2 * visitors.openings

    def of_lengths(self, short: float, streamed: float) -> float:
        """A second, of something that depends on how long an answer is."""
        visitors = self.visitors
        return visitors.turns * (short + (streamed - short) * visitors.streamed)

    @property
    def wal_bytes(self) -> float:
        return self.of_lengths(self.units.wal_bytes, self.units.wal_streamed_bytes)

    @property
    def stored_bytes(self) -> float:
        return self.of_lengths(self.units.stored_bytes, self.units.stored_streamed_bytes)

    @property
    def notifies(self) -> float:
        """Pushes whose login reached another instance, and sockets that came back on another one."""
        visitors = self.visitors
        moves = visitors.sessions * (visitors.logins_per_hour + visitors.resumes_per_hour) / 3600
        return moves * (1 - 1 / self.instances)

    def lines(self) -> Iterator[Line]:
        """The figures of a whole deployment."""
        units, visitors, count = self.units, self.visitors, self.instances
        gb = (count * units.instance_mb + visitors.sessions * units.session_kb / 1000) / 1000
        month = self.stored_bytes * SECONDS_A_MONTH / 1e9
        per_turn = "turns × what a turn takes at this rate + instances × their signs of life + 2 × handshakes"
        yield Line("turns", visitors.turns, "a second", "sessions × prompts per hour / 3600")
        yield Line("handshakes", visitors.openings, "a second", "sessions × (1 / visit + resumes per hour / 3600)")
        yield Line(
            "instances", count, "", f"sessions / MAX_SESSIONS, or more until each is below {TARGET_LOAD:g} cores"
        )
        yield Line("gateway", self.gateway_cores, "cores", "turns, pieces, pings, handshakes and instances × their CPU")
        yield Line("an instance", self.core_share, "cores", "gateway / instances")
        yield Line("memory", gb, "GB", "instances × MB at start + sessions × KB of an idle one")
        yield Line("PostgreSQL", self.postgres_cores, "cores", "turns, handshakes and instances × their CPU in it")
        yield Line("connections", count * POOL_CONNECTIONS, "", "instances × (DB_POOL_SIZE + 1)")
        yield Line("statements", self.statements, "a second", per_turn)
        yield Line("commits", self.commits, "a second", "likewise, of what writes")
        yield Line("NOTIFYs", self.notifies, "a second", "sessions × (logins + resumes) per hour / 3600 × (1 - 1 / n)")
        yield Line("WAL", self.wal_bytes / 1e6, "MB a second", "turns × WAL of a turn, by the length of its answer")
        yield Line("storage", month, "GB a month", "turns × bytes of a turn with its indexes, by its answer × 30 days")

    def shares(self) -> list[tuple[str, float]]:
        """What is used of what one PostgreSQL bears, the dearest first: that gives out first."""
        used = {
            "PostgreSQL's cores": self.postgres_cores / POSTGRES_CORES,
            "commits": self.commits / POSTGRES_COMMITS,
            "connections": self.instances * POOL_CONNECTIONS / POSTGRES_CONNECTIONS,
            "NOTIFYs": self.notifies / NOTIFIES,
        }
        return sorted(used.items(), key=lambda item: -item[1])
