//! Digits are Eisenstein integers a + b*w, w = lambda; written by
//! ../generate/eisenstein.py: do not edit.
/// Multiples of P in the table, in the order they are computed: [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (3, 1), (2, 1), (3, 2), (4, 3), (4, 2), (5, 3)] as (a, b).
pub(crate) const ENTRIES: usize = 11;
/// Entry i+2 = entry i+1 + unit*P; the unit changes from the last one by w^(k%3) * (-1 if k >= 3).
pub(crate) const STEPS: [u8; 9] = [0, 0, 1, 5, 0, 2, 0, 2, 1];
/// Index a mod 8 | (b mod 8) << 3 -> entry*4 + rotation, 0x40 = negative, 0x80 = zero digit.
pub(crate) const LUT: [u8; 64] = [128, 0, 4, 8, 12, 72, 68, 64, 1, 66, 24, 20, 16, 33, 29, 25, 5, 90, 70, 28, 36, 41, 37, 21, 9, 94, 86, 74, 32, 40, 42, 17, 13, 98, 102, 82, 14, 18, 38, 34, 73, 81, 106, 104, 96, 10, 22, 30, 69, 85, 101, 105, 100, 92, 6, 26, 65, 89, 93, 97, 80, 84, 88, 2];
/// Same index -> carries into the next window: a | b << 1.
pub(crate) const LUT_CARRY: [u8; 64] = [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 0, 0, 3, 3, 3, 3, 2, 2, 0, 3, 3, 3, 3, 3, 2, 2, 2, 2, 3, 3, 3, 3, 2, 2, 2, 2, 3, 3, 3, 3];
/// Start point T = t*G, t = sha256("ifma-ecdsa start point") mod n.
pub(crate) const TX: [u64; 5] = [0x26dd175e28547, 0xd4dcd62d01bae, 0x125e4b4d92b93, 0x77267a3199939, 0x98747ae28e54];
pub(crate) const TY: [u64; 5] = [0x757f32ab74c52, 0xe90811d9c0e2c, 0x53639d032207f, 0x7070a4cb20df0, 0xdce822f32680];
/// -t * 2^126 mod n
pub(crate) const T_CORR: [u64; 5] = [0x34186aced8d20, 0x38d84f8d2ec77, 0x2cdb17c09c80d, 0x8bc5d87855c80, 0x4e55470f79aa];
pub(crate) const BETA2: [u64; 5] = [0x693d68e6afa40, 0x8aed0a766a3ec, 0x3cbcb16630fb6, 0xf8ef919bb8615, 0x851695d49a83];
