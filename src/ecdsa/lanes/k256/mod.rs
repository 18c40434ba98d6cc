//! secp256k1, y^2 = x^3 + 7: u1 G + u2 Q with the endomorphism (x, y) -> (beta x, y), which halves the
//! doublings.
//!
//! * [`point`] has the doubling, the addition and the sum; [`key_table`] and [`base_table`] the multiples
//!   that the [`digits`] of the [`halves`] of u1 and u2 choose; [`field`] is the arithmetic mod p.
//! * `constants.rs` and `eisenstein.rs` are written by scripts in `../generate`.

pub(super) mod base_table;
#[rustfmt::skip]
pub(super) mod constants;
pub(super) mod digits;
#[rustfmt::skip]
pub(super) mod eisenstein;
pub(super) mod field;
pub(super) mod halves;
mod key_table;
mod point;

use self::{base_table::BaseTable, constants::*, point::Room};
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

pub(crate) struct K256;

impl InLanes for K256 {
    type Order = Order;
    type Base = BaseTable;
    type Room = Room;

    const ORDER: [u64; 4] = N64;
    const HALF_ORDER: [u64; 4] = NHALF64;
    const FIELD_LESS_ORDER: [u64; 4] = P_MINUS_N64;
    const GENERATOR: ([u64; 4], [u64; 4]) = (GX64, GY64);

    fn base() -> &'static BaseTable {
        BaseTable::get()
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    unsafe fn room() -> Room {
        Room::new()
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    unsafe fn run(job: &Job, base: &BaseTable, room: &mut Room) -> Outcome {
        room.run(job, base)
    }
}
