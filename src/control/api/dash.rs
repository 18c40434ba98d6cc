//! The dashboard's files, compiled in: the page itself needs no key, what it shows does.

use axum::{
    Router,
    response::{IntoResponse, Redirect},
    routing::get,
};
use http::header;

const PAGE: &str = include_str!("../../../public/index.html");
const SCRIPT: &str = include_str!("../../../public/dash.js");
const STYLE: &str = include_str!("../../../public/dash.css");

pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/dash", get(|| async { Redirect::permanent("/dash/") }))
        .route("/dash/", get(async || file("text/html; charset=utf-8", PAGE)))
        .route("/dash/dash.js", get(async || file("text/javascript; charset=utf-8", SCRIPT)))
        .route("/dash/dash.css", get(async || file("text/css; charset=utf-8", STYLE)))
}

fn file(content_type: &'static str, body: &'static str) -> impl IntoResponse {
    // A page with an operator's key in it must not be framed, nor run what others send.
    let policy = "default-src 'self'; img-src data:; frame-ancestors 'none'";
    ([(header::CONTENT_TYPE, content_type), (header::CONTENT_SECURITY_POLICY, policy)], body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that the page or its script names under `/dash/` is served.
    #[test]
    fn the_page_asks_for_nothing_that_is_not_there() {
        let named = [PAGE, SCRIPT].into_iter().flat_map(|text| text.split(['"', '\'']));
        let mut files: Vec<&str> = named.filter(|name| name.starts_with("/dash/")).collect();
        files.sort_unstable();
        files.dedup();
        assert_eq!(files, ["/dash/dash.css", "/dash/dash.js"]);
        // Every element that the script looks up stands in the page.
        for id in SCRIPT.split("element('").skip(1).filter_map(|rest| rest.split('\'').next()) {
            assert!(PAGE.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }
}
