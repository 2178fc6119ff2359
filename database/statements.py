"""The SQL files that may be run on a database, and the schema in which their tables are."""

import re
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


# Tables that are together in one schema; the first three tell in which
_TOGETHER: dict[str, list[tuple[str, ...]]] = {
    "chatdb": [
        ('"ChatSession"', '"Chat"', '"ChatbotResponse"', '"Persona"', '"Turn"', '"Instance"', '"SchemaMigration"')
    ],
    "card_qna_db": [("faqs",), ("terms",)],
}


async def _find_schema(connection: Any, tables: tuple[str, ...], are_ours: bool) -> str | None:
    """The schema of these tables, quoted; None if there are none. Raises Unusable if it is not clear."""
    names = [name.strip('"') for name in tables[:3]]
    found = await connection.fetch(_FIND, names, [*("rp" if are_ours else "rpfvm")])
    schemas = sorted({row["schema"] for row in found if row["is_on_path"]})
    if len(schemas) > 1:
        both = " and ".join(schemas)
        raise Unusable(f"there are tables {names[0]} in the schemas {both}: rename or remove those that are not meant")
    if found and not schemas:
        where = found[0]["schema"]
        raise Unusable(f"the table {names[0]} is in the schema {where}, which is not in the role's search_path")
    if are_ours and not found:
        schemas = [await connection.fetchval("SELECT quote_ident(current_schema())")]
    return schemas[0] if schemas else None


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
        self._are_ours = folder == "chatdb"
        self._unplaced = _TOGETHER[folder]

    def __getitem__(self, name: str) -> str:
        return self.texts[name]

    async def place(self, connection: Any) -> None:
        """Decides once for all connections in which schema the tables are. Raises Unusable if it is not clear."""
        for tables in self._unplaced:
            if schema := await _find_schema(connection, tables, self._are_ours):
                names = re.compile(rf'(?<![\w."])({"|".join(tables)})(?![\w."])')
                self.texts = {name: names.sub(rf"{schema}.\1", text) for name, text in self.texts.items()}
                self.schema = schema
                self._unplaced = [others for others in self._unplaced if others != tables]
