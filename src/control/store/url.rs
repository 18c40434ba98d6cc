//! `DATABASE_URL` in all the forms that operators have in their configuration.

use std::{fmt, path::PathBuf};

use tokio_postgres::config::SslMode;

use super::StoreError;

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// Lost when the process ends; for tests and trials.
    Memory,
    File(PathBuf),
    Postgres(Box<PostgresUrl>),
}

/// How to reach a PostgreSQL server.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    pub(super) config: tokio_postgres::Config,
    pub(super) check: TlsCheck,
    /// A PEM file; `None`: what the system trusts.
    pub(super) root_certificates: Option<PathBuf>,
}

/// What is looked at in the server's certificate, if there is TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsCheck {
    /// `sslmode=prefer` (the default) and `require`.
    Nothing,
    /// `sslmode=verify-ca`.
    Issuer,
    /// `sslmode=verify-full`.
    Name,
}

impl DatabaseUrl {
    /// `sqlite://path`, `sqlite:///absolute/path`, `sqlite=path`, `sqlite://:memory:`,
    /// `postgres://…`, `postgresql://…`, `postgres=key=value …`.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let sqlite = ["sqlite://", "sqlite=", "sqlite3://"]
            .into_iter()
            .find_map(|prefix| text.strip_prefix(prefix));
        match sqlite {
            Some("") => return Err(refused(text, "the path after sqlite:// is missing")),
            Some(":memory:") => return Ok(Self::Memory),
            Some(path) => return Ok(Self::File(PathBuf::from(path))),
            None => {}
        }
        let parsed = if let Some(pairs) = text.strip_prefix("postgres=") {
            PostgresUrl::from_pairs(pairs)
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            PostgresUrl::from_url(text)
        } else {
            Err("not a database URL; expected sqlite://PATH or postgres://…".into())
        };
        parsed.map(|url| Self::Postgres(Box::new(url))).map_err(|problem| refused(text, problem))
    }
}

/// Without what is secret.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("sqlite://:memory:"),
            Self::File(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            match host {
                tokio_postgres::config::Host::Tcp(name) => write!(f, "{separator}{name}")?,
                tokio_postgres::config::Host::Unix(path) => {
                    write!(f, "{separator}{}", path.display())?;
                }
            }
            if let Some(port) = self.config.get_ports().get(index) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// What this program itself does with a URL's settings.
#[derive(Default)]
struct TlsSettings {
    mode: Option<String>,
    root_certificates: Option<PathBuf>,
}

impl TlsSettings {
    /// `false`: not a setting of TLS.
    fn take(&mut self, name: &str, value: &str) -> bool {
        match name {
            "sslmode" => self.mode = Some(value.into()),
            "sslrootcert" => self.root_certificates = Some(value.into()),
            _ => return false,
        }
        true
    }

    fn apply(self, mut config: tokio_postgres::Config) -> Result<PostgresUrl, String> {
        let (mode, check) = match self.mode.as_deref() {
            Some("disable") => (SslMode::Disable, TlsCheck::Nothing),
            None | Some("allow" | "prefer") => (SslMode::Prefer, TlsCheck::Nothing),
            // As everywhere: with a certificate at hand, it is used.
            Some("require") if self.root_certificates.is_some() => {
                (SslMode::Require, TlsCheck::Issuer)
            }
            Some("require") => (SslMode::Require, TlsCheck::Nothing),
            Some("verify-ca") => (SslMode::Require, TlsCheck::Issuer),
            Some("verify-full") => (SslMode::Require, TlsCheck::Name),
            Some(_) => {
                return Err(
                    "sslmode is disable, allow, prefer, require, verify-ca or verify-full".into()
                );
            }
        };
        config.ssl_mode(mode);
        if config.get_hosts().is_empty() {
            config.host("localhost");
        }
        Ok(PostgresUrl { config, check, root_certificates: self.root_certificates })
    }
}

impl PostgresUrl {
    fn from_url(text: &str) -> Result<Self, String> {
        let mut tls = TlsSettings::default();
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let rest: Vec<&str> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .filter(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                !tls.take(name, &percent_decoded(value))
            })
            .collect();
        let text =
            if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) };
        tls.apply(text.parse().map_err(|error| cause(&error))?)
    }

    /// `host=… user=…`, values in single quotes if they have spaces.
    fn from_pairs(text: &str) -> Result<Self, String> {
        let mut tls = TlsSettings::default();
        let rest: Vec<&str> = pairs(text)
            .into_iter()
            .filter(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                !tls.take(name.trim(), value.trim().trim_matches('\''))
            })
            .collect();
        tls.apply(rest.join(" ").parse().map_err(|error| cause(&error))?)
    }
}

/// Splits at spaces outside of quotes.
fn pairs(text: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|character: char| {
        let splits = character.is_whitespace() && !quoted && !escaped;
        if character == '\'' && !escaped {
            quoted = !quoted;
        }
        escaped = character == '\\' && !escaped;
        splits
    })
    .filter(|pair| !pair.is_empty())
    .collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let code = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The library's text and what it says of the cause, which names the setting.
