//! Who verifies a batch, and what happens when lanes and library differ.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::{
    InUse, Settings, Signatures, Verifier,
    key::Point,
    library::{self, Item},
    verifier::lanes,
};

struct Signed {
    key: VerifyingKey,
    message: Vec<u8>,
    signature: [u8; 64],
}

impl Signed {
    fn check(&self) -> Check<'_> {
        Check { key: &self.key, message: &self.message, signature: &self.signature }
    }
}

/// Signatures of the curves in turn, every fifth of them spoiled.
fn signed(curves: &[Curve], count: usize) -> Vec<Signed> {
    (0..count)
        .map(|i| {
            let signer = SigningKey::from_seed(curves[i % curves.len()], &i.to_le_bytes());
            let message = vec![i as u8; i % 200];
            let mut signature = signer.sign(&message);
            if i % 5 == 3 {
                signature[i % 64] ^= 0x10;
            }
            Signed { key: signer.verifying_key(), message, signature }
        })
        .collect()
}

fn verdicts(verifier: &Verifier, signed: &[Signed]) -> Vec<bool> {
    let checks: Vec<_> = signed.iter().map(Signed::check).collect();
    // What is in there already does not matter.
    let mut verdicts = vec![true; 3];
    verifier.verify_batch(&checks, &mut verdicts);
    verdicts
}

fn expected(signed: &[Signed]) -> Vec<bool> {
    signed.iter().map(|signed| oracle(&signed.key, &signed.message, &signed.signature)).collect()
}

/// Finds everything good that the library finds bad, and the other way about.
fn liar(items: &[Item<'_>], verdicts: &mut [bool]) {
    library::verify_items(items, verdicts);
    for verdict in verdicts {
        *verdict = !*verdict;
    }
}

/// Errs on the last item only.
fn careless(items: &[Item<'_>], verdicts: &mut [bool]) {
    library::verify_items(items, verdicts);
    if let Some(last) = verdicts.last_mut() {
        *last = !*last;
    }
}

fn settings(audit_every: u64) -> Settings {
    Settings { signatures: Signatures::Auto, audit_every }
}

#[test]
fn batches_of_every_size_and_both_curves() {
    use Curve::{K256, P256};
    let sets = [signed(&[K256], 150), signed(&[K256, P256], 150), signed(&[P256], 9)];
    for signatures in [Signatures::Auto, Signatures::Library] {
        let verifier = Verifier::new(Settings { signatures, audit_every: 3 });
        for set in &sets {
            let expected = expected(set);
            for count in (0..20).chain([63, 64, 65, 66, 127, 128, 129, 130, 150]) {
                let count = count.min(set.len());
                assert_eq!(verdicts(&verifier, &set[..count]), expected[..count], "{count}");
            }
        }
        assert_eq!(verifier.status().differences, 0);
    }
}

#[test]
fn the_settings_say_who_verifies() {
    let set = signed(&[Curve::K256], 70);
    let library = Verifier::new(Settings { signatures: Signatures::Library, audit_every: 1 });
    let auto = Verifier::new(settings(2));
    verdicts(&library, &set);
    verdicts(&auto, &set);
    verdicts(&auto, &set[..1]);
    assert_eq!(library.status().in_use, InUse::LibraryChosen);
    assert_eq!(library.status().groups, 0);
    let status = auto.status();
    if lanes::kernel().is_some() {
        // 64 and 6; a lone one takes no lanes.
        assert_eq!((status.in_use, status.groups, status.audits), (InUse::Lanes, 2, 1));
    } else {
        assert_eq!((status.in_use, status.groups), (InUse::LibraryNoLanes, 0));
    }
    assert_eq!((status.differences, status.first_difference), (0, None));
}

#[test]
fn lanes_that_err_fail_the_self_test() {
    for kernel in [liar, careless] {
        let verifier = Verifier::tested(kernel, settings(1));
        assert_eq!(verifier.status().in_use, InUse::LibrarySelfTest);
        let set = signed(&[Curve::K256], 20);
        assert_eq!(verdicts(&verifier, &set), expected(&set));
    }
    if let Some(kernel) = lanes::kernel() {
        assert_eq!(Verifier::tested(kernel, settings(1)).status().in_use, InUse::Lanes);
    }
}

#[test]
fn a_difference_is_an_alarm_and_the_library_stands() {
    let set = signed(&[Curve::K256], 20);
    let verifier = Verifier::of(Some(careless), InUse::Lanes, settings(3));
    let expected = expected(&set);
    // Two groups pass unheard, each with one wrong verdict.
    for group in 0..2 {
        assert_ne!(verdicts(&verifier, &set), expected, "{group}");
        assert!(!verifier.alarmed());
    }
    // The third is audited.
    assert_eq!(verdicts(&verifier, &set), expected);
    assert!(verifier.alarmed());
    let status = verifier.status();
    assert_eq!(status.in_use, InUse::LibraryAlarm);
    assert_eq!((status.groups, status.audits, status.differences), (3, 1, 1));
    let difference = status.first_difference.unwrap();
    let last = &set[19];
    assert_eq!((difference.key, difference.signature), (last.key, last.signature));
    assert_eq!(difference.lanes, !expected[19]);
    let Point::K256(key) = &difference.key.0 else { panic!() };
    let item = Item { key, digest: difference.digest, signature: &difference.signature };
    assert_eq!(library::verify_item(&item), expected[19]);

    // From here on the library does it all.
    for _ in 0..9 {
        assert_eq!(verdicts(&verifier, &set), expected);
    }
    assert_eq!(verifier.status().groups, 3);
}

#[test]
fn an_alarm_in_one_group_holds_for_the_rest_of_the_batch() {
    let set = signed(&[Curve::K256], 200);
    static TOLD: AtomicU32 = AtomicU32::new(0);
    let verifier = Verifier::of(Some(liar), InUse::Lanes, settings(1)).telling(|difference| {
        assert!(difference.to_string().contains("the library true; key 0"));
        TOLD.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(verdicts(&verifier, &set), expected(&set));
    assert_eq!(TOLD.load(Ordering::Relaxed), 1);
    let status = verifier.status();
    assert_eq!((status.groups, status.differences), (1, 64));
}

#[test]
fn no_audits_if_none_are_wanted() {
    let set = signed(&[Curve::K256], 12);
    let verifier = Verifier::of(Some(liar), InUse::Lanes, settings(0));
    assert_ne!(verdicts(&verifier, &set), expected(&set));
    assert_eq!(verifier.status().audits, 0);
}

#[test]
fn the_process_prepares_once() {
    let library = Settings { signatures: Signatures::Library, audit_every: 1 };
    let first = crate::prepare(Settings::default(), |_| {});
    assert_eq!(crate::prepare(library, |_| {}), first);
    assert_eq!(crate::status().in_use, first);
}
