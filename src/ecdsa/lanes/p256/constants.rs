//! Numbers of P-256, written by ../generate/p256.py: do not edit.
/// p in radix 2^52
pub(crate) const P52: [u64; 5] = [0xfffffffffffff, 0xfffffffffff, 0x0, 0x1000000000, 0xffffffff0000];
pub(crate) const P62: [u64; 5] = [0x3fffffffffffffff, 0x3ffffffff, 0x0, 0x3fffffc000000040, 0xff];
/// 1/p mod 2^62
pub(crate) const PINV62: u64 = 0x3fffffffffffffff;
/// p + 1 in radix 2^52; limbs 0 and 2 are zero
pub(crate) const Q1: u64 = 0x100000000000;
pub(crate) const Q3: u64 = 0x1000000000;
pub(crate) const Q4: u64 = 0xffffffff0000;
/// 2^260 mod p: one in Montgomery form
pub(crate) const ONE: [u64; 5] = [0x10, 0xf000000000000, 0xfffffffffffff, 0xffeffffffffff, 0xfffff];
/// 2^520 mod p
pub(crate) const R2_P: [u64; 5] = [0x300, 0xffffffff00000, 0xffffefffffffb, 0xfdfffffffffff, 0x4ffffff];
/// 2^780 mod p
pub(crate) const R3_P: [u64; 5] = [0xfd0000000a000, 0xffffff7ffffff, 0xfffcffffffedf, 0x100000005ffff, 0x180000000];
/// n in radix 2^52
pub(crate) const N52: [u64; 5] = [0x9cac2fc632551, 0xada7179e84f3b, 0xfffffffbce6fa, 0xfffffffff, 0xffffffff0000];
pub(crate) const N62: [u64; 5] = [0x33b9cac2fc632551, 0x339beab69c5e7a13, 0x3ffffffffffffffb, 0x3fffffc00000003f, 0xff];
/// 1/n mod 2^62
pub(crate) const NINV62: u64 = 0x332e375511ff43b1;
/// -1/n mod 2^52
pub(crate) const N0INV52: u64 = 0x1c8aaee00bc4f;
/// 2^520 mod n
pub(crate) const R2_N: [u64; 5] = [0x5cc0dea6dc3ba, 0x192a067d8a084, 0xbec59615571bb, 0x1fc245b2392b6, 0xe12d9559d956];
pub(crate) const N64: [u64; 4] = [0xf3b9cac2fc632551, 0xbce6faada7179e84, 0xffffffffffffffff, 0xffffffff00000000];
/// (n-1)/2
pub(crate) const NHALF64: [u64; 4] = [0x79dce5617e3192a8, 0xde737d56d38bcf42, 0x7fffffffffffffff, 0x7fffffff80000000];
pub(crate) const P_MINUS_N64: [u64; 4] = [0xc46353d039cdaae, 0x4319055358e8617b, 0x0, 0x0];
pub(crate) const GX64: [u64; 4] = [0xf4a13945d898c296, 0x77037d812deb33a0, 0xf8bce6e563a440f2, 0x6b17d1f2e12c4247];
pub(crate) const GY64: [u64; 4] = [0xcbb6406837bf51f5, 0x2bce33576b315ece, 0x8ee7eb4a7c0f9e16, 0x4fe342e2fe1a7f9b];
