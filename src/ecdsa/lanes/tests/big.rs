//! Natural numbers of any size: slow and simple.

use super::super::vector::{M52, V};

/// Words of 32 bits, lowest first, the highest not zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Big(pub(super) Vec<u32>);

impl Big {
    pub(super) fn zero() -> Self {
        Self(Vec::new())
    }

    pub(super) fn power_of_two(exponent: usize) -> Self {
        Self(vec![1]).shl(exponent)
    }

    pub(super) fn from_limbs(limbs: &[u64], width: usize) -> Self {
        limbs.iter().enumerate().fold(Self::zero(), |sum, (i, &limb)| {
            sum.add(&Self(vec![limb as u32, (limb >> 32) as u32]).shl(width * i))
        })
    }

    pub(super) fn from_hex(digits: &str) -> Self {
        digits.chars().fold(Self::zero(), |sum, digit| {
            sum.shl(4).add(&Self(vec![digit.to_digit(16).unwrap()]).trimmed())
        })
    }

    fn trimmed(mut self) -> Self {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    pub(super) fn add(&self, other: &Self) -> Self {
        let mut carry = 0;
        let sum = (0..=self.0.len().max(other.0.len())).map(|i| {
            let word = |number: &Self| u64::from(*number.0.get(i).unwrap_or(&0));
            carry += word(self) + word(other);
            let low = carry as u32;
            carry >>= 32;
            low
        });
        Self(sum.collect()).trimmed()
    }

    pub(super) fn shl(&self, count: usize) -> Self {
        let mut words = vec![0; count / 32];
        let mut carry = 0;
        for &word in &self.0 {
            carry |= u64::from(word) << (count % 32);
            words.push(carry as u32);
            carry >>= 32;
        }
        words.push(carry as u32);
        Self(words).trimmed()
    }

    pub(super) fn mul(&self, other: &Self) -> Self {
        let mut words = vec![0; self.0.len() + other.0.len() + 1];
        for (i, &a) in self.0.iter().enumerate() {
            let mut carry = 0;
            for (j, &b) in other.0.iter().enumerate() {
                carry += u64::from(a) * u64::from(b) + u64::from(words[i + j]);
                words[i + j] = carry as u32;
                carry >>= 32;
            }
            words[i + other.0.len()] = carry as u32;
        }
        Self(words).trimmed()
    }

    pub(super) fn is_below(&self, other: &Self) -> bool {
        match self.0.len().cmp(&other.0.len()) {
            std::cmp::Ordering::Equal => self.0.iter().rev().lt(other.0.iter().rev()),
            different => different.is_lt(),
        }
    }

    /// `self` - `other`, which is not larger.
    pub(super) fn sub(&self, other: &Self) -> Self {
        let mut words = self.0.clone();
        let mut borrow = 0;
        for (i, word) in words.iter_mut().enumerate() {
            borrow += i64::from(*word) - i64::from(*other.0.get(i).unwrap_or(&0));
            *word = borrow as u32;
            borrow >>= 32;
        }
        assert_eq!(borrow, 0);
        Self(words).trimmed()
    }

    pub(super) fn modulo(&self, modulus: &Self) -> Self {
        let mut rest = self.clone();
        let shifts = (self.0.len() * 32).saturating_sub(modulus.0.len() * 32 - 32);
        for shift in (0..=shifts).rev() {
            let multiple = modulus.shl(shift);
            if !rest.is_below(&multiple) {
                rest = rest.sub(&multiple);
            }
        }
        assert!(rest.is_below(modulus));
        rest
    }
}

pub(super) fn lanes(v: V) -> [u64; 8] {
    // SAFETY: both are 64 bytes of which every pattern is valid.
    unsafe { std::mem::transmute(v) }
}

pub(super) fn vector(lanes: [u64; 8]) -> V {
    // SAFETY: both are 64 bytes of which every pattern is valid.
    unsafe { std::mem::transmute(lanes) }
}

/// The limbs in one lane.
pub(super) fn lane<const LIMBS: usize>(v: &[V; LIMBS], lane: usize) -> [u64; LIMBS] {
    v.map(|limb| lanes(limb)[lane])
}

/// The limbs in one lane without the junk above bit 52 of all but the last.
pub(super) fn clean_lane<const LIMBS: usize>(v: &[V; LIMBS], at: usize) -> [u64; LIMBS] {
    let mut limbs = lane(v, at);
    for limb in &mut limbs[..LIMBS - 1] {
        *limb &= M52;
    }
    limbs
}
