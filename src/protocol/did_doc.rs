//! DID documents, reduced to what a relay needs: signing key, PDS endpoint, claimed handle.
//!
//! A document is somebody else's JSON: entries of unknown types, extra fields and missing lists are
//! stepped over, and of each list the first *valid* entry counts. The caller limits the size of the
//! text before it comes here; nesting is limited by the JSON parser (128 levels).

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use ecdsa::{Curve, VerifyingKey};
use serde_json::Value;

use crate::{
    key,
    syntax::{handle, is_label},
};

/// What a DID document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DidDocument {
    /// The `#atproto` signing key.
    pub key: Option<VerifyingKey>,
    /// The `#atproto_pds` service.
    pub pds: Option<Endpoint>,
    /// The first valid `at://` handle, in lower case. Only claimed, not verified.
    pub handle: Option<String>,
}

/// Where a PDS is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Plain http is for development: the caller decides whether to allow it.
    pub tls: bool,
    /// Lower case, `name` or `name:port`; the scheme's default port is left out.
    pub host: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DidDocError {
    /// Not JSON, or not an object.
    Json,
    /// The document is of another DID than the one asked for, or of none.
    Id,
}

impl fmt::Display for DidDocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "not a JSON object",
            Self::Id => "the document's id is not the DID asked for",
        })
    }
}

impl std::error::Error for DidDocError {}

/// Reads the document of `did`.
pub fn parse(json: &[u8], did: &str) -> Result<DidDocument, DidDocError> {
    let document: Value = serde_json::from_slice(json).map_err(|_| DidDocError::Json)?;
    let document = document.as_object().ok_or(DidDocError::Json)?;
    if document.get("id").and_then(Value::as_str) != Some(did) {
        return Err(DidDocError::Id);
    }
    let entries = |name| document.get(name).and_then(Value::as_array).into_iter().flatten();
    Ok(DidDocument {
        key: entries("verificationMethod").find_map(|entry| signing_key(entry, did)),
        pds: entries("service").find_map(|entry| pds_endpoint(entry, did)),
        handle: entries("alsoKnownAs").find_map(claimed_handle),
    })
}

fn signing_key(entry: &Value, did: &str) -> Option<VerifyingKey> {
    if !is_fragment(entry, did, "#atproto") || field(entry, "controller")? != did {
        return None;
    }
    let text = field(entry, "publicKeyMultibase")?;
    match field(entry, "type")? {
        "Multikey" => key::parse_multibase(text).ok(),
        "EcdsaSecp256k1VerificationKey2019" => key::parse_legacy_multibase(Curve::K256, text).ok(),
        "EcdsaSecp256r1VerificationKey2019" => key::parse_legacy_multibase(Curve::P256, text).ok(),
        _ => None,
    }
}

fn pds_endpoint(entry: &Value, did: &str) -> Option<Endpoint> {
    if !is_fragment(entry, did, "#atproto_pds")
        || field(entry, "type")? != "AtprotoPersonalDataServer"
    {
        return None;
    }
    Endpoint::parse(field(entry, "serviceEndpoint")?)
}

fn claimed_handle(entry: &Value) -> Option<String> {
    let name = entry.as_str()?.strip_prefix("at://")?;
    handle::check(name).then(|| name.to_ascii_lowercase())
}

/// Whether the entry's `id` is the fragment, alone or behind the document's own DID.
fn is_fragment(entry: &Value, did: &str, fragment: &str) -> bool {
    field(entry, "id").is_some_and(|id| id.strip_prefix(did).unwrap_or(id) == fragment)
}

fn field<'a>(entry: &'a Value, name: &str) -> Option<&'a str> {
    entry.get(name).and_then(Value::as_str)
}

impl Endpoint {
    /// Parses `http(s)://host[:port]`, with or without a bare trailing slash. User names, paths,
    /// queries and fragments are refused.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = if scheme.eq_ignore_ascii_case("https") {
            true
        } else if scheme.eq_ignore_ascii_case("http") {
            false
        } else {
            return None;
        };
        Self::from_authority(rest.strip_suffix('/').unwrap_or(rest), tls)
    }

    /// Normalises `host[:port]`; `None` if that is not a host name or address.
    pub fn from_authority(authority: &str, tls: bool) -> Option<Self> {
        let (name, port) = split_authority(authority)?;
        let default = if tls { 443 } else { 80 };
        let host = match port {
            Some(port) if port != default => format!("{name}:{port}"),
            _ => name,
        };
        Some(Self { tls, host })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.host)
    }
}

fn split_authority(authority: &str) -> Option<(String, Option<u16>)> {
    let (name, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port)
    } else {
        let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        (host_name(name)?, port)
    };
    if port.is_empty() {
        return Some((name, None));
    }
    Some((name, Some(parse_port(port.strip_prefix(':')?)?)))
}

/// Digits only: `u16::from_str` would take a sign.
fn parse_port(text: &str) -> Option<u16> {
    let digits = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// A DNS name or an IPv4 address, in lower case.
fn host_name(name: &str) -> Option<String> {
    let last = name.rsplit('.').next()?;
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.get(..2).is_some_and(|lead| lead.eq_ignore_ascii_case("0x"));
    let valid = if number {
        // No top-level domain is a number, and resolvers read such names as addresses.
        name.parse::<Ipv4Addr>().is_ok()
    } else {
        name.len() <= 253 && name.split('.').all(|label| is_label(label.as_bytes()))
    };
    valid.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
