//! The interoperability lists, and what they leave out.

use proptest::prelude::*;

use super::*;

/// Lines of a list; comments and empty lines left out, blanks at the ends kept: they matter.
fn lines(name: &str) -> Vec<String> {
    let path = format!("{}/../../tests/data/syntax/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("# "))
        .map(str::to_owned)
        .collect();
    assert!(!lines.is_empty());
    lines
}

fn check_lists(name: &str, check: impl Fn(&str) -> bool) {
    for line in lines(&format!("{name}_valid")) {
        assert!(check(&line), "{name} should be valid: {line:?}");
    }
    for line in lines(&format!("{name}_invalid")) {
        assert!(!check(&line), "{name} should be invalid: {line:?}");
    }
}

#[test]
fn interoperability_lists() {
    check_lists("did_syntax", |text| did::check(text).is_ok());
    check_lists("handle_syntax", handle::check);
    check_lists("nsid_syntax", nsid::check);
    check_lists("recordkey_syntax", record_key::check);
    check_lists("tid_syntax", tid::check);
    check_lists("datetime_syntax", datetime::check);
    check_lists("aturi_syntax", at_uri::check);
}

/// The list is of CIDs of any kind, of which the protocol allows few: what is no CID at all must
/// be refused, and of the others only those with a hash of 32 bytes can pass.
#[test]
fn cid_lists() {
    for line in lines("cid_syntax_invalid") {
        assert!(line.parse::<crate::Cid>().is_err(), "{line:?}");
    }
    for line in lines("cid_syntax_valid") {
        if let Ok(cid) = line.parse::<crate::Cid>() {
            assert_eq!(cid.to_string(), line);
        }
    }
}

#[test]
fn datetimes_of_the_lists_exist_or_not() {
    for line in lines("datetime_syntax_valid") {
        assert!(datetime::unix_micros(&line).is_some(), "{line}");
    }
    for line in lines("datetime_parse_invalid") {
        assert!(datetime::unix_micros(&line).is_none(), "{line}");
    }
}

#[test]
fn the_empty_text_is_nothing() {
    assert!(did::check("").is_err());
    for check in [
        handle::check,
        nsid::check,
        record_key::check,
        tid::check,
        datetime::check,
        at_uri::check,
        repo_path::check,
    ] {
        assert!(!check(""));
    }
}

#[test]
fn did_methods() {
    let check = |text: &str, expected| assert_eq!(did::check(text), expected, "{text}");
    check("did:plc:7iza6de2dwap2sbkpav7c6c6", Ok(DidMethod::Plc));
    check("did:plc:short", Ok(DidMethod::Plc));
    check("did:web:example.com", Ok(DidMethod::Web));
    check("did:key:zQ3shZc2QzApp2oymGvQbzP8eKheVshBHbU4ZYjeXqwSKEn6N", Ok(DidMethod::Other));
    check(&format!("did:m:{}", "a".repeat(2042)), Ok(DidMethod::Other));
    check(&format!("did:m:{}", "a".repeat(2043)), Err(SyntaxError("DID")));

    assert!(did::is_plc("did:plc:7iza6de2dwap2sbkpav7c6c6"));
    assert!(!did::is_plc("did:plc:7iza6de2dwap2sbkpav7c6c"));
    assert!(!did::is_plc("did:plc:7iza6de2dwap2sbkpav7c6c66"));
    assert!(!did::is_plc("did:plc:7iza6de2dwap2sbkpav7c6c0"));
    assert!(!did::is_plc("did:plc:7IZA6de2dwap2sbkpav7c6c6"));
    assert!(!did::is_plc("did:web:example.com"));
}

#[test]
fn did_web_names_a_host_and_perhaps_a_port() {
    let check = |text, expected| assert_eq!(did::web_authority(text), expected, "{text}");
    check("did:web:example.com", Some(("example.com", None)));
    check("did:web:localhost%3A1234", Some(("localhost", Some(1234))));
    check("did:web:localhost%3a1234", Some(("localhost", Some(1234))));
    check("did:web:example.com:path", None);
    check("did:web:example.com%2Fpath", None);
    check("did:web:localhost%3A", None);
    check("did:web:localhost%3A0", None);
    check("did:web:localhost%3A65536", None);
    check("did:web:localhost%3A1234%3A5", None);
    check("did:web:example..com", None);
    check("did:web:exa_mple.com", None);
    check("did:web:-example.com", None);
    check("did:plc:7iza6de2dwap2sbkpav7c6c6", None);
}

#[test]
fn reserved_names() {
    assert!(handle::is_reserved("alice.test.LOCAL"));
    assert!(handle::is_reserved("localhost"));
    assert!(handle::is_reserved("handle.invalid"));
    assert!(!handle::is_reserved("alice.test"));
    assert!(!handle::is_reserved("local.example.com"));
}

#[test]
fn paths_in_a_repository() {
    assert_eq!(repo_path::split("com.example.post/self"), Some(("com.example.post", "self")));
    assert!(repo_path::check("com.example.fooBar/a:b~c._-"));
    for bad in [
        "com.example.post",
        "com.example.post/",
        "/com.example.post/self",
        "/self",
        "com.example.post/self/more",
        "com.example.post//self",
        "com.example.post/..",
        "com.example.post/.",
        "com.Example.post/self",
        "com.example/self",
        "com.example.post/with space",
        "com.example.post/\u{e4}",
    ] {
        assert!(!repo_path::check(bad), "{bad}");
    }
    assert!(repo_path::check(&format!("com.example.post/{}", "a".repeat(512))));
    assert!(!repo_path::check(&format!("com.example.post/{}", "a".repeat(513))));
}

#[test]
fn parts_of_at_uris() {
    let uri = AtUri::parse("at://alice.test/com.example.post/self").unwrap();
    let parts = uri.parts();
    assert_eq!(parts.authority, "alice.test");
    assert_eq!(parts.collection, Some("com.example.post"));
    assert_eq!(parts.record_key, Some("self"));
    let parts = at_uri::split("at://did:plc:asdf123").unwrap();
    assert_eq!((parts.collection, parts.record_key), (None, None));
}

#[test]
fn times_of_datetimes() {
    let check = |text, expected| assert_eq!(datetime::unix_micros(text), expected, "{text}");
    check("1970-01-01T00:00:00Z", Some(0));
    check("1969-12-31T23:59:59.999999Z", Some(-1));
    check("1970-01-01T01:45:00.5+01:45", Some(500_000));
    check("1969-12-31T17:00:00-07:00", Some(0));
    check("2000-02-29T00:00:00Z", Some(951_782_400_000_000));
    check("1900-02-29T00:00:00Z", None);
    check("2024-02-29T12:00:00.1234567899Z", Some(1_709_208_000_123_456));
    check("2023-02-29T12:00:00Z", None);
    check("1985-04-12T23:20:50.52Z", Some(482_196_050_520_000));
    check("2026-04-31T00:00:00Z", None);
    check("2016-12-31T23:59:60Z", Some(1_483_228_800_000_000));
    check("0000-01-01T00:00:00Z", Some(-62_167_219_200_000_000));
    check("2026-01-01T24:00:00Z", None);
    check("2026-01-01T00:00:00+24:00", None);
    assert!(!datetime::check(&format!("2026-01-01T00:00:00.{}Z", "1".repeat(44))));
    assert!(datetime::check(&format!("2026-01-01T00:00:00.{}Z", "1".repeat(43))));
}

#[test]
fn tids_are_numbers() {
    assert_eq!(Tid::parse("2222222222222"), Some(Tid::from_u64(0)));
    assert_eq!(Tid::parse("jzzzzzzzzzzzz"), Some(Tid::from_u64(u64::MAX)));
    let tid = Tid::parse("3jzfcijpj2z2a").unwrap();
    assert_eq!(tid.to_string(), "3jzfcijpj2z2a");
    assert_eq!(Tid::from_parts(tid.micros(), tid.clock_id()), tid);
    // 2023-06-22T20:34:11.990592Z
    assert_eq!(Tid::from_parts(1_687_466_051_990_592, 7).micros(), 1_687_466_051_990_592);
    assert_eq!(Tid::from_parts(1, 1024 + 3), Tid::from_u64(1024 + 3));
}

/// Text made of what such identifiers are made of, so that many come out valid or nearly so.
fn near_identifier() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC*",
        "[a-z0-9A-Z.:/%~_ -]{0,40}",
        "did:[a-z]{1,5}:[a-zA-Z0-9._:%-]{0,20}",
        "did:(web|plc):[a-z0-9%A.-]{0,40}",
        "([a-zA-Z0-9-]{0,10}\\.){1,4}[a-zA-Z0-9-]{0,10}",
        "([a-z0-9]{1,10}\\.){2,4}[a-zA-Z]{1,10}/[a-zA-Z0-9._:~-]{1,20}",
        "at://[a-z:0-9]{1,10}\\.[a-z]{1,5}(/[a-z.]{1,20}(/[a-z]{0,3})?)?",
        "[2-7a-z]{12,14}",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,9})?(Z|[+-][0-9]{2}:[0-9]{2})",
    ]
}

