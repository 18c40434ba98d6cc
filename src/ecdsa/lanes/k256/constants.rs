//! Numbers of secp256k1, written by ../generate/k256.py: do not edit.
/// p in radix 2^52
pub(crate) const P52: [u64; 5] = [0xffffefffffc2f, 0xfffffffffffff, 0xfffffffffffff, 0xfffffffffffff, 0xffffffffffff];
pub(crate) const P64: [u64; 4] = [0xfffffffefffffc2f, 0xffffffffffffffff, 0xffffffffffffffff, 0xffffffffffffffff];
/// n in radix 2^52
pub(crate) const N52: [u64; 5] = [0x25e8cd0364141, 0xe6af48a03bbfd, 0xffffffebaaedc, 0xfffffffffffff, 0xffffffffffff];
pub(crate) const N64: [u64; 4] = [0xbfd25e8cd0364141, 0xbaaedce6af48a03b, 0xfffffffffffffffe, 0xffffffffffffffff];
/// (n-1)/2
pub(crate) const NHALF64: [u64; 4] = [0xdfe92f46681b20a0, 0x5d576e7357a4501d, 0xffffffffffffffff, 0x7fffffffffffffff];
pub(crate) const P_MINUS_N64: [u64; 4] = [0x402da1722fc9baee, 0x4551231950b75fc4, 0x1, 0x0];
pub(crate) const GX64: [u64; 4] = [0x59f2815b16f81798, 0x29bfcdb2dce28d9, 0x55a06295ce870b07, 0x79be667ef9dcbbac];
pub(crate) const GY64: [u64; 4] = [0x9c47d08ffb10d4b8, 0xfd17b448a6855419, 0x5da4fbfc0e1108a8, 0x483ada7726a3c465];
pub(crate) const BETA52: [u64; 5] = [0x96c28719501ee, 0x7512f58995c13, 0xc3434e99cf049, 0x7106e64479ea, 0x7ae96a2b657c];
/// multiple of p, every limb in [2^53, 2^53+2^52)
pub(crate) const BIAS53: [u64; 5] = [0x2fffdeffff820f, 0x2ffffffffffffd, 0x2ffffffffffffd, 0x2ffffffffffffd, 0x20fffffffffffd];
/// multiple of p, every limb in [2^57, 2^57+2^52)
pub(crate) const BIAS57: [u64; 5] = [0x20ffdfefff85a2f, 0x20fffffffffffdf, 0x20fffffffffffdf, 0x20fffffffffffdf, 0x200ffffffffffdf];
/// multiple of p, every limb in [2^58, 2^58+2^52)
pub(crate) const BIAS58: [u64; 5] = [0x40ffbfefff0b82f, 0x40fffffffffffbf, 0x40fffffffffffbf, 0x40fffffffffffbf, 0x400ffffffffffbf];
/// multiple of p, every limb in [2^60, 2^60+2^52)
pub(crate) const BIAS60: [u64; 5] = [0x100feffeffc2ec2f, 0x100ffffffffffeff, 0x100ffffffffffeff, 0x100ffffffffffeff, 0x1000fffffffffeff];
pub(crate) const C: u64 = 0x1000003d1;
pub(crate) const R260: u64 = 0x1000003d10;
pub(crate) const N0INV52: u64 = 0xdff665588b13f;
/// 2^520 mod n
pub(crate) const R2_N: [u64; 5] = [0xe180c268b3b23, 0x94fd6e33e4c8e, 0xd07c73b975948, 0xc5e697f5e45bc, 0x671cd581c69b];
/// round(2^364*b2/n)
pub(crate) const G1: [u64; 5] = [0x7fe893209a45e, 0xdaa8a1471e8ca, 0x90e49284eb153, 0x1a7d46bcde86c, 0x3086d22];
/// round(2^364*(-b1)/n)
pub(crate) const G2: [u64; 5] = [0xc61571b4ae8ac, 0x21208ac9df506, 0x7fa90abfe4c42, 0x6010e88286f54, 0xe4437ed];
/// -a1 mod 2^156 (= -b2)
pub(crate) const NA1: [u64; 3] = [0x36f1b6d7b14eb, 0xde582b9432179, 0xfffffffcf792d];
pub(crate) const NA2: [u64; 3] = [0xeef7262bb3028, 0x8571d0c09a83, 0xffffffeeb35af];
pub(crate) const MB1: [u64; 3] = [0x47fa90abfe4c3, 0xd6010e88286f5, 0xe4437e];
pub(crate) const NINV62: u64 = 0x34f20099aa774ec1;
pub(crate) const N62: [u64; 5] = [0x3fd25e8cd0364141, 0x2abb739abd2280ee, 0x3fffffffffffffeb, 0x3fffffffffffffff, 0xff];
