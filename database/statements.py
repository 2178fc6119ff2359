"""The SQL files that may be run on a database, and the schema in which their tables are."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from database.failures import Unusable

SQL = Path(__file__).parent.parent / "sql"
_FIND = """
SELECT quote_ident(n.nspname) AS schema, n.nspname = ANY (current_schemas(false)) AS is_on_path
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = ANY ($1) AND c.relkind::text = ANY ($2) AND NOT pg_is_other_temp_schema(n.oid)
  AND (n.nspname = ANY (current_schemas(false)) OR has_table_privilege(c.oid, 'INSERT'))
"""


@dataclass(frozen=True)
class Tables:
    """Tables of one schema, the one that has any of those that they are `known_by`, as a relation of these `kinds`."""

    known_by: tuple[str, ...]
    kinds: str
    others: tuple[str, ...] = ()
    are_ours: bool = False

    async def find_schema(self, connection: Any) -> str | None:
        """The schema, quoted. None if there are no such tables yet. Raises Unusable if it is not clear."""
        names = [name.strip('"') for name in self.known_by]
        found = await connection.fetch(_FIND, names, [*self.kinds])
        schemas = sorted({row["schema"] for row in found if row["is_on_path"]})
        if len(schemas) > 1:
            both = " and ".join(schemas)
            raise Unusable(
                f"there are tables {names[0]} in the schemas {both}: rename or remove those that are not meant"
            )
        if found and not schemas:
            where = found[0]["schema"]
            raise Unusable(f"the table {names[0]} is in the schema {where}, which is not in the role's search_path")
        if self.are_ours and not found:
            schemas = [await connection.fetchval("SELECT quote_ident(current_schema())")]
        return schemas[0] if schemas else None


_OURS = (
    ('"ChatSession"', '"Chat"', '"ChatbotResponse"'),
    "rp",
    ('"Persona"', '"Instance"', '"Turn"', '"SchemaMigration"'),
)
TABLES = {"chatdb": [Tables(*_OURS, True)], "card_qna_db": [Tables(("faqs",), "rpfvm"), Tables(("terms",), "rpfvm")]}


class Statements:
    """The statements of sql/<folder> by file name. Raises ValueError for one without its first comment line."""

    def __init__(self, folder: str) -> None:
        self.texts = {path.stem: path.read_text("utf-8") for path in sorted((SQL / folder).glob("*.sql"))}
        for name, text in self.texts.items():
            if not text.startswith("-- ") or text.rstrip().endswith(";"):
                raise ValueError(
                    f"sql/{folder}/{name}.sql: a comment line first, then one statement without a semicolon"
                )
        self.schema: str | None = None
        self._unplaced = TABLES[folder]

    def __getitem__(self, name: str) -> str:
        return self.texts[name]

    async def place(self, connection: Any) -> None:
        """Decides once for all connections in which schema the tables are. Raises Unusable if it is not clear."""
        for tables in self._unplaced:
            if schema := await tables.find_schema(connection):
                names = re.compile(rf'(?<![\w."])({"|".join(tables.known_by + tables.others)})(?![\w."])')
                self.texts = {name: names.sub(rf"{schema}.\1", text) for name, text in self.texts.items()}
                self.schema = schema
                self._unplaced = [other for other in self._unplaced if other is not tables]
