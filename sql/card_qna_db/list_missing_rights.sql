-- What an administrator has to run so that the role may read the tables and count views.
SELECT format('GRANT %s ON %s TO %I', needed.privilege, found.name, current_user) AS remedy
FROM (VALUES (to_regclass('faqs')), (to_regclass('terms'))) AS found (name),
     (VALUES ('SELECT'), ('UPDATE (views)')) AS needed (privilege)
WHERE NOT CASE needed.privilege WHEN 'SELECT' THEN has_table_privilege(found.name, 'SELECT')
                                ELSE has_column_privilege(found.name, 'views', 'UPDATE') END
