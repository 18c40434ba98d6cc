//! PostgreSQL: a connection that is made anew, with a growing pause, whenever it has broken.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::{
    runtime::Runtime,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_postgres::{
    Client, Statement,
    error::SqlState,
    types::{FromSql, IsNull, ToSql, Type as PgType, to_sql_checked},
};

use super::{Columns, Durability, HISTORY, Row, Type, VERSION, Value, refuse_newer, tls};
use crate::store::{StoreError, url::PostgresUrl};

/// Pause before the first new attempt to connect; it doubles up to the next.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that is there answers any statement of the running relay well within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// After this long without an answer to packets the connection counts as broken.
const TCP_TIMEOUT: Duration = Duration::from_secs(20);

/// First half of the key of the lock that a relay holds on its database; the other is its schema.
const LOCK: i32 = 0x7265_6c61;

mod embedded {
    #![allow(unreachable_pub, reason = "the macro makes the module public")]
    refinery::embed_migrations!("store/migrations/postgres");
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Writes, and holds the lock that keeps other relays out.
    Alone,
    /// Writes beside a relay.
    Beside,
    /// Reads beside one that writes, and so has made the tables.
    Reader,
}

impl Role {
    /// How the server lists the connection.
    fn name(self) -> &'static str {
        match self {
            Self::Alone | Self::Beside => "relayered",
            Self::Reader => "relayered reader",
        }
    }
}

pub(in crate::store) struct Postgres {
    runtime: Runtime,
    url: PostgresUrl,
    role: Role,
    gives_up: watch::Receiver<bool>,
    session: Option<Session>,
    /// The server's process that served the last session.
    served_by: i32,
    /// A transaction must not go on on another connection.
    in_transaction: bool,
    epoch: u64,
    patience: Option<Duration>,
    pause: Duration,
    retry_at: Instant,
    last_error: String,
}

struct Session {
    client: Client,
    /// Prepared statements by their text as the store writes it.
    statements: HashMap<String, Statement>,
}

