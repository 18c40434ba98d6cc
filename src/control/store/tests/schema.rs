//! The two databases' migrations lead to the same tables.

use super::*;
use crate::store::sql::Sql;

fn open(url: &DatabaseUrl) -> Sql {
    Sql::open(url, StoreConfig::default(), watch::channel(false).1).unwrap()
}

/// The rows of a query as lines, sorted.
fn lines(sql: &mut Sql, query: &str) -> Vec<String> {
    let rows = sql.query(query, &[]).unwrap();
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let (of, what): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
            let (yes, more): (i64, String) = (row.get(2).unwrap(), row.get(3).unwrap());
            let more = more.replace(['(', ')'], "").to_lowercase();
            format!("{of} {what} {yes} {more}")
        })
        .collect();
    lines.sort();
    lines
}

/// Table, column, whether it may not be empty, kind of value.
const COLUMNS: [&str; 2] = [
    "SELECT t.name, c.name, c.\"notnull\" OR c.pk > 0, c.type
     FROM sqlite_master AS t, pragma_table_info(t.name) AS c
     WHERE t.type = 'table' AND t.name <> 'refinery_schema_history'",
    "SELECT table_name::text, column_name::text, CASE is_nullable WHEN 'NO' THEN 1 ELSE 0 END,
         CASE data_type WHEN 'text' THEN 'text' WHEN 'bytea' THEN 'blob' WHEN 'bigint' THEN 'integer'
             WHEN 'integer' THEN 'integer' WHEN 'smallint' THEN 'integer' ELSE data_type END
     FROM information_schema.columns
     WHERE table_schema = 'public' AND table_name <> 'refinery_schema_history'",
];

/// Table, columns of an index or a primary key in order, whether it is unique, its condition.
const INDEXES: [&str; 2] = [
    "SELECT t.name, (SELECT group_concat(name) FROM
             (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno)), i.\"unique\",
         CASE i.partial WHEN 1 THEN substr(m.sql, instr(m.sql, ' WHERE ') + 7) ELSE '' END
     FROM sqlite_master AS t, pragma_index_list(t.name) AS i, sqlite_master AS m
     WHERE t.type = 'table' AND t.name <> 'refinery_schema_history' AND i.origin <> 'pk'
         AND m.type = 'index' AND m.name = i.name
     UNION ALL
     SELECT t.name, (SELECT group_concat(name) FROM
             (SELECT name FROM pragma_table_info(t.name) WHERE pk > 0 ORDER BY pk)), 1, ''
     FROM sqlite_master AS t WHERE t.type = 'table' AND t.name <> 'refinery_schema_history'",
    "SELECT t.relname::text,
         (SELECT string_agg(a.attname, ',' ORDER BY k.place)
          FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
          JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = k.number)::text,
         CASE WHEN i.indisunique THEN 1 ELSE 0 END,
         coalesce(pg_get_expr(i.indpred, i.indrelid), '')
     FROM pg_index AS i JOIN pg_class AS t ON t.oid = i.indrelid
     WHERE t.relnamespace = 'public'::regnamespace AND t.relname <> 'refinery_schema_history'",
];

#[tokio::test]
async fn both_databases_have_the_same_columns_and_indexes() {
    let Some(fresh) = Fresh::postgres().await else { return };
    let url = fresh.url.clone();
    // The connection has a runtime of its own.
    let compared = std::thread::spawn(move || {
        let (mut sqlite, mut postgres) = (open(&DatabaseUrl::Memory), open(&url));
        for [in_sqlite, in_postgres] in [COLUMNS, INDEXES] {
            let expected = lines(&mut sqlite, in_sqlite);
            assert!(expected.len() > 20, "{expected:?}");
            assert_eq!(lines(&mut postgres, in_postgres), expected);
        }
    });
    compared.join().unwrap();
    fresh.drop().await;
}
