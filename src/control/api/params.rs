//! Parameters of a request, taken alike from the query, a JSON body or a form body.

use axum::{
    body::Bytes,
    extract::{FromRequest, Query, Request},
};
use http::{StatusCode, Uri, header};
use serde_json::Value;

use super::reply::ApiError;

/// Bodies are a few names and numbers.
const BODY_BYTES_MAX: usize = 16 * 1024;
const PARAMETERS_MAX: usize = 64;

/// Names are compared without regard to case, as the reference relay does for JSON keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// The value of a parameter; an empty one counts as absent.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.text(name)
            .ok_or_else(|| ApiError::invalid(format!("the parameter {name:?} is missing")))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_not_a_number| {
            ApiError::invalid(format!("{name:?} must be a number of 0 or more, not {text:?}"))
        })
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" => Ok(Some(true)),
            "0" | "f" | "false" => Ok(Some(false)),
            _ => Err(ApiError::invalid(format!("{name:?} must be true or false, not {text:?}"))),
        }
    }

    /// A page size within bounds.
    pub(crate) fn limit(&self, default: usize, max: usize) -> Result<usize, ApiError> {
        match self.number("limit")? {
            None => Ok(default),
            Some(limit) if (1..=max as u64).contains(&limit) => Ok(limit as usize),
            Some(_) => Err(ApiError::invalid(format!("\"limit\" must be between 1 and {max}"))),
        }
    }

    fn add_query(&mut self, uri: &Uri) -> Result<(), ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| ApiError::invalid(format!("the query is malformed: {error}")))?;
        self.0.extend(pairs);
        self.check_count()
    }

    fn add_body(&mut self, body: &[u8], form: bool) -> Result<(), ApiError> {
        let body = body.trim_ascii();
        if body.is_empty() {
            return Ok(());
        }
        if form && body.first() != Some(&b'{') {
            let text = std::str::from_utf8(body)
                .ok()
                .and_then(|text| format!("/?{text}").parse::<Uri>().ok())
                .ok_or_else(|| ApiError::invalid("the form body is malformed"))?;
            return self.add_query(&text);
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the body is not JSON: {error}")))?;
        let Value::Object(map) = value else {
            return Err(ApiError::invalid("the body must be a JSON object"));
        };
        for (key, value) in map {
            match value {
                Value::String(text) => self.0.push((key, text)),
                Value::Number(_) | Value::Bool(_) => self.0.push((key, value.to_string())),
                Value::Null | Value::Array(_) | Value::Object(_) => {}
            }
        }
        self.check_count()
    }

    fn check_count(&self) -> Result<(), ApiError> {
        if self.0.len() > PARAMETERS_MAX {
            return Err(ApiError::invalid("too many parameters"));
        }
        Ok(())
    }
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let mut params = Self::default();
        params.add_query(request.uri())?;
        let form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
        params.add_body(&read_body(request).await?, form)?;
        Ok(params)
    }
}

async fn read_body(request: Request) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(|error| {
        tracing::debug!(%error, "a request body could not be read");
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "PayloadTooLarge",
            format!("a body may have {BODY_BYTES_MAX} bytes"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str, body: &str, form: bool) -> Result<Params, ApiError> {
        let mut params = Params::default();
        params.add_query(&format!("/x?{query}").parse().unwrap())?;
        params.add_body(body.as_bytes(), form)?;
        Ok(params)
    }

    #[test]
    fn query_json_and_form_are_alike() {
        for (query, body, form) in [
            ("host=a.example", "", false),
            ("", r#"{"Host":"a.example"}"#, false),
            ("", r#"{"HOST":"a.example","n":null}"#, true),
            ("host=", "host=a.example", true),
        ] {
            let params = params(query, body, form).unwrap();
            assert_eq!(params.text("host"), Some("a.example"), "{query} {body}");
        }
    }

    #[test]
    fn values_are_checked() {
        let params = params("limit=0&enabled=T&n=-1&m=7&e=", "", false).unwrap();
        assert!(params.limit(10, 100).is_err());
        assert_eq!(params.flag("enabled").unwrap(), Some(true));
        assert!(params.flag("m").is_err());
        assert!(params.number("n").is_err());
        assert_eq!(params.number("m").unwrap(), Some(7));
        assert_eq!(params.text("e"), None);
        assert!(params.required("e").is_err());
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for body in ["[1]", "{", "\"x\"", "{\"a\":1}}"] {
            assert!(params("", body, false).is_err(), "{body}");
        }
        let many = "a=1&".repeat(100);
        assert!(params(&many, "", false).is_err());
    }
}