impl Postgres {
    /// Connects with the first statement.
    pub(super) fn new(
        url: &PostgresUrl,
        role: Role,
        gives_up: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut config = url.config.clone();
        config
            .application_name(role.name())
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(TCP_TIMEOUT)
            .keepalives_interval(TCP_TIMEOUT / 4)
            .keepalives_retries(4)
            .tcp_user_timeout(TCP_TIMEOUT);
        Ok(Self {
            runtime,
            url: PostgresUrl { config, ..url.clone() },
            role,
            gives_up,
            session: None,
            served_by: 0,
            in_transaction: false,
            epoch: 0,
            patience: Some(PATIENCE),
            pause: PAUSE_MIN,
            retry_at: Instant::now(),
            last_error: String::new(),
        })
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    pub(super) fn close(&mut self) {
        self.session = None;
        // The connection's task says goodbye to the server.
        self.runtime.block_on(async { tokio::task::yield_now().await });
    }

    /// Connects if the connection is broken and the pause is over.
    pub(super) fn session(&mut self) -> Result<(), StoreError> {
        if self.session.as_ref().is_some_and(|session| session.client.is_closed()) {
            self.lose("the server closed the connection");
        }
        if self.session.is_some() {
            return Ok(());
        }
        if self.in_transaction || Instant::now() < self.retry_at {
            return Err(StoreError::Unreachable(self.last_error.clone()));
        }
        match self.connect() {
            Ok(session) => {
                self.session = Some(session);
                self.epoch += 1;
                self.pause = PAUSE_MIN;
                if self.epoch > 1 && self.role != Role::Reader {
                    tracing::info!("the database is back");
                }
                Ok(())
            }
            Err(error) => {
                self.retry_at = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                self.last_error = error.to_string();
                Err(error)
            }
        }
    }

    fn connect(&mut self) -> Result<Session, StoreError> {
        let Self { runtime, url, role, gives_up, served_by, .. } = self;
        let connector = tls::connector(url)?;
        let connecting = async {
            // Name look-up and TLS are not under the library's own time-out.
            let (client, connection) = timeout(CONNECT_TIMEOUT, url.config.connect(connector))
                .await
                .map_err(|_late| StoreError::Unreachable("no answer in time".into()))?
                .map_err(from_connecting)?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = %Causes(&error), "the connection to the database ended");
                }
            });
            let mut client = client;
            client
                .batch_execute("SET client_min_messages = warning; SET TimeZone = 'UTC'")
                .await
                .map_err(from_postgres)?;
            if *role == Role::Alone {
                lock(&client, served_by).await?;
            }
            if *role == Role::Reader {
                let sql = "SET default_transaction_read_only = on";
                client.batch_execute(sql).await.map_err(from_postgres)?;
            } else {
                migrate(&mut client).await?;
            }
            Ok(client)
        };
        let client = runtime.block_on(unless(gives_up, None, connecting))?;
        Ok(Session { client, statements: HashMap::new() })
    }

    fn lose(&mut self, why: &str) {
        if self.session.take().is_none() {
            return;
        }
        why.clone_into(&mut self.last_error);
        self.pause = PAUSE_MIN;
        self.retry_at = Instant::now();
        if self.role == Role::Reader {
            tracing::debug!(error = why, "a connection to the database that reads is lost");
        } else {
            tracing::error!(
                error = why,
                "the connection to the database is lost; events go on meanwhile, and the account \
                 rows follow once it is back"
            );
        }
    }

    /// Runs one statement on the connection; a fault of the connection ends it.
    fn run<T>(
        &mut self,
        text: &str,
        expand: impl FnOnce() -> String,
        params: &[&(dyn ToSql + Sync)],
        with: impl AsyncFnOnce(
            &Client,
            &Statement,
            &[&(dyn ToSql + Sync)],
        ) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        self.session()?;
        let patience = self.patience;
        let Some(session) = &mut self.session else {
            return Err(StoreError::Unreachable(self.last_error.clone()));
        };
        let work = async {
            let statement = match session.statements.get(text) {
                Some(statement) => statement.clone(),
                None => {
                    let statement = session.client.prepare(&expand()).await?;
                    session.statements.insert(text.to_owned(), statement.clone());
                    statement
                }
            };
            with(&session.client, &statement, params).await
        };
        let work = async { work.await.map_err(from_postgres) };
        let result = self.runtime.block_on(unless(&mut self.gives_up, patience, work));
        if let Err(StoreError::Unreachable(why)) = &result {
            self.lose(&why.clone());
        }
        result
    }

    pub(super) fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, StoreError> {
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|value| value as _).collect();
        let rows = self.run(
            sql,
            || dollars(sql),
            &params,
            async |client, statement, params| client.query(statement, params).await,
        )?;
        rows.iter().map(row).collect()
    }

    pub(super) fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError> {
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|value| value as _).collect();
        self.run(
            sql,
            || dollars(sql),
            &params,
            async |client, statement, params| client.execute(statement, params).await,
        )
    }

    pub(super) fn query_rows(
        &mut self,
        sql: &str,
        columns: &Columns,
        rows: &[Vec<Value>],
    ) -> Result<Vec<Row>, StoreError> {
        let arrays = arrays(columns, rows);
        let params: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|value| value as _).collect();
        let expand = || many_rows(sql, columns);
        let rows = self.run(sql, expand, &params, async |client, statement, params| {
            client.query(statement, params).await
        })?;
        rows.iter().map(row).collect()
    }

    pub(super) fn execute_rows(
        &mut self,
        sql: &str,
        columns: &Columns,
        rows: &[Vec<Value>],
    ) -> Result<u64, StoreError> {
        let arrays = arrays(columns, rows);
        let params: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|value| value as _).collect();
        let expand = || many_rows(sql, columns);
        self.run(sql, expand, &params, async |client, statement, params| {
            client.execute(statement, params).await
        })
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.session()?;
        let Some(session) = &mut self.session else {
            return Err(StoreError::Unreachable(self.last_error.clone()));
        };
        let work = async { session.client.batch_execute(sql).await.map_err(from_postgres) };
        let result = self.runtime.block_on(unless(&mut self.gives_up, Some(PATIENCE), work));
        if let Err(StoreError::Unreachable(why)) = &result {
            self.lose(&why.clone());
        }
        result
    }

    pub(super) fn begin_snapshot(&mut self) -> Result<(), StoreError> {
        self.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        self.in_transaction = true;
        Ok(())
    }

    pub(super) fn begin(&mut self, durability: Durability) -> Result<(), StoreError> {
        self.batch(match durability {
            Durability::Disk => "BEGIN",
            Durability::Log => "BEGIN; SET LOCAL synchronous_commit = off",
        })?;
        self.in_transaction = true;
        Ok(())
    }

    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        let done = self.batch("COMMIT");
        self.in_transaction = false;
        done
    }

    pub(super) fn rollback(&mut self) -> Result<(), StoreError> {
        // A lost connection has rolled back.
        let done = if self.session.is_some() { self.batch("ROLLBACK") } else { Ok(()) };
        self.in_transaction = false;
        done
    }
}

