//! Paths of records in a repository: collection, slash, record key.

use super::{nsid, record_key};

/// Whether the text is a path as repositories hold it, the collection in normal form.
pub fn check(path: &str) -> bool {
    split(path).is_some()
}

/// Collection and record key of a valid path.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let (collection, key) = path.split_once('/')?;
    // A second slash fails as a character that record keys do not have.
    let good = nsid::check(collection) && nsid::is_normal(collection) && record_key::check(key);
    good.then_some((collection, key))
}
