//! What is particular to secp256k1.

mod constants;
mod exceptional;
mod field;
mod halves;

use super::{
    super::k256::constants::{N52, P52},
    big::Big,
    kit::{K256, Tested, lambda_bytes},
};

fn p() -> Big {
    Big::from_limbs(&P52, 52)
}

fn n() -> Big {
    Big::from_limbs(&N52, 52)
}

fn lambda() -> k256::Scalar {
    K256::scalar(lambda_bytes())
}
