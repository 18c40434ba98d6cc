//! SHA-256 of sixteen messages at once, one in each lane of 32 bits.
//!
//! A vector holds the same word of sixteen states, or of sixteen blocks; a block of each message is
//! turned from rows into such columns first. Messages need not be of the same length: a lane whose
//! message has ended keeps its state while the others go on. Additions are modulo 2^32, which is what
//! lanes do; there are no bounds to watch.

use std::arch::x86_64::*;

use crate::sha256::{BLOCK_BYTES, INITIAL, MESSAGES, ROUNDS, block_count};

/// Whether the CPU has what [`digests`] is compiled for.
pub(crate) fn is_able() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

/// The digest of each message. At most [`MESSAGES`] of them, the longest one first.
///
/// # Panics
/// If the CPU is not able, or there are too many.
pub(crate) fn digests(messages: &[&[u8]], digests: &mut [[u8; 32]]) {
    assert!(is_able() && messages.len() <= MESSAGES && messages.len() == digests.len());
    // SAFETY: the CPU has the features.
    unsafe { run(messages, digests) }
}

/// A message cut into blocks, the last one or two of them padded.
#[derive(Clone, Copy)]
struct Lane<'a> {
    whole: &'a [[u8; BLOCK_BYTES]],
    tail: [__m512i; 2],
    blocks: usize,
}

impl<'a> Lane<'a> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn of(message: &'a [u8]) -> Self {
        let (whole, rest) = message.as_chunks();
        let blocks = block_count(message.len());
        let end = 1u64 << rest.len();
        // SAFETY: bytes behind the message are masked off, and what is masked off is not read.
        let bytes = unsafe { _mm512_maskz_loadu_epi8(end - 1, rest.as_ptr().cast()) };
        let padded = _mm512_mask_mov_epi8(bytes, end, _mm512_set1_epi8(i8::MIN));
        // The last eight bytes of the last block.
        let bits = _mm512_set1_epi64((message.len() as u64 * 8).swap_bytes().cast_signed());
        let tail = if blocks == whole.len() + 1 {
            [_mm512_mask_mov_epi64(padded, 0x80, bits), _mm512_setzero_si512()]
        } else {
            [padded, _mm512_maskz_mov_epi64(0x80, bits)]
        };
        Self { whole, tail, blocks }
    }

    /// `at`: below `blocks`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn block(&self, at: usize) -> __m512i {
        match self.whole.get(at) {
            // SAFETY: a block is 64 bytes, and the load asks for no alignment.
            Some(block) => unsafe { _mm512_loadu_si512(block.as_ptr().cast()) },
            None => self.tail[at - self.whole.len()],
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn run(messages: &[&[u8]], digests: &mut [[u8; 32]]) {
    let zero = _mm512_setzero_si512();
    let mut lanes = [Lane { whole: &[], tail: [zero; 2], blocks: 0 }; MESSAGES];
    for (lane, message) in lanes.iter_mut().zip(messages) {
        *lane = Lane::of(message);
    }
    let mut state: [__m512i; 8] = INITIAL.map(|word| _mm512_set1_epi32(word.cast_signed()));
    for at in 0..lanes[0].blocks {
        let mut active = 0;
        let mut rows = [zero; MESSAGES];
        for (number, (lane, row)) in lanes.iter().zip(&mut rows).enumerate() {
            if at < lane.blocks {
                active |= 1 << number;
                *row = swapped(lane.block(at));
            }
        }
        compress(&mut state, columns(rows), active);
    }
    let mut words = [zero; 16];
    words[..8].copy_from_slice(&state);
    for (digest, row) in digests.iter_mut().zip(columns(words)) {
        let low = _mm512_castsi512_si256(swapped(row));
        // SAFETY: a digest is 32 bytes, and the store asks for no alignment.
        unsafe { _mm256_storeu_si256(digest.as_mut_ptr().cast(), low) };
    }
}

/// Each word with its bytes the other way round.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn swapped(bytes: __m512i) -> __m512i {
    let swap = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    _mm512_shuffle_epi8(bytes, swap)
}

