//! Eight signatures of secp256k1 at once, in the lanes of AVX-512 IFMA: exact, one verdict a lane.
//!
//! * [`batch`] makes lanes of signatures and verdicts of lanes; it says which lanes are left to
//!   libsecp256k1.
//! * [`point`] computes u1 G + u2 Q, with the multiples of [`key_table`] and [`base_table`] that the
//!   [`digits`] of the [`scalar`]s choose.
//! * [`field`], [`scalar`] and [`invert`] are the arithmetic mod p and mod n, on [`vector`]s.
//! * `constants.rs` and `eisenstein.rs` are written by the scripts in `generate/`.
//!
//! Nothing here is constant in time: keys and signatures are public.
#![allow(unsafe_code, reason = "vectors are loaded and gathered through pointers")]
#![allow(
    clippy::large_types_passed_by_value,
    clippy::many_single_char_names,
    clippy::needless_range_loop,
    clippy::wildcard_imports,
    reason = "the letters of the formulas; limbs and columns are told apart by their index; \
              what is inlined is not passed"
)]

mod base_table;
mod batch;
#[rustfmt::skip]
mod constants;
mod digits;
#[rustfmt::skip]
mod eisenstein;
mod field;
mod invert;
mod key_table;
mod point;
mod scalar;
#[cfg(test)]
mod tests;
mod vector;

pub(crate) use batch::{GROUP, RECOMPUTED};

use crate::library::Item;

/// Verifies at most [`GROUP`] items in lanes.
pub(crate) type Kernel = fn(&[Item<'_>], &mut [bool]);

/// The kernel, with its tables made, if the CPU has what it takes.
pub(crate) fn kernel() -> Option<Kernel> {
    let able = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vbmi2");
    able.then(|| {
        base_table::BaseTable::get();
        verify as Kernel
    })
}

/// Given out by [`kernel`] only.
fn verify(items: &[Item<'_>], verdicts: &mut [bool]) {
    // SAFETY: `kernel` has found every feature that the function is compiled for.
    unsafe { batch::verify(items, verdicts) }
}
