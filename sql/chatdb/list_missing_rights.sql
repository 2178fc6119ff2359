-- What an administrator has to run so that the role may use the tables in schema $1, and change them if $2.
WITH needed AS (
    SELECT c.oid, c.relowner, c.relname, n.privileges
    FROM (VALUES ('SchemaMigration', 'SELECT'), ('Persona', 'SELECT'), ('ChatSession', 'SELECT, INSERT, UPDATE'),
                 ('Chat', 'SELECT, INSERT, UPDATE'), ('ChatbotResponse', 'SELECT, INSERT, UPDATE'),
                 ('Turn', 'SELECT, INSERT, UPDATE, DELETE'), ('Instance', 'SELECT, INSERT, UPDATE, DELETE')
    ) AS n (name, privileges) JOIN pg_class c ON c.relname = n.name AND c.relnamespace = $1::text::regnamespace
)
SELECT format('GRANT USAGE ON SCHEMA %s TO %I', $1, current_user) AS remedy
WHERE NOT has_schema_privilege($1::text::regnamespace, 'USAGE')
UNION ALL
SELECT format('GRANT CREATE ON SCHEMA %s TO %I', $1, current_user)
WHERE $2::boolean AND NOT has_schema_privilege($1::text::regnamespace, 'CREATE')
UNION ALL
SELECT format('ALTER TABLE %s.%I OWNER TO %I', $1, relname, current_user) FROM needed
WHERE $2 AND NOT pg_has_role(relowner, 'USAGE')
UNION ALL
SELECT format('GRANT %s ON %s.%I TO %I', string_agg(privilege, ', '), $1, relname, current_user)
FROM needed, unnest(string_to_array(privileges, ', ')) AS privilege
WHERE NOT has_table_privilege(oid, privilege) GROUP BY relname
