//! What a sibling's reply means for the change that was sent.

use std::time::Duration;

use super::Kind;
use crate::dial::{FetchError, Fetched};

/// Longest part of a reply's message that is kept.
const MESSAGE_CHARS_MAX: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    /// The sibling understood and will not: another attempt would get the same answer.
    Refused(String),
    /// Nobody knows whether it arrived, or it can't be made at present: it is sent again.
    Failed {
        error: String,
        retry_after: Option<Duration>,
    },
}

pub(super) fn judge(kind: Kind, result: Result<Fetched, FetchError>) -> Outcome {
    let reply = match result {
        Ok(reply) => reply,
        Err(error) => return Outcome::Failed { error: error.to_string(), retry_after: None },
    };
    if reply.is_success() {
        return Outcome::Delivered;
    }
    let said = said(&reply.body);
    let text = match &said {
        Some(text) => format!("HTTP {}: {text}", reply.status),
        None => format!("HTTP {}", reply.status),
    };
    match reply.status {
        401 => Outcome::Failed {
            error: format!("{text}; the sibling does not know the admin key that it is sent"),
            retry_after: reply.retry_after,
        },
        // It takes no more hosts for now. The host itself will ask it again.
        429 if kind == Kind::Crawl => Outcome::Refused(text),
        408 | 425 | 429 => Outcome::Failed { error: text, retry_after: reply.retry_after },
        // A relay says in JSON why; what does not is a proxy that stands before it.
        400..=499 | 501 if said.is_some() => Outcome::Refused(text),
        _ => Outcome::Failed { error: text, retry_after: reply.retry_after },
    }
}

/// Name and message of an error reply.
fn said(body: &[u8]) -> Option<String> {
    let reply: serde_json::Value = serde_json::from_slice(body).ok()?;
    let part = |name: &str| reply.get(name)?.as_str();
    let text = match (part("error"), part("message")) {
        (Some(name), Some(message)) => format!("{name}: {message}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => return None,
    };
    Some(text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Fetched {
        let retry_after = (status == 429).then(|| Duration::from_secs(7));
        Fetched { status, body: body.into(), server: None, retry_after }
    }

    fn judged(kind: Kind, reply: Fetched) -> Outcome {
        judge(kind, Ok(reply))
    }

    #[test]
    fn what_a_relay_refuses_is_not_sent_again() {
        let body = r#"{"error":"DomainBanned","message":"it is banned already"}"#;
        let text = "HTTP 400: DomainBanned: it is banned already".to_owned();
        assert_eq!(judged(Kind::Admin, reply(400, body)), Outcome::Refused(text));
        for status in [403, 404, 405, 501] {
            let outcome = judged(Kind::Admin, reply(status, r#"{"error":"X"}"#));
            assert_eq!(outcome, Outcome::Refused(format!("HTTP {status}: X")));
        }
        assert_eq!(judged(Kind::Admin, reply(200, "")), Outcome::Delivered);
    }

    #[test]
    fn what_may_still_be_made_is_sent_again() {
        let failed = |outcome| matches!(outcome, Outcome::Failed { .. });
        // A proxy's pages, a relay that is starting, a key that is not known yet.
        for (status, body) in [
            (404, "<html>"),
            (403, ""),
            (502, ""),
            (503, r#"{"error":"X"}"#),
            (500, "{}"),
            (302, ""),
        ] {
            assert!(failed(judged(Kind::Admin, reply(status, body))), "{status}");
        }
        assert!(failed(judged(Kind::Admin, reply(401, r#"{"error":"AuthenticationRequired"}"#))));
        assert!(failed(judge(Kind::Admin, Err(FetchError::Timeout))));
    }

    #[test]
    fn a_sibling_that_takes_no_more_hosts_holds_nothing_up() {
        let body = r#"{"error":"RateLimitExceeded","message":"no more"}"#;
        let outcome = judged(Kind::Crawl, reply(429, body));
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        let outcome = judged(Kind::Admin, reply(429, body));
        let Outcome::Failed { retry_after, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn long_messages_are_cut() {
        let body = format!(r#"{{"error":"X","message":"{}"}}"#, "y".repeat(5000));
        let Outcome::Refused(text) = judged(Kind::Admin, reply(400, &body)) else { panic!() };
        assert!(text.len() < 250);
    }
}
