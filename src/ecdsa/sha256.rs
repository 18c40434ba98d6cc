//! SHA-256 of many messages: sixteen at once where the CPU has AVX-512, else one by one.
//!
//! Lanes are taken for messages of about the same length, if they are at least [`WORTH`] times the work
//! of the longest of them. They are used after a self-test only. Nothing is allocated but the order of
//! the messages, which is kept.

use std::{cmp::Reverse, sync::OnceLock};

use sha2::{Digest, Sha256};

pub(crate) const BLOCK_BYTES: usize = 64;

/// Messages side by side.
pub(crate) const MESSAGES: usize = 16;

/// Sixteen blocks side by side take as long as so many, one after the other, with SHA-NI.
const WORTH: usize = 8;

/// The state before the first block: the first 32 bits of the fractional parts of the square roots of
/// the first 8 primes.
pub(crate) const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The constant of each round: the same of the cube roots of the first 64 primes.
pub(crate) const ROUNDS: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// Blocks of a message, the padding included: a byte, zeros, and eight bytes of length.
pub(crate) fn block_count(bytes: usize) -> usize {
    (bytes + 9).div_ceil(BLOCK_BYTES)
}

/// Hashes many messages at a time.
#[derive(Clone, Debug, Default)]
pub struct Hasher {
    /// Blocks and place of each message.
    order: Vec<(u32, u32)>,
}

impl Hasher {
    /// Leaves the SHA-256 of `message(i)` in `digests[i]`, for each `i` below `count`.
    ///
    /// What was in `digests` is dropped; its room is used again.
    pub fn hash<'a>(
        &mut self,
        count: usize,
        message: impl Fn(usize) -> &'a [u8],
        digests: &mut Vec<[u8; 32]>,
    ) {
        digests.clear();
        digests.resize(count, [0; 32]);
        if count < WORTH || !has_lanes() {
            for (place, digest) in digests.iter_mut().enumerate() {
                *digest = Sha256::digest(message(place)).into();
            }
            return;
        }
        let blocks = |place| u32::try_from(block_count(message(place).len())).unwrap_or(u32::MAX);
        self.order.clear();
        self.order.extend((0..count).map(|place| (blocks(place), place as u32)));
        self.order.sort_unstable_by_key(|(blocks, _)| Reverse(*blocks));
        let mut rest = &self.order[..];
        while let Some((&(longest, first), others)) = rest.split_first() {
            let group = &rest[..rest.len().min(MESSAGES)];
            let work: u64 = group.iter().map(|(blocks, _)| u64::from(*blocks)).sum();
            if work < WORTH as u64 * u64::from(longest) {
                digests[first as usize] = Sha256::digest(message(first as usize)).into();
                rest = others;
            } else {
                rest = &rest[group.len()..];
                hash_group(group, &message, digests);
            }
        }
    }
}

fn hash_group<'a>(
    group: &[(u32, u32)],
    message: &impl Fn(usize) -> &'a [u8],
    digests: &mut [[u8; 32]],
) {
    let mut messages: [&[u8]; MESSAGES] = [&[]; MESSAGES];
    for (slot, (_, place)) in messages.iter_mut().zip(group) {
        *slot = message(*place as usize);
    }
    let mut found = [[0; 32]; MESSAGES];
    let found = &mut found[..group.len()];
    in_lanes(&messages[..group.len()], found);
    for ((_, place), found) in group.iter().zip(found) {
        digests[*place as usize] = *found;
    }
}

#[cfg(target_arch = "x86_64")]
fn in_lanes(messages: &[&[u8]], digests: &mut [[u8; 32]]) {
    crate::lanes::sha256::digests(messages, digests);
}

#[cfg(not(target_arch = "x86_64"))]
fn in_lanes(messages: &[&[u8]], digests: &mut [[u8; 32]]) {
    for (message, digest) in messages.iter().zip(digests) {
        *digest = Sha256::digest(message).into();
    }
}

/// Whether there are lanes, and they agree with the library.
fn has_lanes() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    #[cfg(target_arch = "x86_64")]
    let able = crate::lanes::sha256::is_able();
    #[cfg(not(target_arch = "x86_64"))]
    let able = false;
    *HAS.get_or_init(|| able && passes_self_test(in_lanes))
}

/// Every lane, with all lengths of padding, and lanes that end before others.
fn passes_self_test(in_lanes: impl Fn(&[&[u8]], &mut [[u8; 32]])) -> bool {
    let bytes: Vec<u8> = (0..4 * BLOCK_BYTES).map(|i| (i * 151 + i / 7) as u8).collect();
    (0..=3 * BLOCK_BYTES).all(|longest| {
        let messages: [&[u8]; MESSAGES] =
            std::array::from_fn(|lane| &bytes[lane..][..longest.saturating_sub(5 * lane)]);
        let mut digests = [[0; 32]; MESSAGES];
        in_lanes(&messages, &mut digests);
        messages.iter().zip(digests).all(|(message, digest)| Sha256::digest(message)[..] == digest)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agrees(messages: &[Vec<u8>]) {
        let mut digests = vec![[7; 32]; 3];
        Hasher::default().hash(messages.len(), |place| &messages[place], &mut digests);
        assert_eq!(digests.len(), messages.len());
        for (message, digest) in messages.iter().zip(digests) {
            assert_eq!(Sha256::digest(message)[..], digest, "{} bytes", message.len());
        }
    }

    /// The constants are what the standard says that they are.
    #[test]
    fn constants_are_roots_of_primes() {
        let primes = (2u32..312).filter(|n| (2..*n).all(|d| n % d != 0));
        let root =
            |value: f64| (value.fract() * f64::from(1u32 << 16) * f64::from(1u32 << 16)) as u32;
        for (at, prime) in primes.enumerate() {
            assert_eq!(ROUNDS[at], root(f64::from(prime).cbrt()), "round {at}");
            if let Some(initial) = INITIAL.get(at) {
                assert_eq!(*initial, root(f64::from(prime).sqrt()), "word {at}");
            }
        }
    }

    #[test]
    fn every_length_in_every_lane() {
        for length in 0..200usize {
            let messages: Vec<Vec<u8>> =
                (0..40).map(|i| vec![i as u8; (length + 13 * i) % 211]).collect();
            agrees(&messages);
        }
    }

    #[test]
    fn lanes_that_err_are_not_used() {
        let library = |messages: &[&[u8]], digests: &mut [[u8; 32]]| {
            for (message, digest) in messages.iter().zip(digests) {
                *digest = Sha256::digest(message).into();
            }
        };
        assert!(passes_self_test(library));
        for lane in 0..MESSAGES {
            assert!(!passes_self_test(|messages, digests| {
                library(messages, digests);
                // Only for lengths at the edge of a block.
                if messages[lane].len() % BLOCK_BYTES == 55 {
                    digests[lane][31] ^= 1;
                }
            }));
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn lanes_are_used_where_the_cpu_has_them() {
        assert_eq!(has_lanes(), crate::lanes::sha256::is_able());
    }

    proptest! {
        #[test]
        fn many_messages_are_hashed_as_one_by_one(
            messages in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..700),
                    prop::collection::vec(any::<u8>(), 190..260),
                    prop::collection::vec(any::<u8>(), 3000..5000),
                ],
                0..70,
            ),
        ) {
            agrees(&messages);
        }
    }
}
