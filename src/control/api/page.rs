//! Pages of lists: how long they are, and cursors, which say where the next one begins.

use data_encoding::BASE64URL_NOPAD;

use super::reply::ApiError;

/// The list that a cursor belongs to: one of another list is refused rather than misread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum List {
    Hosts = 1,
    Repos = 2,
    ReposByCollection = 3,
    Takedowns = 4,
    Audit = 5,
}

/// Where the next page begins, as callers carry it: opaque, and safe in a URL.
pub(crate) fn cursor(list: List, last: u64) -> String {
    let mut bytes = [0; 9];
    let (tag, number) = bytes.split_at_mut(1);
    tag.fill(list as u8);
    number.copy_from_slice(&last.to_be_bytes());
    BASE64URL_NOPAD.encode(&bytes)
}

/// A regular expression for the cursors of a list, and for none.
pub(crate) fn pattern(list: List) -> String {
    // The number behind the list's tag is below 2^63, so the second character has eight values.
    let end = |last| cursor(list, last).chars().take(2).collect::<String>();
    let second: String = (0..8).filter_map(|high| end(high << 60).chars().nth(1)).collect();
    let first: String = end(0).chars().take(1).collect();
    format!("^({first}[{second}][A-Za-z0-9_-]{{10}})?$")
}

/// The last row of the page before; 0 for the first page, which an empty cursor asks for, too.
pub(crate) fn after(list: List, cursor: Option<&str>) -> Result<u64, ApiError> {
    let Some(text) = cursor.filter(|text| !text.is_empty()) else { return Ok(0) };
    let wrong = || ApiError::invalid("\"cursor\" is not one that this list gave out");
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_not_base64| wrong())?;
    match bytes.split_first() {
        Some((tag, number)) if *tag == list as u8 => {
            let number = number.try_into().map(u64::from_be_bytes).map_err(|_length| wrong())?;
            // SQL has no greater numbers.
            if number > i64::MAX as u64 { Err(wrong()) } else { Ok(number) }
        }
        _ => Err(wrong()),
    }
}

/// A page size within bounds.
pub(crate) fn size(
    name: &str,
    given: Option<u64>,
    default: usize,
    max: usize,
) -> Result<usize, ApiError> {
    match given {
        None => Ok(default),
        Some(size) if (1..=max as u64).contains(&size) => Ok(size as usize),
        Some(_) => Err(ApiError::invalid(format!("{name:?} must be between 1 and {max}"))),
    }
}

/// Cuts rows, of which one more than fits was asked for, to a page. The cursor is there only if
/// there is a next page.
pub(crate) fn cut<T>(
    rows: &mut Vec<T>,
    size: usize,
    list: List,
    number: impl Fn(&T) -> u64,
) -> Option<String> {
    if rows.len() <= size {
        return None;
    }
    rows.truncate(size);
    rows.last().map(|row| cursor(list, number(row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_went() {
        for number in [0, 1, 255, 1 << 40, i64::MAX as u64] {
            let text = cursor(List::Repos, number);
            let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            assert!(text.bytes().all(safe), "{text}");
            assert_eq!(after(List::Repos, Some(&text)), Ok(number));
            assert!(after(List::Hosts, Some(&text)).is_err());
        }
        assert!(after(List::Repos, Some(&cursor(List::Repos, u64::MAX))).is_err());
        assert_eq!(after(List::Hosts, Some("")), Ok(0));
        assert_eq!(after(List::Hosts, None), Ok(0));
        let long = cursor(List::Hosts, 1).repeat(2);
        for bad in ["1", "x", "%", "AQ", "AAAAAAAAAAAB", long.as_str(), "AQAAAAAAAAAB="] {
            assert!(after(List::Hosts, Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_that_is_not_full_is_the_last() {
        let page = |count: u64, size| {
            let mut rows: Vec<u64> = (1..=count).collect();
            let next = cut(&mut rows, size, List::Audit, |row| *row);
            (rows.len(), next.map(|next| after(List::Audit, Some(&next)).unwrap()))
        };
        assert_eq!(page(3, 2), (2, Some(2)));
        assert_eq!(page(2, 2), (2, None));
        assert_eq!(page(0, 2), (0, None));
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(size("limit", None, 10, 100), Ok(10));
        assert_eq!(size("limit", Some(100), 10, 100), Ok(100));
        assert!(size("limit", Some(0), 10, 100).is_err());
        assert!(size("limit", Some(101), 10, 100).is_err());
    }
}
