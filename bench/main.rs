//! Where the microseconds of an event go: CPU time of each step of verification, on the corpus that
//! the reference library made, beside the bare signature checks of the same events.
//!
//! `cargo run --release -p bench [ROUNDS]`; with `log` instead: what an event costs the log's writer. Figures are the minimum over the rounds, in µs of this thread's CPU
//! clock for each #commit event. What only the running relay can show (sockets, rings, log, sends)
//! is measured by `loadgen demo`.

#![forbid(unsafe_code)]

mod corpus;
mod log_cost;
mod store;

use std::{collections::HashMap, env, hint::black_box};

use corpus::Commit;
use ecdsa::Curve;
use mimalloc::MiMalloc;
use protocol::{
    car::{BlockHasher, BlockTable, CarReader},
    commit, frame, mst,
};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Events of one turn of a shard.
const TURN: usize = 128;

fn main() {
    if env::args().nth(1).as_deref() == Some("log") {
        if let Err(error) = log_cost::run() {
            eprintln!("{error}");
        }
        return;
    }
    if let [_, store, url, accounts] = env::args().collect::<Vec<_>>().as_slice()
        && store == "store"
    {
        return store::run(url, accounts.parse().unwrap_or(10_000_000));
    }
    let rounds = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20);
    let commits = corpus::commits();
    let frame_bytes: usize = commits.iter().map(|commit| commit.frame.len()).sum();
    println!(
        "{} #commit events, mean frame {} bytes, {} rounds",
        commits.len(),
        frame_bytes / commits.len(),
        rounds
    );
    let bench = Bench { commits: &commits, rounds };
    let skim = bench.run("skim: header, DID, seq", |commit| {
        black_box(frame::skim(&commit.frame).is_ok());
    });
    let parse = bench.run("parse: the whole frame, strictly", |commit| {
        black_box(frame::parse(&commit.frame).is_ok());
    });
    let car = bench.run("CAR: split into blocks", |commit| {
        black_box(CarReader::new(&commit.blocks).map(Iterator::count).ok());
    });
    let mut table = BlockTable::default();
    let load = bench.run("CAR split, every block hashed and indexed", |commit| {
        black_box(table.load(&commit.blocks).is_ok());
    });
    let mut unsigned = Vec::new();
    let object = bench.run("commit object: parse, unsigned bytes", |commit| {
        unsigned.clear();
        if let Ok(object) = commit::parse(&commit.block) {
            object.unsigned_bytes(&mut unsigned);
        }
        black_box(unsigned.len());
    });
    let signature = signatures(&bench);
    let batched = batches(&bench);
    let invert = inversion(&bench) - load;
    println!("{invert:>8.2}  inversion of the operations (CAR taken off)");
    let turn_load = cars(&bench);
    let turn_invert = inversions(&bench) - turn_load;
    println!(
        "{turn_invert:>8.2}  inversion of the operations (CAR taken off), {TURN} events together"
    );
    let alone = skim + parse + load + object + invert + signature;
    let together = skim + parse + turn_load + object + turn_invert + batched;
    println!("{alone:>8.2}  sum, alone (CAR split {car:.2} is part of it)");
    println!("{together:>8.2}  sum, {TURN} together");
    println!("{:>8.2} and {:.2} x the bare signatures", alone / signature, together / signature);
}

struct Bench<'a> {
    commits: &'a [Commit],
    rounds: u32,
}

impl Bench<'_> {
    /// The least mean cost over the rounds, printed and returned.
    fn run(&self, name: &str, step: impl FnMut(&Commit)) -> f64 {
        let cost = self.measure(step);
        println!("{cost:>8.2}  {name}");
        cost
    }

    fn measure(&self, mut step: impl FnMut(&Commit)) -> f64 {
        let mut least = f64::INFINITY;
        for _ in 0..self.rounds {
            let start = cpu_micros();
            self.commits.iter().for_each(&mut step);
            least = least.min(cpu_micros() - start);
        }
        least / self.commits.len() as f64
    }
}

