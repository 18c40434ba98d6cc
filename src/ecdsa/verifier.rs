//! Batches of signatures: they go through the lanes where the CPU has them, each curve by itself, as
//! long as the lanes agree with the libraries.
//!
//! Lanes are taken for [`LANES_MIN`] signatures of a curve and more; a lone one, and what the lanes
//! leave undecided, go to the library. Three nets lie below the lanes: a self-test at start;
//! an audit, in which one group in [`Settings::audit_every`] is verified by the library as well; and
//! the library's word in every case of doubt. If a difference is found, the library's verdict stands,
//! the lanes are not used again, and the difference is kept to be told.
//!
//! Limits: groups of [`GROUP`] signatures; nothing is allocated, the working lies on the stack.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    Check, Curve, VerifyingKey,
    kernel::{self, GROUP, Item, Kernel, Verdict},
    library,
    self_test::passes_self_test,
};

/// From how many signatures on a vector of eight, most lanes of it empty, is faster than the
/// library: it takes as long as one and a half of the library's at most.
const LANES_MIN: usize = 2;

/// Who verifies signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signatures {
    /// Lanes where the CPU has them and they pass the self-test.
    #[default]
    Auto,
    /// The libraries only.
    Library,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub signatures: Signatures,
    /// One group of signatures in so many is verified by the library as well; 0: none.
    pub audit_every: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { signatures: Signatures::Auto, audit_every: 1024 }
    }
}

/// What verifies batches, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// Eight signatures at once, AVX-512 IFMA.
    Lanes,
    /// The library, as the settings say.
    LibraryChosen,
    /// The library, as the CPU lacks what the lanes need.
    LibraryNoLanes,
    /// The library, as the lanes did not pass their self-test.
    LibrarySelfTest,
    /// The library, as the lanes differed from it in an audit.
    LibraryAlarm,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lanes => "lanes (AVX-512 IFMA)",
            Self::LibraryChosen => "library (as chosen)",
            Self::LibraryNoLanes => "library (the CPU has no AVX-512 IFMA)",
            Self::LibrarySelfTest => "library (the lanes FAILED their self-test)",
            Self::LibraryAlarm => "library (the lanes DIFFERED from it)",
        })
    }
}

/// A signature on which lanes and library differed. Its text is what is needed to repeat it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub key: VerifyingKey,
    /// SHA-256 of the message.
    pub digest: [u8; 32],
    pub signature: [u8; 64],
    /// The lanes' verdict; the library's is the opposite, and the one that was given.
    pub lanes: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        };
        write!(f, "lanes say {}, the library {}; key ", self.lanes, !self.lanes)?;
        hex(f, &self.key.to_sec1_compressed())?;
        f.write_str(", digest ")?;
        hex(f, &self.digest)?;
        f.write_str(", signature ")?;
        hex(f, &self.signature)
    }
}

/// How a verifier has fared since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub in_use: InUse,
    /// Groups that lanes have verified, and those of them that the library has verified as well.
    pub groups: u64,
    pub audits: u64,
    /// Signatures on which lanes and library differed: an alarm if not 0.
    pub differences: u64,
    /// The first of them.
    pub first_difference: Option<Difference>,
    /// Lanes that met an exceptional case, and that the library decided.
    pub recomputed: u64,
}

/// Verifies batches as its settings say.
pub struct Verifier {
    kernel: Option<Kernel>,
    /// Without a kernel, why.
    reason: InUse,
    audit_every: u64,
    alarmed: AtomicBool,
    groups: AtomicU64,
    audits: AtomicU64,
    differences: AtomicU64,
    recomputed: AtomicU64,
    first_difference: OnceLock<Difference>,
    /// Called once, with the first difference, by the thread that finds it.
    tell: fn(&Difference),
}

impl Verifier {
    /// Looks at the CPU, makes the tables (some tens of milliseconds) and tests the lanes.
    pub fn new(settings: Settings) -> Self {
        match settings.signatures {
            Signatures::Library => Self::of(None, InUse::LibraryChosen, settings),
            Signatures::Auto => match kernel::detect() {
                None => Self::of(None, InUse::LibraryNoLanes, settings),
                Some(kernel) => Self::tested(kernel, settings),
            },
        }
    }

    /// With this kernel if it passes the self-test.
    pub(crate) fn tested(kernel: Kernel, settings: Settings) -> Self {
        if passes_self_test(kernel) {
            Self::of(Some(kernel), InUse::Lanes, settings)
        } else {
            Self::of(None, InUse::LibrarySelfTest, settings)
        }
    }

    pub(crate) fn of(kernel: Option<Kernel>, reason: InUse, settings: Settings) -> Self {
        Self {
            kernel,
            reason,
            audit_every: settings.audit_every,
            alarmed: AtomicBool::new(false),
            groups: AtomicU64::new(0),
            audits: AtomicU64::new(0),
            differences: AtomicU64::new(0),
            recomputed: AtomicU64::new(0),
            first_difference: OnceLock::new(),
            tell: |_| {},
        }
    }

    /// Has the first difference told as well as kept.
    pub fn telling(mut self, tell: fn(&Difference)) -> Self {
        self.tell = tell;
        self
    }