fn cause(error: &tokio_postgres::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// An error that names the URL without any password in it.
fn refused(text: &str, problem: impl Into<String>) -> StoreError {
    StoreError::Url { url: masked(text), problem: problem.into() }
}

/// The URL without what may be secret: the part before an `@`, and key-value settings.
fn masked(text: &str) -> String {
    if let Some((kind, _)) = text.split_once('=')
        && kind == "postgres"
    {
        return "postgres=…".into();
    }
    let Some((scheme, rest)) = text.split_once("://") else { return text.into() };
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    match rest.rsplit_once('@') {
        Some((_, place)) => format!("{scheme}://…@{place}"),
        None => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host;

    use super::*;

    fn postgres(text: &str) -> PostgresUrl {
        match DatabaseUrl::parse(text).unwrap() {
            DatabaseUrl::Postgres(url) => *url,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_forms_of_sqlite_are_taken() {
        let file = |path: &str| DatabaseUrl::File(PathBuf::from(path));
        for (text, expected) in [
            ("sqlite://data/relay.sqlite", file("data/relay.sqlite")),
            ("sqlite://./data/relay.sqlite", file("./data/relay.sqlite")),
            ("sqlite:///var/lib/relay.sqlite", file("/var/lib/relay.sqlite")),
            ("sqlite=relay.sqlite", file("relay.sqlite")),
            ("sqlite://:memory:", DatabaseUrl::Memory),
        ] {
            assert_eq!(DatabaseUrl::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn all_forms_of_postgres_are_taken() {
        for text in [
            "postgres://relay:secret%21@db:5433/events",
            "postgresql://relay:secret%21@db:5433/events?sslmode=prefer",
            "postgres=host=db port=5433 user=relay password=secret! dbname=events",
            "postgres=host=db  port=5433 user='relay' password='secret!' dbname=events sslmode=allow",
        ] {
            let url = postgres(text);
            let config = &url.config;
            assert_eq!(config.get_hosts(), [Host::Tcp("db".into())], "{text}");
            assert_eq!(config.get_ports(), [5433]);
            assert_eq!(config.get_user(), Some("relay"));
            assert_eq!(config.get_password(), Some(&b"secret!"[..]));
            assert_eq!(config.get_dbname(), Some("events"));
            assert_eq!((config.get_ssl_mode(), url.check), (SslMode::Prefer, TlsCheck::Nothing));
            assert_eq!(DatabaseUrl::parse(text).unwrap().to_string(), "postgres://db:5433/events");
        }
        let spaced = postgres("postgres=host=db password='two words' user=relay");
        assert_eq!(spaced.config.get_password(), Some(&b"two words"[..]));
        let socket = postgres("postgres://relay@%2Frun%2Fpostgresql/relay");
        assert_eq!(socket.config.get_hosts(), [Host::Unix("/run/postgresql".into())]);
    }

    #[test]
    fn sslmode_is_honoured() {
        for (text, mode, check) in [
            ("sslmode=disable", SslMode::Disable, TlsCheck::Nothing),
            ("sslmode=prefer", SslMode::Prefer, TlsCheck::Nothing),
            ("sslmode=require", SslMode::Require, TlsCheck::Nothing),
            ("sslmode=require&sslrootcert=%2Fca.pem", SslMode::Require, TlsCheck::Issuer),
            ("sslmode=verify-ca", SslMode::Require, TlsCheck::Issuer),
            ("sslmode=verify-full", SslMode::Require, TlsCheck::Name),
        ] {
            let url = postgres(&format!("postgres://relay@db/relay?{text}&connect_timeout=3"));
            assert_eq!((url.config.get_ssl_mode(), url.check), (mode, check), "{text}");
            let pairs = text.replace('&', " ").replace("%2F", "/");
            let url = postgres(&format!("postgres=host=db user=relay {pairs}"));
            assert_eq!((url.config.get_ssl_mode(), url.check), (mode, check), "{text}");
        }
        let url = postgres("postgres://relay@db/relay?sslrootcert=%2Fca.pem&sslmode=verify-ca");
        assert_eq!(url.root_certificates, Some(PathBuf::from("/ca.pem")));
    }

    #[test]
    fn what_is_refused_is_told_without_the_password() {
        for text in [
            "postgres://relay:secret@db:5432/relay?sslmode=maybe",
            "postgresql://relay:secret@db/relay?colour=blue",
            "postgres=host=db password=secret colour=blue",
            "postgres://relay:secret@db:port/relay",
        ] {
            let message = DatabaseUrl::parse(text).unwrap_err().to_string();
            assert!(!message.contains("secret"), "{message}");
        }
        assert!(DatabaseUrl::parse("mysql://x").is_err());
        assert!(DatabaseUrl::parse("sqlite://").is_err());
    }
}
