"""Schema, statements, the ChatDB of the earlier version, and a database that fails."""