/// Waits for the server, but not beyond its patience, nor when all waiting is given up.
async fn unless<T>(
    gives_up: &mut watch::Receiver<bool>,
    patience: Option<Duration>,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let given_up = async {
        // Without any handle nobody can give up any more.
        if gives_up.wait_for(|given_up| *given_up).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        result = work => result,
        () = given_up => Err(StoreError::Unreachable("it did not answer before the end".into())),
        () = sleep(patience.unwrap_or(Duration::MAX)) => {
            Err(StoreError::Unreachable("a statement got no answer in time".into()))
        }
    }
}

async fn migrate(client: &mut Client) -> Result<(), StoreError> {
    let runner = embedded::migrations::runner();
    let sql = "SELECT to_regclass($1) IS NOT NULL";
    if client.query_one(sql, &[&HISTORY]).await.map_err(from_postgres)?.get(0) {
        let row = client.query_one(VERSION, &[]).await.map_err(from_postgres)?;
        refuse_newer(row.get(0), &runner)?;
    }
    // May take long with a large table.
    runner.run_async(client).await?;
    Ok(())
}

/// Takes the lock that tells relays of each other; it ends with the session. A session of our own
/// that the server has not missed yet is ended.
async fn lock(client: &Client, served_by: &mut i32) -> Result<(), StoreError> {
    let sql = "SELECT pg_try_advisory_lock($1, hashtext(current_schema())), pg_backend_pid()";
    let row = client.query_one(sql, &[&LOCK]).await.map_err(from_postgres)?;
    let (held, process): (bool, i32) = (row.get(0), row.get(1));
    if held {
        *served_by = process;
        return Ok(());
    }
    let sql = "SELECT a.pid, coalesce(host(a.client_addr), 'this machine'),
                      to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS'),
                      CASE WHEN a.pid = $2 THEN pg_terminate_backend(a.pid) END
               FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
               WHERE l.locktype = 'advisory' AND l.classid = $1::int8::oid AND l.objsubid = 2
                 AND l.granted AND a.datname = current_database()
                 AND l.objid = (hashtext(current_schema())::int8 & 4294967295)::oid";
    let rows = client.query(sql, &[&i64::from(LOCK), &*served_by]).await.map_err(from_postgres)?;
    let by = rows.first().map_or_else(String::new, |row| {
        let (process, address, since): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
        format!("from {address} since {since} UTC, served by process {process} there")
    });
    Err(StoreError::Taken(by))
}

/// `?1` as PostgreSQL writes it.
fn dollars(sql: &str) -> String {
    sql.replace('?', "$")
}

/// `{rows}` as a table of arrays, one for each column.
fn many_rows(sql: &str, columns: &Columns) -> String {
    let arrays: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(index, (_, kind))| {
            let kind = match kind {
                Type::Int => "bigint",
                Type::Text => "text",
                Type::Bytes => "bytea",
            };
            format!("${}::{kind}[]", index + 1)
        })
        .collect();
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let table = format!("unnest({}) AS r({})", arrays.join(", "), names.join(", "));
    sql.replace("{rows}", &table)
}

