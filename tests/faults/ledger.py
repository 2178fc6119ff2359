"""What each fault has cost: counted from the database and from what the visitors have seen."""

import asyncio
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.scale import LONG, SETTLED_SECONDS
from tests.faults.visitors import PUSHED_BY, FrontEnd
from tests.support.chat import Frame
from tests.support.cluster import Cluster, SignsOfLife
from tests.support.postgres import Database
from tests.support.waiting import become

RESULTS = Path(__file__).parent / "results.md"


@dataclass(frozen=True)
class Row:
    """One line of the table; `sent` are prompts, `repeated` how often one was sent again."""

    fault: str
    sent: int
    repeated: int
    stored: int
    lost: int
    doubled: int
    pushes: int
    pushes_lost: int
    pushes_doubled: int
    wrong: int


HEADINGS = (
    "fault", "prompts sent", "sent again", "answers stored", "lost", "doubled",
    "pushes", "pushes lost", "pushes doubled", "wrong text",
)  # fmt: skip
rows: list[Row] = []


def _stored_answers(database: Database, visitors: Sequence[FrontEnd]) -> Counter[str]:
    found = database.fetch(
        "SELECT p.id::text AS prompt_id, count(r.chat_id) AS answers"
        ' FROM "Chat" p JOIN "ChatbotResponse" r ON r.prompt_chat_id = p.id AND r.source_tool IS DISTINCT FROM $2'
        ' JOIN "Chat" a ON a.id = r.chat_id'
        " WHERE p.is_user AND p.session_id::text = ANY ($1::text[]) GROUP BY p.id",
        [visitor.session_id for visitor in visitors],
        PUSHED_BY,
    )
    return Counter({row["prompt_id"]: row["answers"] for row in found})


def _stored_pushes(database: Database, visitor: FrontEnd) -> list[str]:
    found = database.fetch(
        'SELECT c.created_at FROM "Chat" c JOIN "ChatbotResponse" r ON r.chat_id = c.id'
        " WHERE c.session_id = $1::text::uuid AND r.source_tool = $2",
        visitor.session_id,
        PUSHED_BY,
    )
    return [row["created_at"].isoformat(timespec="microseconds") for row in found]


def count(fault: str, database: Database, visitors: Sequence[FrontEnd], logins: Counter[FrontEnd]) -> Row:
    """Lost is what is not stored, or was never seen; doubled what is stored or was seen more often than asked for.

    A prompt that is sent again entitles to one more frame of its answer, a login that succeeded to one push.
    """
    stored = _stored_answers(database, visitors)
    sent = Counter[str]()
    seen = Counter[str]()
    for visitor in visitors:
        sent += visitor.sent
        seen += Counter(frame["message_id"] for frame in visitor.answers)
    lost = sum(1 for message_id in sent if not stored[message_id] or not seen[message_id])
    doubled = sum(max(0, stored[id] - 1) + max(0, seen[id] - sent[id]) for id in stored | seen)
    pushes_lost = pushes_doubled = 0
    for visitor in visitors if logins else ():
        made = Counter(_stored_pushes(database, visitor))
        came = Counter(frame["timestamp"] for frame in visitor.pushes)
        pushes_lost += (made - came).total() + max(0, logins[visitor] - made.total())
        pushes_doubled += (came - made).total() + max(0, made.total() - logins[visitor])
    repeated = sent.total() - len(sent)
    pushes = logins.total()
    wrong = sum(len(visitor.wrong) for visitor in visitors)
    return Row(fault, len(sent), repeated, len(stored), lost, doubled, pushes, pushes_lost, pushes_doubled, wrong)


def _seen_twice(visitors: Sequence[FrontEnd]) -> list[list[Frame]]:
    return [
        frames
        for visitor in visitors
        for message_id, times in visitor.sent.items()
        if len(frames := [frame for frame in visitor.answers if frame["message_id"] == message_id]) > times
    ]


async def signs_of_life(chatdb: Database, count: int = 3) -> None:
    """Wait for so many of each instance: whatever it tries again and again, it has tried again by then."""
    signs = SignsOfLife(chatdb)
    await become(lambda: signs.all_showed(count), what=f"{count} signs of life of each instance")


async def settle(cluster: Cluster, visitors: Sequence[FrontEnd]) -> None:
    """Wait until whatever still might come has come, then come back once: with `since`, nothing is sent again."""
    chatdb, ids = cluster.world.chatdb, [visitor.session_id for visitor in visitors]

    async def nothing_open() -> bool:
        open_turns = 'SELECT count(*) FROM "Turn" WHERE session_id::text = ANY ($1::text[])'
        return not await asyncio.to_thread(chatdb.value, open_turns, ids)

    await become(nothing_open, SETTLED_SECONDS, "no turn is open")
    if LONG:
        await signs_of_life(chatdb)
    async with asyncio.timeout(SETTLED_SECONDS):
        await asyncio.gather(*(visitor.probe() for visitor in visitors))
        await asyncio.gather(*(visitor.leave() for visitor in visitors))
        for visitor in visitors:
            visitor.come()
        await asyncio.gather(*(visitor.probe() for visitor in visitors))


async def record(
    fault: str, cluster: Cluster, visitors: Sequence[FrontEnd], logins: Counter[FrontEnd] | None = None
) -> Row:
    """Settle, count, and demand that nothing is lost and nothing doubled."""
    await settle(cluster, visitors)
    row = count(fault, cluster.world.chatdb, visitors, logins or Counter())
    rows.append(row)
    problems = [problem for visitor in visitors for problem in visitor.problems]
    assert not problems, problems
    flawless = Row(fault, row.sent, row.repeated, row.sent, 0, 0, row.pushes, 0, 0, 0)
    assert row == flawless, f"{row} {_seen_twice(visitors)}"
    assert row.sent > 0, row
    return row


def table() -> str:
    """All rows so far, in Markdown."""
    lines = [HEADINGS, ("---", *["---:"] * (len(fields(Row)) - 1)), *(tuple(map(str, astuple(row))) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_results(postgres_version: str) -> None:
    """Keep the table beside the tests."""
    machine = f"{os.cpu_count()} cores, PostgreSQL {postgres_version}, Python {platform.python_version()}"
    RESULTS.write_text(
        "# What the faults have cost\n\n"
        f"Measured by `make faults` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, everything on one machine:\n"
        f"{machine}.\n\n"
        f"{table()}\n"
        "Lost: a prompt without a stored answer, or whose answer its visitor, who waited or came back, never saw.\n"
        "Doubled: a second stored answer, or a frame that came again though its prompt had not been sent again.\n"
        "Sent again: prompts repeated under their own id, after a lost socket or an error.\n"
        "Wrong text: answers that were shown while they were made, and were not how the answer began.\n",
        "utf-8",
    )
