//! A page of another relay's `listHosts`.

use serde::Deserialize;

use super::Why;
use crate::dial::HttpClient;

/// Hosts on a page: the most that the lexicon allows.
const PAGE_SIZE: u32 = 1000;

/// What another relay says of a host.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    pub(super) hostname: String,
    status: Option<String>,
    seq: Option<i64>,
}

impl Listed {
    /// Whether the other relay has got events from it, and may get more.
    pub(super) fn is_alive(&self) -> bool {
        let alive = ["active", "idle"];
        self.status.as_deref().is_none_or(|status| alive.contains(&status))
            && self.seq.is_none_or(|seq| seq > 0)
    }
}

#[derive(Deserialize)]
struct Page {
    hosts: Vec<Listed>,
    cursor: Option<String>,
}

fn page_url(relay: &str, cursor: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &PAGE_SIZE.to_string());
    if let Some(cursor) = cursor {
        query.append_pair("cursor", cursor);
    }
    format!("{relay}/xrpc/com.atproto.sync.listHosts?{}", query.finish())
}

/// A page, and the cursor of the next one.
///
/// # Cancel-safety
/// Dropping the future ends the request.
pub(super) async fn page(
    client: &HttpClient,
    relay: &str,
    cursor: Option<&str>,
) -> Result<(Vec<Listed>, Option<String>), Why> {
    let reply = client.get(&page_url(relay, cursor)).await?;
    if !reply.is_success() {
        return Err(Why::Status(reply.status));
    }
    let Page { hosts, cursor } =
        serde_json::from_slice(&reply.body).map_err(|_not_a_page| Why::NoList)?;
    Ok((hosts, cursor.filter(|cursor| !cursor.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_gone_there_or_have_sent_nothing_do_not_count() {
        let alive = |json: &str| serde_json::from_str::<Listed>(json).unwrap().is_alive();
        assert!(alive(r#"{"hostname":"a.example","status":"active","seq":1,"accountCount":3}"#));
        assert!(alive(r#"{"hostname":"a.example","status":"idle","seq":1}"#));
        assert!(alive(r#"{"hostname":"a.example"}"#));
        assert!(!alive(r#"{"hostname":"a.example","status":"offline","seq":1}"#));
        assert!(!alive(r#"{"hostname":"a.example","status":"banned","seq":1}"#));
        assert!(!alive(r#"{"hostname":"a.example","status":"active","seq":-1}"#));
    }
}