/// One column of `{rows}`.
#[derive(Debug)]
struct Array<'a>(Vec<&'a Value>);

fn arrays<'a>(columns: &Columns, rows: &'a [Vec<Value>]) -> Vec<Array<'a>> {
    (0..columns.len())
        .map(|index| Array(rows.iter().map(|row| row.get(index).unwrap_or(&Value::Null)).collect()))
        .collect()
}

impl ToSql for Array<'_> {
    fn to_sql(
        &self,
        kind: &PgType,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.0.as_slice().to_sql(kind, out)
    }

    fn accepts(kind: &PgType) -> bool {
        <&[&Value]>::accepts(kind)
    }

    to_sql_checked!();
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &PgType,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) => match *kind {
                PgType::INT2 => i16::try_from(*number)?.to_sql(kind, out),
                PgType::INT4 => i32::try_from(*number)?.to_sql(kind, out),
                PgType::INT8 => number.to_sql(kind, out),
                _ => Err(format!("a number for a parameter of type {kind}").into()),
            },
            // PostgreSQL has no way to store a zero byte in a text.
            Self::Text(text) if text.contains('\0') => {
                text.replace('\0', "\u{fffd}").to_sql(kind, out)
            }
            Self::Text(text) => text.to_sql(kind, out),
            Self::Bytes(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(_kind: &PgType) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(kind: &PgType, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *kind {
            PgType::INT2 => Self::Int(i16::from_sql(kind, raw)?.into()),
            PgType::INT4 => Self::Int(i32::from_sql(kind, raw)?.into()),
            PgType::INT8 => Self::Int(i64::from_sql(kind, raw)?),
            PgType::BOOL => Self::Int(bool::from_sql(kind, raw)?.into()),
            PgType::BYTEA => Self::Bytes(raw.to_vec()),
            _ => Self::Text(String::from_sql(kind, raw)?),
        })
    }

    fn from_sql_null(_kind: &PgType) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(_kind: &PgType) -> bool {
        true
    }
}

fn row(row: &tokio_postgres::Row) -> Result<Row, StoreError> {
    let values: Result<_, tokio_postgres::Error> =
        (0..row.len()).map(|index| row.try_get(index)).collect();
    Ok(Row(values.map_err(from_postgres)?))
}

/// An error with its causes: the library's own text says little.
struct Causes<'a>(&'a tokio_postgres::Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// Whether a server's answer means that it can't serve now but may later.
fn is_passing(state: &SqlState) -> bool {
    // 57P: the operator stops or starts the server; 08: connection; 53: out of something.
    let code = state.code();
    ["57P", "08", "53"].iter().any(|class| code.starts_with(class))
        || *state == SqlState::READ_ONLY_SQL_TRANSACTION
}

fn from_postgres(error: tokio_postgres::Error) -> StoreError {
    let passing = match error.code() {
        Some(state) => is_passing(state),
        None => error.is_closed() || error.source().is_some_and(<dyn Error>::is::<std::io::Error>),
    };
    if passing {
        return StoreError::Unreachable(Causes(&error).to_string());
    }
    StoreError::Postgres(Causes(&error).to_string())
}

/// While connecting, all that the server has not refused by name may pass.
fn from_connecting(error: tokio_postgres::Error) -> StoreError {
    match error.code() {
        Some(state) if !is_passing(state) => StoreError::Postgres(Causes(&error).to_string()),
        _ => StoreError::Unreachable(Causes(&error).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_rewritten_for_postgres() {
        assert_eq!(
            dollars("SELECT a FROM t WHERE b = ?1 AND c < ?12"),
            "SELECT a FROM t WHERE b = $1 AND c < $12"
        );
        let sql = "UPDATE t SET a = r.a FROM {rows} WHERE t.id = r.id";
        let columns = [("id", Type::Int), ("a", Type::Text)];
        assert_eq!(
            many_rows(sql, &columns),
            "UPDATE t SET a = r.a FROM unnest($1::bigint[], $2::text[]) AS r(id, a) \
             WHERE t.id = r.id"
        );
    }
}