proptest! {
    #[test]
    fn parsing_never_panics_and_text_survives(text in near_identifier()) {
        macro_rules! survives {
            ($($name:ident)*) => {$(
                if let Ok(parsed) = text.parse::<$name>() {
                    prop_assert_eq!(&parsed.to_string(), &text);
                    prop_assert_eq!(parsed.to_string().parse::<$name>(), Ok(parsed));
                }
            )*};
        }
        survives!(Did Handle Nsid RecordKey AtUri Datetime Tid);
        let _ = did::web_authority(&text);
        let _ = did::is_plc(&text);
        let _ = datetime::unix_micros(&text);
        let _ = handle::is_reserved(&text);
        if let Some((collection, key)) = repo_path::split(&text) {
            prop_assert_eq!(format!("{collection}/{key}"), text);
        }
    }

    #[test]
    fn tids_sort_as_they_count(a: u64, b: u64) {
        let (a, b) = (Tid::from_u64(a), Tid::from_u64(b));
        prop_assert_eq!(Tid::parse(&a.to_string()), Some(a));
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
    }

    #[test]
    fn days_follow_each_other(day in 0..4_000_000i64, hour in 0..24i64) {
        // Walks the calendar naively for the same day.
        let (mut year, mut rest) = (0, day);
        loop {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let len = if leap { 366 } else { 365 };
            if rest < len {
                break;
            }
            rest -= len;
            year += 1;
        }
        prop_assume!(year < 10_000);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let mut month = 1;
        for len in [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if rest < len {
                break;
            }
            rest -= len;
            month += 1;
        }
        let text = format!("{year:04}-{month:02}-{:02}T{hour:02}:00:00Z", rest + 1);
        // The year 0 begins 719,528 days before 1970.
        let expected = ((day - 719_528) * 24 + hour) * 3_600_000_000;
        prop_assert_eq!(datetime::unix_micros(&text), Some(expected));
    }
}
