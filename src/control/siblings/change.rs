//! Which requests are changes that siblings should make as well, and what is sent for them.

use http::{Method, Uri};

/// A change as it is sent to siblings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path and query.
    pub path: String,
    /// JSON, or a form; as it came.
    pub body: String,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What an operator decided. Siblings must get it, and in order.
    Admin,
    /// A stranger's request to crawl. A host that is missed asks again.
    Crawl,
}

const REQUEST_CRAWL: &str = "/xrpc/com.atproto.sync.requestCrawl";
/// Its old name, which siblings may not know.
const NOTIFY_OF_UPDATE: &str = "/xrpc/com.atproto.sync.notifyOfUpdate";
const KILL_UPSTREAM: &str = "/admin/subs/killUpstream";
const BLOCK: &str = "/admin/pds/block";
const TAKE_DOWN: &str = "/admin/repo/takeDown";

/// What concerns the network, and so all siblings. What concerns one relay alone (its consumers, its
/// cursors, how fast it grows) is its own.
const ADMIN_PATHS: [&str; 11] = [
    TAKE_DOWN,
    "/admin/repo/reverseTakedown",
    "/admin/pds/requestCrawl",
    "/admin/pds/changeLimits",
    BLOCK,
    "/admin/pds/unblock",
    "/admin/pds/addTrustedDomain",
    "/admin/pds/removeTrustedDomain",
    KILL_UPSTREAM,
    "/admin/subs/banDomain",
    "/admin/subs/unbanDomain",
];

impl Change {
    /// Whether a request is one that may be passed on, before its body is known.
    pub(crate) fn kind_of(method: &Method, uri: &Uri) -> Option<Kind> {
        if method == Method::POST { Self::kind_of_path(uri.path()) } else { None }
    }

    pub(super) fn kind_of_path(path: &str) -> Option<Kind> {
        match path {
            REQUEST_CRAWL | NOTIFY_OF_UPDATE => Some(Kind::Crawl),
            path if ADMIN_PATHS.contains(&path) => Some(Kind::Admin),
            _ => None,
        }
    }

    /// The change that a request asks for.
    pub(crate) fn of(kind: Kind, uri: &Uri, body: &[u8]) -> Self {
        // A body that is not UTF-8 is refused by every handler, and so never passed on.
        let body = String::from_utf8_lossy(body.trim_ascii()).into_owned();
        let (mut path, mut query) = (uri.path(), uri.query().unwrap_or_default().to_owned());
        if path == KILL_UPSTREAM && is_set("block", &query, &body) {
            // A sibling without a connection to the host would refuse this, and not block either.
            path = BLOCK;
        }
        if path == NOTIFY_OF_UPDATE {
            path = REQUEST_CRAWL;
        }
        if path == TAKE_DOWN && value_of("force", &query, &body).is_none() {
            // A sibling that has not met the account yet must not take it in later.
            query = if query.is_empty() { "force=true".to_owned() } else { query + "&force=true" };
        }
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        Self { path, body, kind }
    }

    /// The `Content-Type` of the body.
    pub(crate) fn content_type(body: &str) -> Option<&'static str> {
        match body.as_bytes().first() {
            None => None,
            Some(b'{') => Some("application/json"),
            Some(_) => Some("application/x-www-form-urlencoded"),
        }
    }
}

/// Whether a parameter is true.
fn is_set(name: &str, query: &str, body: &str) -> bool {
    let value = value_of(name, query, body).map(|value| value.to_ascii_lowercase());
    matches!(value.as_deref(), Some("1" | "t" | "true"))
}

/// A parameter of the query or the body.
fn value_of(name: &str, query: &str, body: &str) -> Option<String> {
    let in_form = |text: &str| {
        let url = reqwest::Url::parse(&format!("http://form/?{text}")).ok()?;
        let mut pairs = url.query_pairs();
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.into_owned())
    };
    let in_json = || {
        let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body).ok()?;
        let (_, value) = map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    in_form(query).or_else(|| if body.starts_with('{') { in_json() } else { in_form(body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(target: &str, body: &str) -> Option<(String, String, Kind)> {
        let uri: Uri = target.parse().unwrap();
        let kind = Change::kind_of(&Method::POST, &uri)?;
        let change = Change::of(kind, &uri, body.as_bytes());
        Some((change.path, change.body, change.kind))
    }

    #[test]
    fn a_change_is_sent_as_it_came() {
        for (target, body, kind) in [
            ("/admin/pds/block?host=a.example", "", Kind::Admin),
            ("/admin/subs/banDomain", r#"{"Domain":"a.example"}"#, Kind::Admin),
            ("/admin/pds/addTrustedDomain?domain=a.example", "", Kind::Admin),
            ("/admin/pds/requestCrawl", "hostname=a.example", Kind::Admin),
            ("/xrpc/com.atproto.sync.requestCrawl", r#"{"hostname":"a.example"}"#, Kind::Crawl),
            ("/admin/subs/killUpstream?host=a.example&block=false", "", Kind::Admin),
        ] {
            assert_eq!(change(target, body), Some((target.to_owned(), body.to_owned(), kind)));
        }
    }

    #[test]
    fn what_is_a_relays_own_stays() {
        for target in [
            "/admin/subs/setEnabled?enabled=true",
            "/admin/subs/setPerDayLimit?limit=3",
            "/admin/consumers/kick?id=1",
            "/admin/pds/list",
            "/xrpc/com.atproto.sync.listHosts",
        ] {
            assert_eq!(change(target, ""), None, "{target}");
        }
        let get = Change::kind_of(&Method::GET, &"/admin/pds/block?host=a".parse().unwrap());
        assert_eq!(get, None);
    }

    #[test]
    fn a_take_down_also_holds_where_the_account_is_not_known() {
        let sent = |target: &str, body: &str| change(target, body).unwrap().0;
        assert_eq!(
            sent("/admin/repo/takeDown", r#"{"did":"did:web:a.example"}"#),
            "/admin/repo/takeDown?force=true"
        );
        assert_eq!(
            sent("/admin/repo/takeDown?did=did:web:a.example", ""),
            "/admin/repo/takeDown?did=did:web:a.example&force=true"
        );
        let forced = r#"{"did":"did:web:a.example","force":true}"#;
        assert_eq!(sent("/admin/repo/takeDown", forced), "/admin/repo/takeDown");
    }

    #[test]
    fn a_cut_with_block_is_a_block_where_there_is_no_connection() {
        for (target, body, to) in [
            (
                "/admin/subs/killUpstream?host=a.example&block=true",
                "",
                "?host=a.example&block=true",
            ),
            ("/admin/subs/killUpstream", "host=a.example&block=1", ""),
            ("/admin/subs/killUpstream", r#"{"host":"a.example","Block":true}"#, ""),
        ] {
            assert_eq!(change(target, body).unwrap().0, format!("/admin/pds/block{to}"), "{body}");
        }
    }

    #[test]
    fn bodies_have_their_types() {
        assert_eq!(Change::content_type(""), None);
        assert_eq!(Change::content_type("{}"), Some("application/json"));
        assert_eq!(Change::content_type("a=b"), Some("application/x-www-form-urlencoded"));
    }
}
