//! Handles: domain names in ASCII.

use super::{checked_text, is_label};

checked_text! {
    /// A handle, in whatever case it came.
    Handle, "handle", check
}

/// Top-level domains that no real handle and no real `did:web` has.
pub const RESERVED_TLDS: [&str; 8] =
    ["alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion"];

pub fn check(text: &str) -> bool {
    if text.len() > 253 {
        return false;
    }
    let Some((_, tld)) = text.rsplit_once('.') else {
        return false;
    };
    tld.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.split('.').all(|label| is_label(label.as_bytes()))
}

/// Whether a domain name ends in one of [`RESERVED_TLDS`].
pub fn is_reserved(name: &str) -> bool {
    let tld = name.rsplit('.').next().unwrap_or(name);
    RESERVED_TLDS.iter().any(|reserved| tld.eq_ignore_ascii_case(reserved))
}
