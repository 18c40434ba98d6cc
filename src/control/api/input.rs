//! The input of a request, taken alike from the query, a JSON body or a form body, into one typed
//! struct.
//!
//! Names are compared without regard to case, as the reference relay does for JSON keys. Numbers and
//! flags may come as text, which is all that a query or a form can hold. `null` counts as absent;
//! names that nobody asks for are ignored.

use std::{collections::BTreeMap, fmt};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{FromRequest, Request},
};
use futures_lite::StreamExt as _;
use http::{StatusCode, header, request::Parts};
use serde::{
    Deserializer,
    de::{DeserializeOwned, IntoDeserializer, MapAccess, Visitor, value::SeqDeserializer},
};
use serde_json::Value;

use super::{reply::ApiError, server::BodyTimeout};

/// Bodies are a few names and numbers.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Of a body that is too long.
const BODY_BYTES_SKIPPED_MAX: usize = 1024 * 1024;
const PARAMETERS_MAX: usize = 256;
/// How much of a wrong value is told back.
const SHOWN_CHARS_MAX: usize = 64;

/// What a handler takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = read_body(&parts, body).await?;
        Given::of(&parts, &body)?.read().map(Self)
    }
}

pub(super) async fn read_body(parts: &Parts, body: Body) -> Result<Bytes, ApiError> {
    let Some(BodyTimeout(timeout)) = parts.extensions.get() else {
        tracing::error!("a request without a time for its body");
        return Err(ApiError::internal());
    };
    let Ok(read) = tokio::time::timeout(*timeout, collect(body)).await else {
        let message = "the body did not arrive in time";
        return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message));
    };
    let fits = read.map_err(|error| {
        tracing::debug!(%error, "a request body could not be read");
        ApiError::invalid("the body breaks off, or is not in the encoding that its headers tell")
    })?;
    fits.ok_or_else(|| {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "PayloadTooLarge",
            format!("a body may have {BODY_BYTES_MAX} bytes"),
        )
    })
}

/// The whole body, unless it is too long. What is not much too long is read to its end all the same:
/// on a connection that is closed on bytes that nobody reads, the reply may never arrive.
async fn collect(body: Body) -> Result<Option<Bytes>, axum::Error> {
    if body.size_hint().lower() > BODY_BYTES_SKIPPED_MAX as u64 {
        return Ok(None);
    }
    let (mut kept, mut read) = (Vec::new(), 0);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        read += piece.len();
        if read > BODY_BYTES_SKIPPED_MAX {
            break;
        }
        if read <= BODY_BYTES_MAX {
            kept.extend_from_slice(&piece);
        }
    }
    Ok((read <= BODY_BYTES_MAX).then(|| kept.into()))
}

/// The parameters of one request by their names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given(BTreeMap<String, Vec<Value>>);

impl Given {
    /// Those of the query and of the body.
    pub(super) fn of(parts: &Parts, body: &[u8]) -> Result<Self, ApiError> {
        let mut given = Self::default();
        given.add_pairs(parts.uri.query().unwrap_or_default().as_bytes())?;
        let form = parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
        given.add_body(body, form)?;
        Ok(given)
    }

    /// A parameter that is text, as it was given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first()?.as_str()
    }

    /// All of them, as JSON.
    pub(super) fn to_json(&self) -> String {
        let single = |values: &Vec<Value>| match values.as_slice() {
            [value] => value.clone(),
            values => Value::Array(values.to_vec()),
        };
        let object = self.0.iter().map(|(name, values)| (name.clone(), single(values)));
        Value::Object(object.collect()).to_string()
    }

    fn add_pairs(&mut self, text: &[u8]) -> Result<(), ApiError> {
        for (name, value) in form_urlencoded::parse(text).take(PARAMETERS_MAX + 1) {
            self.add(&name, Value::String(value.into_owned()))?;
        }
        Ok(())
    }

    fn add_body(&mut self, body: &[u8], form: bool) -> Result<(), ApiError> {
        let body = body.trim_ascii();
        if body.is_empty() {
            return Ok(());
        }
        // Tools send JSON under the form's content type, which is curl's default.
        if form && body.first() != Some(&b'{') {
            return self.add_pairs(body);
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the body is not JSON: {error}")))?;
        let Value::Object(map) = value else {
            return Err(ApiError::invalid("the body must be a JSON object"));
        };
        for (name, value) in map {
            self.add(&name, value)?;
        }
        Ok(())
    }

    fn add(&mut self, name: &str, value: Value) -> Result<(), ApiError> {
        if self.0.values().map(Vec::len).sum::<usize>() >= PARAMETERS_MAX {
            return Err(ApiError::invalid("too many parameters"));
        }
        let values = self.0.entry(name.to_ascii_lowercase()).or_default();
        match value {
            Value::Null => {}
            Value::Array(items) => values.extend(items),
            value => values.push(value),
        }
        Ok(())
    }

    fn read<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let rest = self.0.into_iter().filter(|(_, values)| !values.is_empty());
        T::deserialize(Parameters { rest: rest.collect::<Vec<_>>().into_iter(), next: None })
            .map_err(|wrong| ApiError::invalid(wrong.0))
    }
}