/// From a row for each message to a column for each word, and back.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn columns(r: [__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    // Within each quarter of 128 bits: pairs of rows, then fours. `f[4 * i + j]` holds of rows
    // 4i..4i+4 the words j, 4 + j, 8 + j, 12 + j.
    let mut f = [zero; 16];
    for i in 0..4 {
        let [a, b, c, d] = [r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]];
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        f[4 * i] = _mm512_unpacklo_epi64(ab_low, cd_low);
        f[4 * i + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
        f[4 * i + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        f[4 * i + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    // Then the quarters.
    let mut columns = [zero; 16];
    for j in 0..4 {
        let [a, b, c, d] = [f[j], f[4 + j], f[8 + j], f[12 + j]];
        let (ab_even, ab_odd) =
            (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (cd_even, cd_odd) =
            (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
        columns[j] = _mm512_shuffle_i32x4::<0x88>(ab_even, cd_even);
        columns[4 + j] = _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd);
        columns[8 + j] = _mm512_shuffle_i32x4::<0xdd>(ab_even, cd_even);
        columns[12 + j] = _mm512_shuffle_i32x4::<0xdd>(ab_odd, cd_odd);
    }
    columns
}

/// x xor y xor z, x ? y : z, the majority: as truth tables.
const XOR: i32 = 0x96;
const CHOOSE: i32 = 0xca;
const MAJORITY: i32 = 0xe8;

/// Eight rounds, after which each word of the state is in its own place again.
macro_rules! eight_rounds {
    ($state:ident, $w:ident, $k:expr, $from:literal) => {
        eight_rounds!(@ $state, $w, $k, $from, 0 1 2 3 4 5 6 7)
    };
    (@ $state:ident, $w:ident, $k:expr, $from:literal, $($t:literal)*) => {
        $({
            let [a, b, c, d, e, f, g, h] =
                std::array::from_fn::<__m512i, 8, _>(|i| $state[(i + 8 - $t) % 8]);
            let s1 = _mm512_ternarylogic_epi32::<XOR>(
                _mm512_ror_epi32::<6>(e), _mm512_ror_epi32::<11>(e), _mm512_ror_epi32::<25>(e));
            let choice = _mm512_ternarylogic_epi32::<CHOOSE>(e, f, g);
            let wk = _mm512_add_epi32($w[$from + $t], _mm512_set1_epi32($k[$from + $t].cast_signed()));
            let t1 = _mm512_add_epi32(_mm512_add_epi32(h, wk), _mm512_add_epi32(s1, choice));
            let s0 = _mm512_ternarylogic_epi32::<XOR>(
                _mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a));
            let majority = _mm512_ternarylogic_epi32::<MAJORITY>(a, b, c);
            $state[(11 - $t) % 8] = _mm512_add_epi32(d, t1);
            $state[(15 - $t) % 8] = _mm512_add_epi32(t1, _mm512_add_epi32(s0, majority));
        })*
    };
}

/// The words of the next sixteen rounds, in the place of those of the last.
macro_rules! schedule {
    ($w:ident) => { schedule!(@ $w, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15) };
    (@ $w:ident, $($t:literal)*) => {
        $({
            let (x, y) = ($w[($t + 1) % 16], $w[($t + 14) % 16]);
            let s0 = _mm512_ternarylogic_epi32::<XOR>(
                _mm512_ror_epi32::<7>(x), _mm512_ror_epi32::<18>(x), _mm512_srli_epi32::<3>(x));
            let s1 = _mm512_ternarylogic_epi32::<XOR>(
                _mm512_ror_epi32::<17>(y), _mm512_ror_epi32::<19>(y), _mm512_srli_epi32::<10>(y));
            $w[$t] = _mm512_add_epi32(
                _mm512_add_epi32($w[$t], s0), _mm512_add_epi32($w[($t + 9) % 16], s1));
        })*
    };
}

/// A block into the state of each active lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn compress(state: &mut [__m512i; 8], mut w: [__m512i; 16], active: __mmask16) {
    let mut s = *state;
    let (rounds, _) = ROUNDS.as_chunks::<16>();
    eight_rounds!(s, w, rounds[0], 0);
    eight_rounds!(s, w, rounds[0], 8);
    for k in &rounds[1..] {
        schedule!(w);
        eight_rounds!(s, w, k, 0);
        eight_rounds!(s, w, k, 8);
    }
    for (before, after) in state.iter_mut().zip(s) {
        *before = _mm512_mask_add_epi32(*before, active, *before, after);
    }
}
