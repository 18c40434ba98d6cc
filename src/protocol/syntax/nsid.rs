//! NSIDs: the names of collections and of XRPC methods.

use super::{checked_text, is_label};

checked_text! {
    Nsid, "NSID", check
}

pub const NSID_BYTES_MAX: usize = 317;

/// The specification also wants at most 253 characters before the name; its own list of valid
/// NSIDs has more, and nobody checks it.
pub fn check(text: &str) -> bool {
    if text.len() > NSID_BYTES_MAX {
        return false;
    }
    let Some((authority, name)) = text.rsplit_once('.') else {
        return false;
    };
    let name_good = (1..=63).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    name_good
        && authority.contains('.')
        && authority.starts_with(|first: char| first.is_ascii_alphabetic())
        && authority.split('.').all(|label| is_label(label.as_bytes()))
}

/// Whether a valid NSID is in normal form, as repositories want it: the authority (all but the
/// last segment) in lower case.
pub fn is_normal(nsid: &str) -> bool {
    let authority = nsid.rsplit_once('.').map_or(nsid, |(authority, _)| authority);
    !authority.bytes().any(|byte| byte.is_ascii_uppercase())
}
