//! The identifiers of the AT Protocol.
//!
//! Each module has a `check` on borrowed text, which allocates nothing and is what the way of an
//! event uses, and an owned type for text that has passed it.

pub mod at_uri;
pub mod datetime;
pub mod did;
pub mod handle;
pub mod nsid;
pub mod record_key;
pub mod repo_path;
pub mod tid;

#[cfg(test)]
mod tests;

pub use self::{
    at_uri::AtUri,
    datetime::Datetime,
    did::{Did, DidMethod},
    handle::Handle,
    nsid::Nsid,
    record_key::RecordKey,
    tid::Tid,
};

/// Text that is not what it should be; the name says what it should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntaxError(pub &'static str);

impl std::fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a valid {}", self.0)
    }
}

impl std::error::Error for SyntaxError {}

/// An owned text that has passed its module's check.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $label:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            pub fn parse(text: &str) -> Result<Self, $crate::syntax::SyntaxError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err($crate::syntax::SyntaxError($label))
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::syntax::SyntaxError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }
    };
}
use checked_text;

/// A label of a domain name: 1 to 63 letters, digits and hyphens, no hyphen at the ends.
pub(crate) fn is_label(label: &[u8]) -> bool {
    (1..=63).contains(&label.len())
        && label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && label.first() != Some(&b'-')
        && label.last() != Some(&b'-')
}
