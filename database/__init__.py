"""PostgreSQL: pools, migrations, statements that many rows share, LISTEN and NOTIFY."""
