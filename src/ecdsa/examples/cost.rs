//! CPU time of a signature: the library alone, and batches of several sizes, in turn.
//!
//!     cargo run --release -p relayered-ecdsa --example cost [ROUNDS]

use ecdsa::{Check, Curve, Settings, Signatures, Verifier, VerifyingKey, sign::SigningKey};
use rustix::time::{ClockId, clock_gettime};

/// Signatures in all; batches take their share of them in turn.
const POOL: usize = 512;
const SIZES: [usize; 9] = [1, 2, 3, 4, 8, 16, 32, 64, 512];
/// Signatures between two looks at the clock, at least.
const MEASURED_MIN: usize = 32;

struct Signed {
    key: VerifyingKey,
    message: Vec<u8>,
    signature: [u8; 64],
}

fn cpu_nanoseconds() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn signed(curve: Curve) -> Vec<Signed> {
    (0..POOL as u32)
        .map(|i| {
            let signer = SigningKey::from_seed(curve, &i.to_le_bytes());
            // The unsigned bytes of a commit are about as long.
            let message = vec![i as u8; 200];
            let signature = signer.sign(&message);
            Signed { key: signer.verifying_key(), message, signature }
        })
        .collect()
}

/// Microseconds a signature in batches of `size`, the least and the middle of all rounds.
fn costs(verifier: &Verifier, checks: &[Check<'_>], size: usize, rounds: usize) -> (f64, f64) {
    let mut verdicts = Vec::with_capacity(size);
    let calls = MEASURED_MIN.div_ceil(size);
    let mut costs: Vec<f64> = (0..rounds)
        .map(|round| {
            let start = cpu_nanoseconds();
            for call in 0..calls {
                let from = (round * 8 + call * size) % (POOL - size + 1);
                verifier.verify_batch(&checks[from..from + size], &mut verdicts);
                assert!(verdicts.iter().all(|good| *good));
            }
            (cpu_nanoseconds() - start) as f64 / (calls * size) as f64 / 1e3
        })
        .collect();
    costs.sort_by(f64::total_cmp);
    (costs[0], costs[rounds / 2])
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(100);
    for curve in [Curve::K256, Curve::P256] {
        let signed = signed(curve);
        let checks: Vec<_> = signed
            .iter()
            .map(|signed| Check {
                key: &signed.key,
                message: &signed.message,
                signature: &signed.signature,
            })
            .collect();
        for signatures in [Signatures::Library, Signatures::Auto] {
            let start = cpu_nanoseconds();
            let verifier = Verifier::new(Settings { signatures, audit_every: 0 });
            let prepared = (cpu_nanoseconds() - start) as f64 / 1e6;
            println!("{curve:?}, {}; prepared in {prepared:.1} ms", verifier.status().in_use);
            for size in SIZES {
                let (least, middle) = costs(&verifier, &checks, size, rounds);
                println!("  batch {size:>3}: least {least:7.2} middle {middle:7.2} us a signature");
            }
            println!("  recomputed by the library: {}", verifier.status().recomputed);
        }
    }
}
