//! Record keys.

use super::checked_text;

checked_text! {
    RecordKey, "record key", check
}

pub const RECORD_KEY_BYTES_MAX: usize = 512;

pub fn check(text: &str) -> bool {
    (1..=RECORD_KEY_BYTES_MAX).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'~' | b'-')
        })
}
