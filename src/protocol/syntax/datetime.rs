//! Datetimes: what RFC 3339 and ISO 8601 have in common.

use super::checked_text;

checked_text! {
    Datetime, "datetime", check
}

pub const DATETIME_BYTES_MAX: usize = 64;

/// Whether the text has the form `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`.
///
/// Only the form: month 13 passes. [`unix_micros`] says whether there is such a time.
pub fn check(text: &str) -> bool {
    split(text).is_some()
}

struct Fields {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    /// Minutes east of Greenwich.
    offset: i64,
}

/// Microseconds since 1970, negative before. `None` if the form is wrong, if there is no such date
/// or time, or if it lies before the year 0 of UTC. A leap second counts as the second after it.
pub fn unix_micros(text: &str) -> Option<i64> {
    let at = split(text)?;
    let days_of_month = match at.month {
        4 | 6 | 9 | 11 => 30,
        2 if at.year % 4 == 0 && (at.year % 100 != 0 || at.year % 400 == 0) => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    let exists = (1..=days_of_month).contains(&at.day)
        && at.hour < 24
        && at.minute < 60
        && at.second <= 60
        && at.offset.abs() < 24 * 60;
    if !exists {
        return None;
    }
    let minutes = days(at.year, at.month, at.day) * 1440 + at.hour * 60 + at.minute - at.offset;
    let seconds = minutes * 60 + at.second;
    (seconds >= days(0, 1, 1) * 86_400).then_some(seconds * 1_000_000 + at.micros)
}

/// The time in UTC, to the millisecond.
pub fn from_unix_micros(micros: u64) -> String {
    let (millis, seconds) = (micros / 1_000 % 1_000, micros / 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, so that a leap day is the last day of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, by counting in eras of 400 years that
/// begin on the first of March, so that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn split(text: &str) -> Option<Fields> {
    let bytes = text.as_bytes();
    if bytes.len() > DATETIME_BYTES_MAX {
        return None;
    }
    let (date_time, rest) = bytes.split_at_checked("YYYY-MM-DDThh:mm:ss".len())?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.into_iter().any(|(at, separator)| date_time[at] != separator) {
        return None;
    }
    let (micros, zone) = fraction(rest)?;
    Some(Fields {
        year: digits(&date_time[..4])?,
        month: digits(&date_time[5..7])?,
        day: digits(&date_time[8..10])?,
        hour: digits(&date_time[11..13])?,
        minute: digits(&date_time[14..16])?,
        second: digits(&date_time[17..])?,
        micros,
        offset: offset_minutes(zone)?,
    })
}

/// Microseconds of a fraction, if there is one, and what comes after it.
fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = bytes.strip_prefix(b".") else {
        return Some((0, bytes));
    };
    let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if len == 0 {
        return None;
    }
    let mut micros = digits(&rest[..len.min(6)])?;
    for _ in len..6 {
        micros *= 10;
    }
    Some((micros, &rest[len..]))
}

fn offset_minutes(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        // "-00:00" means an unknown offset in RFC 3339, and is not ISO 8601.
        b"-00:00" => None,
        [sign @ (b'+' | b'-'), hours @ .., b':', m1, m2] if hours.len() == 2 => {
            let minutes = digits(hours)? * 60 + digits(&[*m1, *m2])?;
            Some(if *sign == b'-' { -minutes } else { minutes })
        }
        _ => None,
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}
