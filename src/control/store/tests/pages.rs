//! Lists go on where the page before ended: a page far behind costs no more than the first.

use super::*;
use crate::store::{
    HostFilter,
    sql::{Sql, values},
};

const ACCOUNTS: u64 = 20_000;
const PAGE: usize = 100;

/// Rows of all tables that are listed, made by the database itself.
const FILL: [&str; 6] = [
    "INSERT INTO host (id, hostname, status_since, last_seq, account_limit, created_at, updated_at)
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
     SELECT i, 'pds' || i, 0, i, 100, 0, 0 FROM n",
    "INSERT INTO account (id, did, host_id, upstream, local, rev, data, commit_hash)
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
     SELECT i, 'did:plc:' || i, i % 7 + 1, 128, i % 3 = 0, i, zeroblob(32), zeroblob(32) FROM n",
    "INSERT INTO audit (id, at, actor, remote, action, subject, detail, outcome)
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
     SELECT i, 0, '', '', '', '', '', '' FROM n",
    "INSERT INTO refused_host (hostname, reason, refused_at, retry_at, times)
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
     SELECT printf('pds%06d', i), '', 0, 9, 1 FROM n",
    "INSERT INTO collection_name (id, nsid) SELECT 1, 'com.example.likes' WHERE ?1 > 0",
    "INSERT INTO collection (account_id, name_id) SELECT id, 1 FROM account WHERE id <= ?1",
];

/// Rows and cost of a page.
fn cost<T>(
    database: &mut Database,
    page: impl FnOnce(&mut Database) -> Result<Vec<T>, StoreError>,
) -> Result<(usize, i32), StoreError> {
    let rows = page(database)?.len();
    let Sql::Sqlite(sqlite) = &database.sql else { panic!("steps are SQLite's") };
    Ok((rows, sqlite.steps))
}

#[tokio::test]
async fn deep_pages_cost_as_much_as_the_first() {
    let store = Fresh::sqlite().open();
    let costs = store.call(|database| {
        for sql in FILL {
            database.sql.execute(sql, &values![ACCOUNTS])?;
        }
        let likes = "com.example.likes";
        let filter = HostFilter { heard: true, ..HostFilter::default() };
        let deep = ACCOUNTS - 5 * PAGE as u64;
        let last = format!("pds{deep:06}");
        Ok([
            ("accounts", [0, deep].map(|at| cost(database, |d| d.accounts_after(at, PAGE)))),
            ("takedowns", [0, deep].map(|at| cost(database, |d| d.takedowns_after(at, PAGE)))),
            (
                "collections",
                [0, deep].map(|at| cost(database, |d| d.accounts_by_collection(likes, at, PAGE))),
            ),
            (
                "hosts",
                [0, deep].map(|at| cost(database, |d| d.hosts_page(&filter, at as u32, PAGE))),
            ),
            (
                "audit",
                [None, Some(2 * PAGE as u64)].map(|at| cost(database, |d| d.audit_list(at, PAGE))),
            ),
            ("refused", ["", &last].map(|at| cost(database, |d| d.refused_hosts(at, 5, PAGE)))),
        ])
    });
    for (list, pages) in costs.await.unwrap() {
        let [first, deep] = pages.map(Result::unwrap);
        assert_eq!((first.0, deep.0), (PAGE, PAGE), "{list}");
        assert!(first.1 > 0 && deep.1 <= first.1 + first.1 / 10, "{list}: {first:?} {deep:?}");
    }
}