fn signatures(bench: &Bench<'_>) -> f64 {
    let mut by_curve = HashMap::new();
    for commit in bench.commits {
        by_curve.entry(commit.key.curve()).or_insert_with(Vec::new).push(commit);
    }
    let mut sum = 0.0;
    for curve in [Curve::K256, Curve::P256] {
        let Some(commits) = by_curve.get(&curve) else { continue };
        let mut least = f64::INFINITY;
        let mut verdicts = Vec::new();
        for _ in 0..bench.rounds.min(5) {
            let start = cpu_micros();
            for commit in commits {
                ecdsa::verify_batch(&[commit.check()], &mut verdicts);
                assert_eq!(verdicts, [true], "a signature of the corpus does not verify");
            }
            least = least.min(cpu_micros() - start);
        }
        println!(
            "{:>8.2}  signature, {curve:?}, parsed key ({} events)",
            least / commits.len() as f64,
            commits.len()
        );
        sum += least;
    }
    let mean = sum / bench.commits.len() as f64;
    println!("{mean:>8.2}  signature, mean of this mix");
    mean
}

/// As a shard does it: the signatures of a turn together, both curves mixed.
fn batches(bench: &Bench<'_>) -> f64 {
    let checks: Vec<_> = bench.commits.iter().map(Commit::check).collect();
    let mut least = f64::INFINITY;
    let mut verdicts = Vec::new();
    for _ in 0..bench.rounds.min(5) {
        let start = cpu_micros();
        for turn in checks.chunks(TURN) {
            ecdsa::verify_batch(turn, &mut verdicts);
            assert!(verdicts.iter().all(|good| *good), "a signature of the corpus does not verify");
        }
        least = least.min(cpu_micros() - start);
    }
    let mean = least / bench.commits.len() as f64;
    println!("{mean:>8.2}  signature, mean of this mix in batches of {TURN}");
    mean
}

fn inversion(bench: &Bench<'_>) -> f64 {
    let mut table = BlockTable::default();
    let mut scratch = mst::Scratch::default();
    bench.measure(|commit| {
        let Ok(event) = frame::parse(&commit.frame) else { return };
        let frame::Body::Commit(body) = event.body else { return };
        let Ok(blocks) = table.load(body.blocks) else { return };
        let before = mst::invert(commit.data, body.ops, &blocks, &mut scratch);
        assert!(before.is_ok(), "a commit of the corpus does not invert: {before:?}");
    }) - bench.measure(|commit| {
        black_box(frame::parse(&commit.frame).is_ok());
    })
}

/// The blocks of a turn's events hashed together, then indexed.
fn cars(bench: &Bench<'_>) -> f64 {
    let mut table = BlockTable::default();
    let mut hasher = BlockHasher::default();
    let mut least = f64::INFINITY;
    for _ in 0..bench.rounds {
        let start = cpu_micros();
        for turn in bench.commits.chunks(TURN) {
            let cars = hasher.hash(turn.iter().map(|commit| &commit.blocks[..]));
            for at in 0..turn.len() {
                assert!(cars.load(at, &mut table).is_ok(), "a CAR file of the corpus is broken");
            }
        }
        least = least.min(cpu_micros() - start);
    }
    let mean = least / bench.commits.len() as f64;
    println!("{mean:>8.2}  CAR split, every block hashed and indexed, {TURN} events together");
    mean
}

/// As [`cars`], and the operations undone.
fn inversions(bench: &Bench<'_>) -> f64 {
    let events: Vec<_> = bench
        .commits
        .iter()
        .map(|commit| match frame::parse(&commit.frame).map(|event| event.body) {
            Ok(frame::Body::Commit(body)) => (commit, body),
            _ => unreachable!("parsed before"),
        })
        .collect();
    let mut table = BlockTable::default();
    let (mut hasher, mut scratch) = (BlockHasher::default(), mst::Scratch::default());
    let mut unhashed = mst::Unhashed::default();
    let mut least = f64::INFINITY;
    for _ in 0..bench.rounds {
        let start = cpu_micros();
        for turn in events.chunks(TURN) {
            let cars = hasher.hash(turn.iter().map(|(commit, _)| &commit.blocks[..]));
            let undone = turn.iter().enumerate().map(|(at, (commit, body))| {
                let blocks = cars.load(at, &mut table).ok()?;
                mst::invert_later(commit.data, body.ops, &blocks, &mut scratch, &mut unhashed).ok()
            });
            let undone: Vec<_> = undone.collect();
            unhashed.hash();
            for (undone, (_, body)) in undone.iter().zip(turn) {
                let before = undone.as_ref().and_then(|undone| unhashed.root(undone));
                assert!(before.is_some(), "a commit of the corpus does not invert");
                assert!(body.prev_data.is_none_or(|prev| before == Some(prev)), "another root");
            }
            unhashed.clear();
        }
        least = least.min(cpu_micros() - start);
    }
    least / bench.commits.len() as f64
}

fn cpu_micros() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