    /// Checks all signatures and leaves one verdict for each in `verdicts`, in the same order.
    ///
    /// What was in `verdicts` is dropped; its room is used again.
    pub fn verify_batch(&self, checks: &[Check<'_>], verdicts: &mut Vec<bool>) {
        verdicts.clear();
        verdicts.resize(checks.len(), false);
        let Some(kernel) = self.kernel.filter(|_| checks.len() >= LANES_MIN) else {
            for (check, verdict) in checks.iter().zip(verdicts) {
                *verdict = library::verify(check);
            }
            return;
        };
        for curve in [Curve::K256, Curve::P256] {
            let mut group = Group { places: [0; GROUP], len: 0 };
            for (place, check) in checks.iter().enumerate() {
                if check.key.curve() == curve {
                    group.push(place);
                    if group.len == GROUP {
                        self.verify_group(kernel, curve, &mut group, checks, verdicts);
                    }
                }
            }
            self.verify_group(kernel, curve, &mut group, checks, verdicts);
        }
    }

    pub fn status(&self) -> Status {
        Status {
            in_use: if self.alarmed() { InUse::LibraryAlarm } else { self.reason },
            groups: self.groups.load(Ordering::Relaxed),
            audits: self.audits.load(Ordering::Relaxed),
            differences: self.differences.load(Ordering::Relaxed),
            first_difference: self.first_difference.get().cloned(),
            recomputed: self.recomputed.load(Ordering::Relaxed),
        }
    }

    /// Whether an audit has found a difference. Cheap.
    pub fn alarmed(&self) -> bool {
        self.alarmed.load(Ordering::Relaxed)
    }

    /// Gives the group's verdicts and empties it.
    fn verify_group(
        &self,
        kernel: Kernel,
        curve: Curve,
        group: &mut Group,
        checks: &[Check<'_>],
        verdicts: &mut [bool],
    ) {
        let places = &group.places[..group.len];
        if places.len() < LANES_MIN || self.alarmed() {
            for &place in places {
                verdicts[place as usize] = library::verify(&checks[place as usize]);
            }
        } else {
            self.verify_in_lanes(kernel, curve, places, checks, verdicts);
            let turn = self.groups.fetch_add(1, Ordering::Relaxed);
            if self.audit_every > 0 && turn % self.audit_every == self.audit_every - 1 {
                self.audit(places, checks, verdicts);
            }
        }
        group.len = 0;
    }

    fn verify_in_lanes(
        &self,
        kernel: Kernel,
        curve: Curve,
        places: &[u32],
        checks: &[Check<'_>],
        verdicts: &mut [bool],
    ) {
        let item = |place: u32| {
            let check = &checks[place as usize];
            Item { key: check.key, digest: library::digest(check), signature: check.signature }
        };
        let mut items = [item(places[0]); GROUP];
        for (item_of, &place) in items.iter_mut().zip(places).skip(1) {
            *item_of = item(place);
        }
        let mut found = [Verdict::Undecided; GROUP];
        let found = &mut found[..places.len()];
        kernel(curve, &items[..places.len()], found);
        for (&place, found) in places.iter().zip(found) {
            verdicts[place as usize] = match found {
                Verdict::Good => true,
                Verdict::Bad => false,
                Verdict::Undecided => {
                    self.recomputed.fetch_add(1, Ordering::Relaxed);
                    library::verify(&checks[place as usize])
                }
            };
        }
    }

    /// Holds the verdicts against the library's, which replace them.
    fn audit(&self, places: &[u32], checks: &[Check<'_>], verdicts: &mut [bool]) {
        self.audits.fetch_add(1, Ordering::Relaxed);
        for &place in places {
            let check = &checks[place as usize];
            let verdict = &mut verdicts[place as usize];
            let lanes = *verdict;
            *verdict = library::verify(check);
            if *verdict != lanes {
                self.alarmed.store(true, Ordering::Relaxed);
                self.differences.fetch_add(1, Ordering::Relaxed);
                let difference = Difference {
                    key: *check.key,
                    digest: library::digest(check),
                    signature: *check.signature,
                    lanes,
                };
                // The first one wins; others are only counted.
                if self.first_difference.set(difference.clone()).is_ok() {
                    (self.tell)(&difference);
                }
            }
        }
    }
}

/// Signatures of one curve on their way through the lanes: their places in the batch.
struct Group {
    places: [u32; GROUP],
    len: usize,
}

impl Group {
    fn push(&mut self, place: usize) {
        self.places[self.len] = place as u32;
        self.len += 1;
    }
}

static PROCESS: OnceLock<Verifier> = OnceLock::new();

/// Prepares what [`crate::verify_batch`] uses, before anything waits for it: looks at the CPU, makes
/// the tables, tests the lanes. Tells what is in use.
///
/// The first call in a process decides; without one the first batch prepares the default. `tell` is
/// called if lanes and library ever differ: once, by the thread that finds it.
pub fn prepare(settings: Settings, tell: fn(&Difference)) -> InUse {
    PROCESS.get_or_init(|| Verifier::new(settings).telling(tell)).status().in_use
}

/// How the signatures of this process have fared.
pub fn status() -> Status {
    process_verifier().status()
}

pub(crate) fn process_verifier() -> &'static Verifier {
    PROCESS.get_or_init(|| Verifier::new(Settings::default()))
}
