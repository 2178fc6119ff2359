"""SQL in files: each statement is one file, named after what it does."""

from __future__ import annotations

import re
from pathlib import Path

SQL = Path(__file__).parent.parent / "sql"
_COLUMNS = re.compile(r"WITH ORDINALITY AS \w+ \(([\w, ]+)\)")


def load_statements(folder: str) -> dict[str, str]:
    """The statements of sql/<folder> by file name. Raises ValueError for one without its first comment line."""
    statements = {path.stem: path.read_text("utf-8") for path in sorted((SQL / folder).glob("*.sql"))}
    for name, text in statements.items():
        if not text.startswith("-- ") or text.rstrip().endswith(";"):
            raise ValueError(f"sql/{folder}/{name}.sql: a comment line first, then one statement without a semicolon")
    return statements


def check_columns(name: str, text: str, columns: tuple[str, ...]) -> None:
    """Raises ValueError unless a batched statement takes an array for each of these columns, in their order."""
    found = _COLUMNS.search(text)
    if found is None or found[1] != ", ".join((*columns, "n")):
        raise ValueError(f"{name}.sql: WITH ORDINALITY AS … ({', '.join((*columns, 'n'))}) is expected")


def list_migrations(folder: str) -> list[Path]:
    """The files of sql/<folder>/migrations in the order in which they are applied."""
    return sorted((SQL / folder / "migrations").glob("*.sql"))
