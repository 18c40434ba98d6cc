//! DIDs.

use super::{SyntaxError, checked_text};

pub const DID_BYTES_MAX: usize = 2048;

/// How a DID is resolved. Only `Plc` and `Web` are, in the AT Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DidMethod {
    Plc,
    Web,
    Other,
}

checked_text! {
    /// A DID of any method.
    Did, "DID", |text| check(text).is_ok()
}

/// Checks the syntax that all DIDs share, and tells the method. Whether the rest is what the
/// method wants is another question: see [`is_plc`] and [`web_authority`].
pub fn check(text: &str) -> Result<DidMethod, SyntaxError> {
    const ERROR: SyntaxError = SyntaxError("DID");
    if text.len() > DID_BYTES_MAX {
        return Err(ERROR);
    }
    let rest = text.strip_prefix("did:").ok_or(ERROR)?;
    let (method, id) = rest.split_once(':').ok_or(ERROR)?;
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(ERROR);
    }
    let id_good = id.bytes().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'%' | b'-')
    });
    if !id_good || id.is_empty() || id.ends_with([':', '%']) {
        return Err(ERROR);
    }
    Ok(match method {
        "plc" => DidMethod::Plc,
        "web" => DidMethod::Web,
        _ => DidMethod::Other,
    })
}

/// Whether the text is a DID that a PLC directory can have: 24 base32 characters in lower case.
pub fn is_plc(text: &str) -> bool {
    text.strip_prefix("did:plc:").is_some_and(|id| {
        id.len() == 24 && id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
    })
}

/// The host of a `did:web`, and its port if it names one (`localhost%3A1234`).
///
/// `None` for DIDs with a path, which the AT Protocol does not allow, and for all that is no host
/// name. Which names are not to be asked (reserved top-level domains, ports outside of
/// development) is for the caller to decide.
pub fn web_authority(text: &str) -> Option<(&str, Option<u16>)> {
    check(text).ok()?;
    let id = text.strip_prefix("did:web:")?;
    let (host, port) = match id.find('%') {
        Some(at) => {
            let digits = id[at..].strip_prefix("%3A").or_else(|| id[at..].strip_prefix("%3a"))?;
            if digits.is_empty() || digits.len() > 5 || digits.bytes().any(|b| !b.is_ascii_digit())
            {
                return None;
            }
            (&id[..at], Some(digits.parse().ok().filter(|port| *port != 0)?))
        }
        None => (id, None),
    };
    let name = host.len() <= 253 && host.split('.').all(|label| super::is_label(label.as_bytes()));
    name.then_some((host, port))
}
