#!/usr/bin/env python3
"""Takes out the lanes' safeguards one by one and says which test notices.

Each mutant is one change of one file: a fall-back, a carry, a range check or a bound is removed. They are
made in a copy of the repository, one at a time, and the crate's tests are run on it as CI runs them. A
mutant that no test notices is a hole in the tests: it is printed as ALIVE, and the exit code is 1. So is
one whose text is not in the file exactly once any more: then this list is to be brought up to date.

    src/ecdsa/mutants.py            # all of them, about half an hour on two cores
    src/ecdsa/mutants.py carry p256 # those whose line below has any of these words

The CPU needs AVX-512 IFMA. What the last full run said stands in README.md.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# What is removed, where, the text, and the text in its place.
MUTANTS = [
    # Fall-backs, and who decides
    ("fall-back: a lone signature goes to the library", "verifier.rs",
     "places.len() < LANES_MIN || self.alarmed()", "self.alarmed()"),
    ("fall-back: after an alarm the library decides", "verifier.rs",
     "places.len() < LANES_MIN || self.alarmed()", "places.len() < LANES_MIN"),
    ("fall-back: no lanes after a failed self-test", "verifier.rs",
     "if passes_self_test(kernel) {", "if passes_self_test(kernel) || true {"),
    ("fall-back: an undecided lane goes to the library", "verifier.rs",
     "library::verify(&checks[place as usize])\n                }", "false\n                }"),
    ("audit: groups are audited at all", "verifier.rs",
     "self.audit(places, checks, verdicts);", ""),
    ("audit: the library's verdict stands", "verifier.rs",
     "*verdict = library::verify(check);\n            if *verdict != lanes {",
     "if library::verify(check) != lanes {"),
    ("audit: a difference raises the alarm", "verifier.rs",
     "self.alarmed.store(true, Ordering::Relaxed);", ""),
    ("audit: a difference is told", "verifier.rs", "(self.tell)(&difference);", ""),
    ("self-test: P-256", "self_test.rs", "[Curve::K256, Curve::P256].into_iter().all",
     "[Curve::K256].into_iter().all"),
    ("self-test: secp256k1", "self_test.rs", "[Curve::K256, Curve::P256].into_iter().all",
     "[Curve::P256].into_iter().all"),
    ("self-test: undecided is left what must be only", "self_test.rs",
     "Verdict::Undecided => check.key == minus_g,", "Verdict::Undecided => true,"),
    ("self-test: every lane", "self_test.rs", "(0..8).all(|_| {", "(0..1).all(|_| {"),
    ("self-test: several lengths", "self_test.rs",
     "in_all_lanes && (1..checks.len()).all(|len| agrees(kernel, &checks[..len], &minus_g))",
     "in_all_lanes"),
    ("self-test: a good signature called bad", "self_test.rs",
     "Verdict::Bad => !library::verify(check),", "Verdict::Bad => true,"),
    ("self-test: a bad signature called good", "self_test.rs",
     "Verdict::Good => library::verify(check),", "Verdict::Good => true,"),
    # Ranges of the signature, and doubt
    ("range: r is neither zero nor above the order", "lanes/batch.rs",
     "if !in_range::<C>(&r) || !in_range::<C>(&s) ||", "if !in_range::<C>(&s) ||"),
    ("range: s is neither zero nor above the order", "lanes/batch.rs",
     "if !in_range::<C>(&r) || !in_range::<C>(&s) || below(&C::HALF_ORDER, &s)",
     "if !in_range::<C>(&r)"),
    ("range: zero is no number of a signature", "lanes/batch.rs",
     "*number != [0; 4] && below(number, &C::ORDER)", "below(number, &C::ORDER)"),
    ("range: the order is out of range", "lanes/batch.rs",
     "*number != [0; 4] && below(number, &C::ORDER)", "*number != [0; 4]"),
    ("range: s is low", "lanes/batch.rs", " || below(&C::HALF_ORDER, &s)", ""),
    ("range: low s of the library for P-256", "library.rs",
     "is_low_s(check.key.curve(), check.signature)\n                && ", ""),
    ("range: lanes out of range are bad", "lanes/batch.rs",
     "let good = self.valid & outcome.equal", "let good = outcome.equal"),
    ("doubt: exceptional sums", "lanes/batch.rs",
     "self.valid & (outcome.exceptional | (self.small_r & !outcome.equal))",
     "self.valid & (self.small_r & !outcome.equal)"),
    ("doubt: r + n", "lanes/batch.rs",
     "self.valid & (outcome.exceptional | (self.small_r & !outcome.equal))",
     "self.valid & outcome.exceptional"),
    ("doubt: an exceptional lane is not good", "lanes/batch.rs",
     "match (is(doubt), is(good)) {\n                (true, _) => Verdict::Undecided,",
     "match (is(doubt) && !is(self.small_r), is(good) || is(outcome.equal)) {\n"
     "                (true, _) => Verdict::Undecided,"),
    ("k256: the sum at infinity", "lanes/k256/point.rs", "overrun | z.is_zero()", "overrun"),
    ("k256: digits that run over", "lanes/k256/digits.rs",
     "_mm512_cmpneq_epi64_mask(c1, s1) | _mm512_cmpneq_epi64_mask(c2, s2)", "0"),
    ("p256: the sum at infinity", "lanes/p256/point.rs", "exceptional: sum.z.is_zero()",
     "exceptional: 0"),
    ("k256: p is zero, too", "lanes/k256/field.rs",
     "_mm512_testn_epi64_mask(z, z) | _mm512_testn_epi64_mask(e, e)",
     "_mm512_testn_epi64_mask(z, z)"),
    ("p256: p is zero, too", "lanes/p256/field.rs",
     "_mm512_testn_epi64_mask(z, z) | _mm512_testn_epi64_mask(e, e)",
     "_mm512_testn_epi64_mask(z, z)"),
    ("one inverse for all: a zero among them is not one", "lanes/invert.rs",
     "if f != [1, 0, 0, 0, 0] {\n        return [0; 5];\n    }", ""),
    # Carries of the field of secp256k1
    ("k256 carry: column 5 into 6 (fold)", "lanes/k256/field.rs",
     "c[5] = hi(c[5], c[9], r);\n        c[6] = add(c[6], shr::<52>(c[5]));",
     "c[5] = hi(c[5], c[9], r);"),
    ("k256 carry: column 5 into 6 (fold_carry)", "lanes/k256/field.rs",
     "c[0] = lo(c[0], t, splat(C));\n        c[6] = add(c[6], shr::<52>(c[5]));",
     "c[0] = lo(c[0], t, splat(C));"),
    ("k256 carry: column 9's low half (fold_carry)", "lanes/k256/field.rs",
     "c[4] = lo(c[4], c[9], r);\n        c[5] = hi(c[5], c[9], r);\n        let t",
     "c[5] = hi(c[5], c[9], r);\n        let t"),
    ("k256 carry: column 9's high half (fold_carry)", "lanes/k256/field.rs",
     "c[5] = hi(c[5], c[9], r);\n        let t", "let t"),
    ("k256 carry: what column 8 sends up (fold)", "lanes/k256/field.rs",
     "c[4] = lo(hi(c[4], c[8], r), q, r);\n        Loose", "c[4] = hi(c[4], c[8], r);\n        Loose"),
    ("k256 carry: what column 8 sends up (fold_carry)", "lanes/k256/field.rs",
     "c[4] = lo(hi(c[4], c[8], r), q, r);\n        ([", "c[4] = hi(c[4], c[8], r);\n        (["),
    ("k256 carry: bits from 256 on (fold_carry)", "lanes/k256/field.rs",
     "c[4] = and(c[4], splat(M48));\n        c[0] = lo(c[0], t, splat(C));\n        c[6]",
     "let _ = t;\n        c[6]"),
    ("k256 carry: bits from 256 on (carry)", "lanes/k256/field.rs",
     "l[4] = and(l[4], splat(M48));\n        l[0] = lo(l[0], t, splat(C));", "let _ = t;"),
    ("k256 carry: limb 0 into 1 (carry)", "lanes/k256/field.rs",
     "l[1] = add(l[1], shr::<52>(l[0]));\n        l[2]", "l[2]"),
    ("k256 carry: limb 3 into 4 (carry)", "lanes/k256/field.rs",
     "l[4] = add(l[4], shr::<52>(l[3]));", ""),
    ("k256 carry: limb 3 into 4 (fold_carry)", "lanes/k256/field.rs",
     "add(l, shr::<52>(l3))])\n    }\n\n    /// `fold_carry`", "l])\n    }\n\n    /// `fold_carry`"),
    ("k256 carry: limb 2 into 3 (carry_masked)", "lanes/k256/field.rs",
     "let l3 = _mm512_mask_add_epi64(o[3], m, l[3], shr::<52>(l2));",
     "let l3 = _mm512_mask_mov_epi64(o[3], m, l[3]);"),
    ("k256 carry: limb 2 into 3 (fold_carry_masked)", "lanes/k256/field.rs",
     "let l3 = _mm512_mask_add_epi64(o[3], m, c[3], shr::<52>(l2));",
     "let l3 = _mm512_mask_mov_epi64(o[3], m, c[3]);"),
    ("k256 mask: lanes left out keep limb 0", "lanes/k256/field.rs",
     "Field::checked([_mm512_mask_mov_epi64(o[0], m, l0), l1", "Field::checked([l0, l1"),
    ("k256 clean: junk above bit 52", "lanes/k256/field.rs",
     "Loose([and(l[0], m), and(l[1], m), and(l[2], m), and(l[3], m), l[4]])",
     "let _ = m;\n        Loose([l[0], l[1], l[2], l[3], l[4]])"),
    # Carries of the field of P-256
    ("p256 carry: between columns (reduce)", "lanes/p256/field.rs",
     "c[i + 1] = add(lo(c[i + 1], q, q1), sar::<52>(q));", "c[i + 1] = lo(c[i + 1], q, q1);"),
    ("p256 carry: limbs (carry)", "lanes/p256/field.rs",
     "l[i + 1] = add(l[i + 1], sar::<52>(l[i]));", ""),
    ("p256 fold: bits from 256 on", "lanes/p256/field.rs",
     "let t = sar::<48>(l4);", "let t = and(sar::<48>(l4), zero());"),
    ("p256 fold: they leave limb 4", "lanes/p256/field.rs",
     "add(and(l4, splat(M48)), shl::<16>(t))", "add(l4, shl::<16>(t))"),
    ("p256 fold: into limb 1", "lanes/p256/field.rs", "sub(l1, shl::<44>(t))", "l1"),
    ("p256 clean: junk above bit 52", "lanes/p256/field.rs",
     "Loose([and(l[0], m), and(l[1], m), and(l[2], m), and(l[3], m), l[4]])",
     "let _ = m;\n        Loose([l[0], l[1], l[2], l[3], l[4]])"),
    ("p256 odd: n is added to an even scalar", "lanes/p256/point.rs",
     "_mm512_mask_add_epi64(limb, even, limb, splat(N52[i]))", "{ let _ = even; limb }"),
    ("p256 odd: carries of the recoding", "lanes/p256/point.rs",
     "l[i + 1] = add(l[i + 1], shr::<52>(l[i]));", ""),
    ("p256 sign: of the sum so far", "lanes/p256/point.rs",
     "let mut flip = negative;", "let mut flip = 0; let _ = negative;"),
    # Scalars and halves
    ("scalar carry: the cleared column (montgomery)", "lanes/scalar.rs",
     "c[i + 1] = add(c[i + 1], shr::<52>(c[i]));", ""),
    ("scalar carry: the upper columns (montgomery)", "lanes/scalar.rs",
     "c[k + 1] = add(c[k + 1], shr::<52>(c[k]));", ""),
    ("scalar carry: limbs (plus_constant)", "lanes/scalar.rs",
     "l[i + 1] = add(l[i + 1], shr::<52>(l[i]));", ""),
    ("scalar clean: junk (plus_constant)", "lanes/scalar.rs",
     "add(and(l[i], splat(M52)), splat(k[i]))", "add(l[i], splat(k[i]))"),
    ("inversion: the result below n", "lanes/invert.rs",
     "if less[4] < 0 {\n            return d;\n        }\n        d = less;", "let _ = less;\n        return d;"),
    ("inversion: a negative result", "lanes/invert.rs", "while d[4] < 0 {", "while false && d[4] < 0 {"),
    ("inversion: the sign of f", "lanes/invert.rs", "if f[4] < 0 {", "if false && f[4] < 0 {"),
    ("inversion: cofactors kept in range", "lanes/invert.rs",
     "let mut multiple = (a & (d[4] >> 63)) + (b & (e[4] >> 63));", "let mut multiple = 0i64;"),
    ("inversion: junk above bit 52 of what comes in", "lanes/invert.rs", "*limb &= M52;", "let _ = limb;"),
    ("halves carry: mod 2^156", "lanes/k256/halves.rs",
     "let c = add(k[2], shr::<52>(b));", "let c = k[2];"),
    ("halves carry: below the quotient", "lanes/k256/halves.rs",
     "c[6] = add(c[6], shr::<52>(c[5]));", ""),
    ("halves: the quotient is rounded", "lanes/k256/halves.rs", "c[6] = add(c[6], splat(1 << 51));", ""),
    ("halves: the quotient takes the parity", "lanes/k256/halves.rs",
     "c[7] = add(c[7], and(xor(c[7], parity), splat(1)));", "let _ = parity;"),
    ("halves carry: recoding", "lanes/k256/halves.rs",
     "let b = add(add(k[1], m), shr::<52>(a));", "let b = add(k[1], m);"),
    ("digits carry: into the next window", "lanes/k256/digits.rs",
     "c1 = add(shr::<3>(w1), and(carry, splat(1)));", "c1 = and(carry, splat(1));"),
    # Points
    ("k256: the start point is taken off", "lanes/k256/point.rs",
     "split_odd(&u1.plus_constant(&T_CORR))", "split_odd(&u1.plus_constant(&[0; 5]))"),
    ("k256: zero digits are left out", "lanes/k256/point.rs",
     "negative, entry.nonzero);\n                flip ^= entry.nonzero;",
     "negative, 0xff);\n                flip = !flip;"),
    ("k256: a digit's sign", "lanes/k256/point.rs", "let negative = entry.negative ^ flip;",
     "let negative = flip;"),
    ("filler: lanes without a signature are harmless", "lanes/batch.rs",
     "s: Words::filled(ONE),", "s: Words::filled([0; 4]),"),
    ("p256 table: -x is positive", "lanes/p256/point.rs",
     "Loose::multiple_of_p::<2>().sub(&Field::from_plain(&job.x).clean()).fold()",
     "Loose::multiple_of_p::<0>().sub(&Field::from_plain(&job.x).clean()).fold()"),
    ("p256 bound: X3 is positive", "lanes/p256/point.rs",
     "add(&hhh_loose).add(&Loose::multiple_of_p::<3>())", "add(&hhh_loose).add(&Loose::multiple_of_p::<0>())"),
    ("k256 bound: a bias that covers one product", "lanes/k256/point.rs",
     "let bias = Loose::constant(&BIAS57);", "let bias = Loose::constant(&BIAS53);"),
    # Keys
    ("key: hybrid points", "key.rs",
     "(SEC1_UNCOMPRESSED_BYTES, Some(&UNCOMPRESSED)) => {}", "(SEC1_UNCOMPRESSED_BYTES, Some(_)) => {}"),
]

CRATE = "src/ecdsa"
RUNS = (["--lib"], ["--test", "fuzz"])


def copy_of_the_repository(root, into):
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=root).decode().split("\0")
    for name in filter(None, listed):
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target)


def first_failure(copy, target, run):
    """The name of the first test that fails, what stopped the build, or None."""
    command = ["cargo", "test", "--quiet", "-p", "relayered-ecdsa", *run, "--", "--format=pretty"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(target), "CARGO_TERM_COLOR": "never"}
    tests = subprocess.Popen(command, cwd=copy, env=environment, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, start_new_session=True)
    said = []
    try:
        for line in tests.stdout:
            said.append(line)
            failed = re.match(r"test (\S+)(?: - should panic)? \.\.\. FAILED", line)
            if failed:
                return failed[1]
        if tests.wait() == 0:
            return None
        text = "".join(said)
        if "could not compile" in text:
            sys.exit(f"the mutant does not compile:\n{text}")
        return f"(the test binary dies: {said[-1].strip()})"
    finally:
        if tests.poll() is None:
            os.killpg(tests.pid, signal.SIGKILL)
            tests.wait()


def main():
    words = [word.lower() for word in sys.argv[1:]]
    root = Path(__file__).resolve().parents[2]
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "mutants"
    alive = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_of_the_repository(root, copy)
        for what, name, old, new in MUTANTS:
            if words and not any(word in what.lower() for word in words):
                continue
            file = copy / CRATE / name
            sound = file.read_text()
            if sound.count(old) != 1:
                sys.exit(f"{what}: {name} has the text {sound.count(old)} times")
            file.write_text(sound.replace(old, new))
            noticed = next(filter(None, (first_failure(copy, target, run) for run in RUNS)), None)
            file.write_text(sound)
            alive += noticed is None
            print(f"| {what} | {'ALIVE' if noticed is None else f'`{noticed}`'} |", flush=True)
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