/// What is wrong with a parameter, in words for the caller.
#[derive(Debug)]
struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("the parameter {field:?} is missing"))
    }
}

/// A struct's fields come from here.
struct Parameters {
    rest: std::vec::IntoIter<(String, Vec<Value>)>,
    next: Option<Parameter>,
}

impl<'de> Deserializer<'de> for Parameters {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_map(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Parameters {
    type Error = Wrong;

    fn next_key_seed<K: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        let Some((name, values)) = self.rest.next() else { return Ok(None) };
        let key = seed.deserialize(name.as_str().into_deserializer())?;
        self.next = Some(Parameter { name, values });
        Ok(Some(key))
    }

    fn next_value_seed<V: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Wrong> {
        let parameter = self.next.take().ok_or_else(|| Wrong("a value without a name".into()))?;
        seed.deserialize(parameter)
    }
}

/// One name and what was given under it: at least one value.
struct Parameter {
    name: String,
    values: Vec<Value>,
}

impl Parameter {
    fn single(&self) -> Result<&Value, Wrong> {
        match self.values.as_slice() {
            [value] => Ok(value),
            _ => Err(Wrong(format!("{:?} is given more than once", self.name))),
        }
    }

    fn wrong(&self, value: &Value, wanted: &str) -> Wrong {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
        Wrong(format!("{:?} must be {wanted}, not {shown:?}", self.name))
    }

    fn number<T>(&self, wanted: &str) -> Result<T, Wrong>
    where
        T: std::str::FromStr,
    {
        let value = self.single()?;
        let text = match value {
            Value::String(text) if !text.starts_with('+') => text.clone(),
            // 5.0 is a whole number, too.
            Value::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() && float.fract() == 0.0 => format!("{float}"),
                _ => number.to_string(),
            },
            _ => return Err(self.wrong(value, wanted)),
        };
        text.parse().map_err(|_not_a_number| self.wrong(value, wanted))
    }

    fn flag(&self) -> Result<bool, Wrong> {
        let value = self.single()?;
        let text = match value {
            Value::Bool(flag) => return Ok(*flag),
            Value::String(text) => text.to_ascii_lowercase(),
            other => other.to_string(),
        };
        match text.as_str() {
            "1" | "t" | "true" => Ok(true),
            "0" | "f" | "false" => Ok(false),
            _ => Err(self.wrong(value, "true or false")),
        }
    }
}

impl<'de> Deserializer<'de> for Parameter {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.single()? {
            Value::String(text) => visitor.visit_str(text),
            other => Err(self.wrong(other, "text")),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_bool(self.flag()?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let number = self.number("a number of 0 or more")?;
        // SQL has no greater numbers, and JSON's readers seldom.
        if number > i64::MAX as u64 {
            return Err(Wrong(format!("{:?} is greater than any number can be", self.name)));
        }
        visitor.visit_u64(number)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let Self { name, values } = self;
        let items =
            values.into_iter().map(|value| Item(Self { name: name.clone(), values: vec![value] }));
        visitor.visit_seq(SeqDeserializer::new(items))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let value = self.single()?;
        let known = value.as_str().filter(|word| variants.contains(word));
        let word =
            known.ok_or_else(|| self.wrong(value, &format!("one of {}", variants.join(", "))))?;
        let word: serde::de::value::StrDeserializer<'_, Wrong> = word.into_deserializer();
        word.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    // All numbers of the API are unsigned and of 64 bits.
    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct tuple tuple_struct map struct identifier
    }
}

/// A value of a list.
struct Item(Parameter);

impl IntoDeserializer<'_, Wrong> for Item {
    type Deserializer = Parameter;

