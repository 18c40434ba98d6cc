//! A database copied into another one, of the same kind or the other.

use std::collections::HashMap;

use tokio::sync::watch;

use super::{
    DatabaseUrl, StoreConfig, StoreError,
    sql::{Columns, Durability, Row, Sql, Type, Value, values},
};

/// Rows read and written at a time.
const BATCH: usize = 10_000;

/// A table in the order of its key.
struct Table {
    name: &'static str,
    /// The columns that are its key come first.
    key: usize,
    columns: &'static Columns,
}

use Type::{Bytes, Int, Text};

/// All tables but the migrations' own. A test holds them against both databases.
const TABLES: [Table; 15] = [
    Table {
        name: "host",
        key: 1,
        columns: &[
            ("id", Int),
            ("hostname", Text),
            ("no_ssl", Int),
            ("status", Text),
            ("status_reason", Text),
            ("status_since", Int),
            ("trusted", Int),
            ("strictness", Text),
            ("last_seq", Int),
            ("account_count", Int),
            ("account_limit", Int),
            ("per_second", Int),
            ("per_hour", Int),
            ("per_day", Int),
            ("account_limit_alerts_silenced", Int),
            ("account_limit_alert_state", Text),
            ("account_limit_alert_sent_at", Int),
            ("last_error", Text),
            ("last_error_at", Int),
            ("by_admin", Int),
            ("created_at", Int),
            ("updated_at", Int),
            ("did", Text),
            ("status_until", Int),
            ("failures", Int),
            ("next_attempt_at", Int),
            ("quarantine_count", Int),
            ("well_formed", Int),
            ("strictness_since", Int),
            ("log_floor", Int),
        ],
    },
    Table {
        name: "account",
        key: 1,
        columns: &[
            ("id", Int),
            ("did", Text),
            ("host_id", Int),
            ("upstream", Int),
            ("local", Int),
            ("rev", Int),
            ("data", Bytes),
            ("commit_hash", Bytes),
            ("created_at", Int),
            ("announced", Int),
        ],
    },
    Table {
        name: "identity",
        key: 1,
        columns: &[
            ("account_id", Int),
            ("key", Bytes),
            ("pds", Text),
            ("pds_tls", Int),
            ("handle", Text),
            ("fetched_at", Int),
        ],
    },
    Table {
        name: "directory",
        key: 1,
        columns: &[
            ("did", Text),
            ("key", Bytes),
            ("pds", Text),
            ("pds_tls", Int),
            ("handle", Text),
            ("fetched_at", Int),
        ],
    },
    Table {
        name: "domain_ban",
        key: 1,
        columns: &[("id", Int), ("domain", Text), ("created_at", Int)],
    },
    Table { name: "trusted_domain", key: 1, columns: &[("domain", Text), ("created_at", Int)] },
    Table { name: "setting", key: 1, columns: &[("name", Text), ("value", Text)] },
    Table {
        name: "audit",
        key: 1,
        columns: &[
            ("id", Int),
            ("at", Int),
            ("actor", Text),
            ("remote", Text),
            ("action", Text),
            ("subject", Text),
            ("detail", Text),
            ("outcome", Text),
        ],
    },
    Table {
        name: "sibling_queue",
        key: 1,
        columns: &[
            ("id", Int),
            ("sibling", Text),
            ("method", Text),
            ("path", Text),
            ("body", Text),
            ("via", Text),
            ("created_at", Int),
            ("attempts", Int),
            ("next_at", Int),
            ("last_error", Text),
        ],
    },
    Table {
        name: "sibling_state",
        key: 1,
        columns: &[
            ("sibling", Text),
            ("delivered", Int),
            ("refused", Int),
            ("last_ok_at", Int),
            ("last_error", Text),
            ("last_error_at", Int),
        ],
    },
    Table { name: "sibling_origin", key: 1, columns: &[("origin", Int), ("number", Int)] },
    Table { name: "owed", key: 1, columns: &[("account_id", Int)] },
    Table { name: "collection_name", key: 1, columns: &[("id", Int), ("nsid", Text)] },
    Table { name: "collection", key: 2, columns: &[("name_id", Int), ("account_id", Int)] },
    Table {
        name: "discovery",
        key: 1,
        columns: &[
            ("relay", Text),
            ("last_at", Int),
            ("hosts_seen", Int),
            ("hosts_added", Int),
            ("last_error", Text),
        ],
    },
];

