//! Who verifies a batch, and what happens when lanes and library differ.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::{
    InUse, Settings, Signatures, Verifier,
    kernel::{Item, Verdict, detect},
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

/// The verdict of the pure Rust crates on a digest.
fn honest(item: &Item<'_>) -> bool {
    use k256::ecdsa::signature::hazmat::PrehashVerifier;
    let point = item.key.to_sec1_uncompressed();
    is_low_s(item.key.curve(), item.signature)
        && match item.key.curve() {
            Curve::K256 => {
                let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
                k256::ecdsa::Signature::from_slice(item.signature)
                    .is_ok_and(|signature| key.verify_prehash(&item.digest, &signature).is_ok())
            }
            Curve::P256 => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
                p256::ecdsa::Signature::from_slice(item.signature)
                    .is_ok_and(|signature| key.verify_prehash(&item.digest, &signature).is_ok())
            }
        }
}

/// Errs where `errs` says so, given the curve, the item's place and the number of items.
fn give(
    curve: Curve,
    items: &[Item<'_>],
    verdicts: &mut [Verdict],
    errs: impl Fn(usize, usize) -> bool,
) {
    for (i, (item, verdict)) in items.iter().zip(verdicts).enumerate() {
        assert_eq!(item.key.curve(), curve);
        let good = honest(item) != errs(i, items.len());
        *verdict = if good { Verdict::Good } else { Verdict::Bad };
    }
}

/// Finds everything good that the library finds bad, and the other way about.
fn liar(curve: Curve, items: &[Item<'_>], verdicts: &mut [Verdict]) {
    give(curve, items, verdicts, |_, _| true);
}

/// Errs on the last item only.
fn careless(curve: Curve, items: &[Item<'_>], verdicts: &mut [Verdict]) {
    give(curve, items, verdicts, |i, len| i == len - 1);
}

/// Errs on the last item if it is of P-256.
fn careless_with_p256(curve: Curve, items: &[Item<'_>], verdicts: &mut [Verdict]) {
    give(curve, items, verdicts, |i, len| curve == Curve::P256 && i == len - 1);
}

/// Errs on the last item if it is of secp256k1.
fn careless_with_k256(curve: Curve, items: &[Item<'_>], verdicts: &mut [Verdict]) {
    give(curve, items, verdicts, |i, len| curve == Curve::K256 && i == len - 1);
}

/// Errs on the last of five items.
fn careless_with_five(curve: Curve, items: &[Item<'_>], verdicts: &mut [Verdict]) {
    give(curve, items, verdicts, |i, len| len == 5 && i == 4);
}

/// Takes infinity for a good sum, in one lane.
fn blind<const LANE: usize>(curve: Curve, items: &[Item<'_>], verdicts: &mut [Verdict]) {
    give(curve, items, verdicts, |i, _| {
        i % 8 == LANE && items[i].digest == items[i].signature[..32]
    });
}

/// Has a good word for everything.
fn kind(_curve: Curve, _items: &[Item<'_>], verdicts: &mut [Verdict]) {
    verdicts.fill(Verdict::Good);
}

/// Has a bad word for everything.
fn unkind(_curve: Curve, _items: &[Item<'_>], verdicts: &mut [Verdict]) {
    verdicts.fill(Verdict::Bad);
}

/// Cannot make up its mind.
fn doubtful(_curve: Curve, _items: &[Item<'_>], verdicts: &mut [Verdict]) {
    verdicts.fill(Verdict::Undecided);
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
    let set = signed(&[Curve::K256, Curve::P256], 140);
    let library = Verifier::new(Settings { signatures: Signatures::Library, audit_every: 1 });
    let auto = Verifier::new(settings(2));
    verdicts(&library, &set);
    verdicts(&auto, &set);
    verdicts(&auto, &set[..1]);
    verdicts(&auto, &set[..2]);
    assert_eq!(library.status().in_use, InUse::LibraryChosen);
    assert_eq!(library.status().groups, 0);
    let status = auto.status();
    if detect().is_some() {
        // 64 and 6 of each curve; a lone one takes no lanes.
        assert_eq!((status.in_use, status.groups, status.audits), (InUse::Lanes, 4, 2));
    } else {
        assert_eq!((status.in_use, status.groups), (InUse::LibraryNoLanes, 0));
    }
    assert_eq!((status.differences, status.first_difference), (0, None));
}

#[test]
fn lanes_that_err_fail_the_self_test() {
    let kernels = [
        liar,
        careless,
        careless_with_k256,
        careless_with_p256,
        careless_with_five,
        blind::<0>,
        blind::<1>,
        blind::<2>,
        blind::<3>,
        blind::<4>,
        blind::<5>,
        blind::<6>,
        blind::<7>,
        kind,
        unkind,
        doubtful,
    ];
    for kernel in kernels {
        let verifier = Verifier::tested(kernel, settings(1));
        assert_eq!(verifier.status().in_use, InUse::LibrarySelfTest);
        let set = signed(&CURVES, 20);
        assert_eq!(verdicts(&verifier, &set), expected(&set));
    }
    if let Some(kernel) = detect() {
        assert_eq!(Verifier::tested(kernel, settings(1)).status().in_use, InUse::Lanes);
    }
}

#[test]
fn undecided_lanes_are_for_the_library() {
    let set = signed(&CURVES, 20);
    let verifier = Verifier::of(Some(doubtful), InUse::Lanes, settings(1));
    assert_eq!(verdicts(&verifier, &set), expected(&set));
    let status = verifier.status();
    assert_eq!((status.recomputed, status.differences), (20, 0));
    let all_lanes = Verifier::of(Some(careless_with_p256), InUse::Lanes, settings(0));
    assert_ne!(verdicts(&all_lanes, &set), expected(&set));
    assert_eq!(all_lanes.status().recomputed, 0);
}

#[test]
fn a_difference_is_an_alarm_and_the_library_stands() {
    for curve in CURVES {
        difference_of(curve);
    }
}

fn difference_of(curve: Curve) {
    let set = signed(&[curve], 20);
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
    let item =
        Item { key: &difference.key, digest: difference.digest, signature: &difference.signature };
    assert_eq!(honest(&item), expected[19]);

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
