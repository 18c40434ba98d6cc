//! Who may call the admin API: those who know one of the keys.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, StatusCode, header};

use super::{Shared, reply::ApiError};

/// The keys that the operator configured. Never printed.
#[derive(Clone)]
pub struct AdminKeys(Vec<String>);

impl AdminKeys {
    /// Empty keys are left out: they would let everyone in.
    pub fn new(keys: impl IntoIterator<Item = String>) -> Self {
        Self(keys.into_iter().filter(|key| !key.is_empty()).collect())
    }

    /// `Bearer KEY`, or `Basic` with user `admin` and the key as password.
    pub(crate) fn allow(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
        let Some((scheme, rest)) = split_scheme(value.as_bytes()) else { return false };
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.matches(rest);
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return false;
        }
        let Ok(decoded) = BASE64_STANDARD.decode(rest) else { return false };
        decoded.strip_prefix(b"admin:").is_some_and(|key| self.matches(key))
    }

    /// Compares with every key, so that the time taken tells nothing of which one was near.
    fn matches(&self, candidate: &[u8]) -> bool {
        self.0.iter().fold(false, |found, key| found | equal(key.as_bytes(), candidate))
    }
}

impl std::fmt::Debug for AdminKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AdminKeys({})", self.0.len())
    }
}

fn split_scheme(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(space);
    Some((scheme, rest.trim_ascii()))
}

/// Equality in a time that depends on the candidate's length alone.
fn equal(key: &[u8], candidate: &[u8]) -> bool {
    let mut difference = key.len() ^ candidate.len();
    for (index, byte) in candidate.iter().enumerate() {
        let other = key.get(index % key.len()).copied().unwrap_or(0);
        difference |= usize::from(std::hint::black_box(byte ^ other));
    }
    difference == 0
}

/// Lets a request to an admin route through, or answers 401.
pub(crate) async fn require_key(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if shared.keys.allow(request.headers()) {
        return Ok(next.run(request).await);
    }
    Err(ApiError::new(
        StatusCode::UNAUTHORIZED,
        "AuthenticationRequired",
        "send the admin key as \"Authorization: Bearer KEY\", or as the password of user admin",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(value: &str) -> bool {
        let keys = AdminKeys::new(["first".to_owned(), "second".to_owned(), String::new()]);
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        keys.allow(&headers)
    }

    #[test]
    fn bearer_and_basic_with_any_key() {
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        for good in ["Bearer first", "bearer second", &basic("admin:first"), &basic("admin:second")]
        {
            assert!(allowed(good), "{good}");
        }
        for bad in [
            "Bearer firs",
            "Bearer firstfirst",
            "Bearer ",
            "Bearer",
            "first",
            "Basic first",
            "Digest first",
            &basic("root:first"),
            &basic("admin:"),
            &basic("admin"),
        ] {
            assert!(!allowed(bad), "{bad}");
        }
    }
}