/// Copied at the end: a copy that was broken off has none of it, and is not taken for whole.
const META: Table = Table { name: "meta", key: 1, columns: &[("name", Text), ("value", Int)] };

const REFUSED: Table = Table {
    name: "refused_host",
    key: 1,
    columns: &[
        ("hostname", Text),
        ("reason", Text),
        ("refused_at", Int),
        ("retry_at", Int),
        ("times", Int),
    ],
};

fn tables() -> impl Iterator<Item = &'static Table> {
    TABLES.iter().chain([&REFUSED, &META])
}

/// How far a copy is.
#[derive(Clone, Copy, Debug)]
pub struct CopyProgress {
    pub table: &'static str,
    pub rows: u64,
    pub of: u64,
}

/// Copies all rows from one database to another, which must be empty, and counts them there.
///
/// No relay may run on either. Returns how many rows there are.
pub fn copy(
    from: &DatabaseUrl,
    to: &DatabaseUrl,
    progress: impl FnMut(CopyProgress),
) -> Result<u64, StoreError> {
    copy_as(from, StoreConfig { alone: true, ..StoreConfig::default() }, to, progress)
}

/// The same as of one moment, also while a relay runs on the first.
pub(super) fn copy_beside(from: &DatabaseUrl, to: &DatabaseUrl) -> Result<u64, StoreError> {
    copy_as(from, StoreConfig::default(), to, |_| {})
}

fn copy_as(
    from: &DatabaseUrl,
    as_what: StoreConfig,
    to: &DatabaseUrl,
    mut progress: impl FnMut(CopyProgress),
) -> Result<u64, StoreError> {
    if let DatabaseUrl::File(path) = from
        && !path.exists()
    {
        return Err(StoreError::Copy(format!("{from}: there is no such file")));
    }
    let (_held, never) = watch::channel(false);
    let mut source = Sql::open(from, as_what, never.clone())?;
    let alone = StoreConfig { alone: true, ..StoreConfig::default() };
    let mut target = Sql::open(to, alone, never)?;
    for sql in [&mut source, &mut target] {
        sql.set_patience(None);
    }
    refuse_rows(&mut target, to)?;
    source.freeze()?;
    let mut counts = HashMap::new();
    for table in tables() {
        let of = count(&mut source, table)?;
        copy_table(&mut source, &mut target, table, |rows| {
            progress(CopyProgress { table: table.name, rows, of });
        })?;
        counts.insert(table.name, of);
    }
    for table in tables() {
        let (there, here) = (count(&mut target, table)?, counts[table.name]);
        if there != here {
            return Err(StoreError::Copy(format!(
                "table {} has {there} rows in {to} and {here} in {from}; does a relay run on one?",
                table.name
            )));
        }
    }
    target.close()?;
    Ok(counts.values().sum())
}

fn refuse_rows(target: &mut Sql, to: &DatabaseUrl) -> Result<(), StoreError> {
    for table in TABLES.iter().chain([&REFUSED]) {
        let rows = count(target, table)?;
        if rows > 0 {
            return Err(StoreError::Copy(format!(
                "{to} is not empty: table {} has {rows} rows. Name a new database",
                table.name
            )));
        }
    }
    Ok(())
}

fn count(sql: &mut Sql, table: &Table) -> Result<u64, StoreError> {
    let count = sql.query_value(&format!("SELECT count(*) FROM {}", table.name), &[])?;
    Ok(count.unwrap_or(0))
}

