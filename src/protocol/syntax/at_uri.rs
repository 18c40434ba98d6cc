//! AT-URIs in the restricted form that records use: authority, collection, record key; neither
//! query nor fragment.

use super::{checked_text, did, handle, nsid, record_key};

checked_text! {
    AtUri, "AT-URI", |text| split(text).is_some()
}

pub const AT_URI_BYTES_MAX: usize = 8192;

/// The parts of an AT-URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// A DID or a handle.
    pub authority: &'a str,
    pub collection: Option<&'a str>,
    pub record_key: Option<&'a str>,
}

pub fn check(text: &str) -> bool {
    split(text).is_some()
}

/// The parts of a valid AT-URI.
pub fn split(text: &str) -> Option<Parts<'_>> {
    if text.len() > AT_URI_BYTES_MAX {
        return None;
    }
    let mut parts = text.strip_prefix("at://")?.splitn(3, '/');
    let authority = parts.next()?;
    let (collection, record_key) = (parts.next(), parts.next());
    let good = (did::check(authority).is_ok() || handle::check(authority))
        && collection.is_none_or(nsid::check)
        && record_key.is_none_or(record_key::check);
    good.then_some(Parts { authority, collection, record_key })
}

impl AtUri {
    pub fn parts(&self) -> Parts<'_> {
        split(self.as_str()).expect("checked when made")
    }
}
