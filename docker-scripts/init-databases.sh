#!/bin/sh
# Run by the PostgreSQL container of compose.yaml when its volume is empty: both databases, and the demo's FAQs and terms.
set -eu

psql_in() {
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$@"
}

psql_in postgres --command 'CREATE DATABASE chatdb' --command 'CREATE DATABASE card_qna_db'
psql_in card_qna_db --file "$DEMO/card_qna_db.sql"
for table in faqs terms; do
    {
        # shellcheck disable=SC2016  # psql has it expanded
        printf '\\set rows `cat "$DEMO/data/%s.json"`\n' "$table"
        printf 'PREPARE load (jsonb) AS\n'
        cat "$DEMO/load_$table.sql"
        printf ";\nEXECUTE load (:'rows');\n"
    } | psql_in card_qna_db
done