fn copy_table(
    source: &mut Sql,
    target: &mut Sql,
    table: &Table,
    mut progress: impl FnMut(u64),
) -> Result<(), StoreError> {
    let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
    let of_rows: Vec<String> = names.iter().map(|name| format!("r.{name}")).collect();
    let updates: Vec<String> =
        names[table.key..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
    // The target has rows of `meta` from the start.
    let conflict = if table.name == META.name {
        format!(" ON CONFLICT (name) DO UPDATE SET {}", updates.join(", "))
    } else {
        String::new()
    };
    let insert = format!(
        "INSERT INTO {} ({}) SELECT {} FROM {{rows}} WHERE true{conflict}",
        table.name,
        names.join(", "),
        of_rows.join(", ")
    );
    let mut last: Option<Vec<Value>> = None;
    let mut copied = 0;
    loop {
        let rows = page(source, table, &names, last.as_deref())?;
        let Some(newest) = rows.last() else { return Ok(()) };
        last = Some(newest[..table.key].to_vec());
        copied += rows.len() as u64;
        target
            .transaction(Durability::Disk, |sql| sql.execute_rows(&insert, table.columns, &rows))?;
        progress(copied);
    }
}

/// The next rows in the order of the key.
fn page(
    source: &mut Sql,
    table: &Table,
    names: &[&str],
    after: Option<&[Value]>,
) -> Result<Vec<Vec<Value>>, StoreError> {
    let key = names[..table.key].join(", ");
    let places: Vec<String> = (1..=table.key).map(|number| format!("?{number}")).collect();
    let (condition, mut params) = match after {
        Some(after) => (format!("WHERE ({key}) > ({})", places.join(", ")), after.to_vec()),
        None => (String::new(), Vec::new()),
    };
    params.push(values![BATCH][0].clone());
    let sql = format!(
        "SELECT {} FROM {} {condition} ORDER BY {key} LIMIT ?{}",
        names.join(", "),
        table.name,
        params.len()
    );
    Ok(source.query(&sql, &params)?.into_iter().map(Row::into_values).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &DatabaseUrl) -> Sql {
        Sql::open(url, StoreConfig::default(), watch::channel(false).1).unwrap()
    }

    /// Tables and columns of a database, but the migrations' own.
    fn schema(sql: &mut Sql, query: &str) -> Vec<(String, Vec<String>)> {
        let mut tables: Vec<(String, Vec<String>)> = Vec::new();
        for row in sql.query(query, &[]).unwrap() {
            let (table, column): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
            match tables.last_mut() {
                Some((name, columns)) if *name == table => columns.push(column),
                _ => tables.push((table, vec![column])),
            }
        }
        tables
    }

    fn expected() -> Vec<(String, Vec<String>)> {
        let mut expected: Vec<(String, Vec<String>)> = tables()
            .map(|table| {
                let mut columns: Vec<String> =
                    table.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
                columns.sort();
                (table.name.to_owned(), columns)
            })
            .collect();
        expected.sort();
        expected
    }

    #[test]
    fn every_table_and_column_is_copied() {
        let mut sqlite = open(&DatabaseUrl::Memory);
        let query = "SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c
                     WHERE t.type = 'table' AND t.name <> 'refinery_schema_history'
                     ORDER BY t.name, c.name";
        assert_eq!(schema(&mut sqlite, query), expected());
    }

    #[tokio::test]
    async fn both_databases_have_the_same_tables() {
        crate::store::tests::on_both(async |fresh| {
            if !matches!(fresh.url, DatabaseUrl::Postgres(_)) {
                return;
            }
            let url = fresh.url.clone();
            let found = std::thread::spawn(move || {
                let mut postgres = open(&url);
                let query = "SELECT table_name::text, column_name::text
                     FROM information_schema.columns
                     WHERE table_schema = 'public' AND table_name <> 'refinery_schema_history'
                     ORDER BY table_name COLLATE \"C\", column_name COLLATE \"C\"";
                schema(&mut postgres, query)
            });
            assert_eq!(found.join().unwrap(), expected());
        })
        .await;
    }
}