    fn into_deserializer(self) -> Parameter {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default)]
    struct Example {
        host: Option<String>,
        limit: Option<u64>,
        enabled: Option<bool>,
        cids: Vec<String>,
        kind: Option<Kind>,
    }

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Good,
    }

    #[derive(Debug, Deserialize)]
    struct Strict {
        #[expect(dead_code, reason = "only whether it is there matters")]
        host: String,
    }

    fn read<T: DeserializeOwned>(query: &str, body: &str, form: bool) -> Result<T, String> {
        let mut given = Given::default();
        let result = given
            .add_pairs(query.as_bytes())
            .and_then(|()| given.add_body(body.as_bytes(), form))
            .and_then(|()| given.read());
        result.map_err(|error| error.message().to_owned())
    }

    #[test]
    fn query_json_and_form_are_alike() {
        for (query, body, form) in [
            ("host=a.example&limit=5&enabled=T", "", false),
            ("", r#"{"Host":"a.example","LIMIT":5,"enabled":true}"#, false),
            ("", r#"{"HOST":"a.example","limit":"5","enabled":"1","kind":null}"#, true),
            ("limit=5", "host=a%2Eexample&enabled=true", true),
            ("limit=5", r#"{"host":"a.example","enabled":1,"other":{"x":[1]}}"#, false),
            ("", r#"{"host":"a.example","limit":5.0,"enabled":1}"#, false),
        ] {
            let result = read::<Example>(query, body, form);
            let expected = Example {
                host: Some("a.example".into()),
                limit: Some(5),
                enabled: Some(true),
                ..Example::default()
            };
            assert_eq!(result, Ok(expected), "{query} {body}");
        }
    }

    #[test]
    fn lists_are_repeated_names_or_arrays() {
        let cids = |query, body| read::<Example>(query, body, false).unwrap().cids;
        assert_eq!(cids("cids=a&cids=b", ""), ["a", "b"]);
        assert_eq!(cids("", r#"{"cids":["a","b"]}"#), ["a", "b"]);
        assert_eq!(cids("cids=a", ""), ["a"]);
        assert!(read::<Example>("", r#"{"cids":["a",1]}"#, false).is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, body, message) in [
            ("limit=-1", "", r#""limit" must be a number of 0 or more, not "-1""#),
            ("limit=9223372036854775808", "", r#""limit" is greater than any number can be"#),
            ("limit=", "", r#""limit" must be a number of 0 or more, not """#),
            ("limit=5.0", "", r#""limit" must be a number of 0 or more, not "5.0""#),
            ("", r#"{"limit":1.5}"#, r#""limit" must be a number of 0 or more, not "1.5""#),
            ("limit=1&Limit=2", "", r#""limit" is given more than once"#),
            ("host=a", r#"{"host":"b"}"#, r#""host" is given more than once"#),
            ("enabled=7", "", r#""enabled" must be true or false, not "7""#),
            ("", r#"{"host":5}"#, r#""host" must be text, not "5""#),
            ("", r#"{"host":{"a":1}}"#, r#""host" must be text, not "{\"a\":1}""#),
            ("kind=bad", "", r#""kind" must be one of good, not "bad""#),
        ] {
            assert_eq!(read::<Example>(query, body, false).unwrap_err(), message);
        }
        let missing = read::<Strict>("other=1", r#"{"host":null}"#, false).unwrap_err();
        assert_eq!(missing, r#"the parameter "host" is missing"#);
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for body in ["[1]", "{", "\"x\"", "{\"a\":1}}", "{\"host\":\"\u{0}\"}x"] {
            assert!(read::<Example>("", body, false).is_err(), "{body}");
        }
        assert!(read::<Example>(&"a=1&".repeat(300), "", false).is_err());
        let deep = format!("{{\"a\":{}}}", "[".repeat(10_000));
        assert!(read::<Example>("", &deep, false).is_err());
    }
}
