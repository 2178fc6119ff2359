"""Fills "Persona" from a JSON file: adds new ones, updates descriptions, keeps ids; a bad file changes nothing."""

import argparse
import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from database.failures import FAILED, describe
from database.migrations import CannotStart, migrate
from database.pool import Database
from settings import InvalidSettings, read_values

PERSONAS = Path(__file__).parent / "data" / "personas.json"
MAX_NAME, MAX_DESCRIPTION = 100, 255
TIMEOUT = 10.0  # seconds for each statement


class BadFile(Exception):
    """Names the file, and every entry and field that is wrong."""


def read_personas(path: Path) -> list[tuple[str, str | None]]:
    """Name and description of each entry. Raises BadFile."""
    try:
        entries = orjson.loads(path.read_bytes())
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise BadFile(f"{path}: not JSON: {error}") from None
    if not isinstance(entries, list):
        raise BadFile(f"{path}: must be a list of personas")
    problems, names = list[str](), dict[str, int]()
    for number, entry in enumerate(entries, 1):
        problem = _problem(entry)
        if problem is None and (first := names.setdefault(entry["name"], number)) != number:
            problem = f'"name" is the same as in entry {first}'
        if problem is not None:
            problems.append(f"{path}: entry {number}: {problem}")
    if problems:
        raise BadFile("\n".join(problems))
    return [(entry["name"], entry.get("description")) for entry in entries]


def _problem(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "must be an object"
    name, description = entry.get("name"), entry.get("description")
    if not isinstance(name, str) or not name.strip():
        return '"name" must be a text that is not blank'
    if not isinstance(description, str | None):
        return '"description" must be a text or null'
    for field, text, longest in (("name", name, MAX_NAME), ("description", description or "", MAX_DESCRIPTION)):
        if len(text) > longest or "\0" in text:
            return f'"{field}" must have at most {longest} characters, and no NUL'
    return None


async def seed(personas: list[tuple[str, str | None]], database_url: str, prepared_statements: bool = True) -> str:
    """Brings the table up to date in one transaction; a summary. Raises CannotStart and FAILED."""
    database = Database("chatdb", database_url, 1, TIMEOUT, prepared_statements)
    await database.open()
    try:
        await migrate(database)
        upsert = database.statements["upsert_persona"]
        async with database.transaction() as connection:
            rows = [await connection.fetchrow(upsert, *persona, timeout=TIMEOUT) for persona in personas]
    finally:
        await database.close()
    changes = Counter(None if row is None else row["added"] for row in rows)
    return f"{changes[True]} added, {changes[False]} updated, {changes[None]} unchanged"


def main() -> int:
    where = "DATABASE_URL says where ChatDB is, in the environment or in .env."
    parser = argparse.ArgumentParser(description=__doc__, epilog=where)
    form = '[{"name": ..., "description": ...}, ...]; default: data/personas.json'
    parser.add_argument("file", nargs="?", type=Path, default=PERSONAS, metavar="FILE", help=form)
    arguments = parser.parse_args()
    try:
        personas = read_personas(arguments.file)
        print(asyncio.run(seed(personas, **read_values("database_url", "prepared_statements"))))
    except (BadFile, InvalidSettings) as error:
        print(error, file=sys.stderr)
        return 2
    except CannotStart as error:
        print(error, file=sys.stderr)
        return 1
    except FAILED as error:
        print(f"ChatDB: {describe(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
