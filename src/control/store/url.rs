//! `DATABASE_URL` in all the forms that operators have in their configuration.

use std::path::PathBuf;

use super::StoreError;

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// Lost when the process ends; for tests and trials.
    Memory,
    File(PathBuf),
}

impl DatabaseUrl {
    /// `sqlite://path`, `sqlite:///absolute/path`, `sqlite=path`, `sqlite://:memory:`.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let sqlite = ["sqlite://", "sqlite=", "sqlite3://"]
            .into_iter()
            .find_map(|prefix| text.strip_prefix(prefix));
        match sqlite {
            Some("") => Err(refused(text, "the path after sqlite:// is missing")),
            Some(":memory:") => Ok(Self::Memory),
            Some(path) => Ok(Self::File(PathBuf::from(path))),
            None if ["postgres://", "postgresql://", "postgres="]
                .iter()
                .any(|prefix| text.starts_with(prefix)) =>
            {
                Err(refused(
                    text,
                    "this version has no PostgreSQL support; \
                     use sqlite://PATH or leave --db-url (DATABASE_URL) out",
                ))
            }
            None => Err(refused(text, "not a database URL; expected sqlite://PATH")),
        }
    }
}

/// An error that names the URL without any password in it.
fn refused(text: &str, problem: &'static str) -> StoreError {
    StoreError::Url { url: masked(text), problem }
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
    use super::*;

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
    fn postgres_is_refused_without_telling_the_password() {
        for text in [
            "postgres://relay:secret@db:5432/relay?sslmode=disable",
            "postgresql://relay:secret@db/relay",
            "postgres=host=db password=secret",
        ] {
            let message = DatabaseUrl::parse(text).unwrap_err().to_string();
            assert!(message.contains("no PostgreSQL support"), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
        assert!(DatabaseUrl::parse("mysql://x").is_err());
        assert!(DatabaseUrl::parse("sqlite://").is_err());
    }
}
