//! What is particular to P-256.

mod constants;
mod exceptional;
mod field;
mod tables;

use super::{
    super::{p256::constants::P52, scalar::Modulus},
    big::Big,
};

fn p() -> Big {
    Big::from_limbs(&P52, 52)
}

fn n() -> Big {
    Big::from_limbs(&super::super::p256::Order::LIMBS, 52)
}
