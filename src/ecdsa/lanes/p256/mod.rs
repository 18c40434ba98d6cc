//! P-256, y^2 = x^3 - 3 x + b: u1 G + u2 Q in Montgomery form.
//!
//! * [`point`] has the doubling, the addition and the sum; [`key_table`] and [`base_table`] the multiples
//!   that the digits of u1 and u2 choose; [`field`] is the arithmetic mod p.
//! * `constants.rs` is written by `../generate/p256.py`.

pub(super) mod base_table;
#[rustfmt::skip]
pub(super) mod constants;
pub(super) mod field;
pub(super) mod key_table;
pub(super) mod point;

use self::{base_table::BaseTable, constants::*, key_table::KeyTable};
use super::{
    batch::{InLanes, Job, Outcome},
    invert::Limbs62,
    scalar::Modulus,
};

/// The order of the group.
pub(crate) struct Order;

impl Modulus for Order {
    const LIMBS: [u64; 5] = N52;
    const MINUS_INVERSE: u64 = N0INV52;
    const R2: [u64; 5] = R2_N;
    const FOR_INVERSION: Limbs62 = Limbs62 { limbs: N62, inverse: NINV62 };
}

/// The size of the field: for its inversions, all else is in [`field`].
pub(crate) struct Prime;

impl Modulus for Prime {
    const LIMBS: [u64; 5] = P52;
    const MINUS_INVERSE: u64 = 1;
    const R2: [u64; 5] = R2_P;
    const FOR_INVERSION: Limbs62 = Limbs62 { limbs: P62, inverse: PINV62 };
}

pub(crate) struct P256;

impl InLanes for P256 {
    type Order = Order;
    type Base = BaseTable;
    type Room = KeyTable;

    const ORDER: [u64; 4] = N64;
    const HALF_ORDER: [u64; 4] = NHALF64;
    const FIELD_LESS_ORDER: [u64; 4] = P_MINUS_N64;
    const GENERATOR: ([u64; 4], [u64; 4]) = (GX64, GY64);

    fn base() -> &'static BaseTable {
        BaseTable::get()
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    unsafe fn room() -> KeyTable {
        KeyTable::new()
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    unsafe fn run(job: &Job, base: &BaseTable, room: &mut KeyTable) -> Outcome {
        point::run(job, base, room)
    }
}
