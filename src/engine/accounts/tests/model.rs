//! Random commands: what must hold whatever comes in, and that turns play no part.

use std::collections::HashMap;

use ecdsa::Curve;
use ports::{AccountLookup, HostId, IdentityAnswer, RefusalReason};
use proptest::prelude::*;
use protocol::{
    frame::{self, Body},
    syntax::Tid,
};

use super::kit::*;

const ACCOUNTS: u64 = 3;

/// One frame, told by how it is made.
#[derive(Clone, Copy, Debug)]
enum Make {
    Commit,
    /// The commit before last again.
    Replay,
    /// Commits that the relay does not see, then one that it does.
    Gap,
    Forged,
    Broken,
    NoPrevData,
    Sync,
    Identity,
    Status(bool),
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Frame {
        account: u64,
        host: HostId,
        make: Make,
    },
    Turn,
    /// Answers one of the open questions.
    Answer(usize),
    Seconds(u64),
    /// What the directory says of the account from now on.
    Directory {
        account: u64,
        says: Says,
    },
}

#[derive(Clone, Copy, Debug)]
enum Says {
    Found(HostId),
    NotFound,
    Unavailable,
    NewKey,
}

fn make() -> impl Strategy<Value = Make> {
    prop_oneof![
        6 => Just(Make::Commit),
        1 => Just(Make::Replay),
        1 => Just(Make::Gap),
        1 => Just(Make::Forged),
        1 => Just(Make::Broken),
        1 => Just(Make::NoPrevData),
        1 => Just(Make::Sync),
        2 => Just(Make::Identity),
        1 => any::<bool>().prop_map(Make::Status),
    ]
}

fn host() -> impl Strategy<Value = HostId> {
    prop_oneof![5 => Just(PDS), 1 => Just(OTHER_PDS)]
}

fn frames() -> impl Strategy<Value = (u64, HostId, Make)> {
    (0..ACCOUNTS, host(), make())
}

fn command() -> impl Strategy<Value = Command> {
    let says = prop_oneof![
        4 => host().prop_map(Says::Found),
        1 => Just(Says::NotFound),
        2 => Just(Says::Unavailable),
        1 => Just(Says::NewKey),
    ];
    prop_oneof![
        12 => frames().prop_map(|(account, host, make)| Command::Frame { account, host, make }),
        5 => Just(Command::Turn),
        5 => (0..4usize).prop_map(Command::Answer),
        1 => (1..90u64).prop_map(Command::Seconds),
        1 => (0..ACCOUNTS, says).prop_map(|(account, says)| Command::Directory { account, says }),
    ]
}

/// Accounts, and the frames they have sent.
struct Senders {
    repos: Vec<Repo>,
    last: Vec<Option<CommitFrame>>,
    seq: u64,
}

impl Senders {
    fn new(net: &mut Net) -> Self {
        let repos: Vec<Repo> = (0..ACCOUNTS).map(|number| net.repo(number)).collect();
        Self { last: vec![None; repos.len()], repos, seq: 0 }
    }

    fn make(&mut self, account: u64, make: Make) -> Vec<u8> {
        self.seq += 1;
        let seq = self.seq;
        let repo = &mut self.repos[account as usize];
        let last = &mut self.last[account as usize];
        match make {
            Make::Commit => last.insert(repo.post()).encode(seq),
            Make::Replay => last.get_or_insert_with(|| repo.post()).encode(seq),
            Make::Gap => {
                repo.post();
                last.insert(repo.post()).encode(seq)
            }
            Make::Forged => {
                let mut forger = repo.clone();
                forger.key = Repo::new(1_000, Curve::K256).key;
                forger.post().encode(seq)
            }
            Make::Broken => {
                let mut commit = repo.clone().post();
                commit.blocks.last_mut().unwrap().1[0] ^= 1;
                commit.encode(seq)
            }
            Make::NoPrevData => {
                let mut commit = repo.clone().post();
                commit.prev_data = None;
                commit.encode(seq)
            }
            Make::Sync => {
                if repo.rev == 0 {
                    repo.post();
                }
                repo.sync(seq)
            }
            Make::Identity => identity_frame(seq, &repo.did, Some("alice.test")),
            Make::Status(active) => {
                account_frame(&repo.did, active, (!active).then_some("deactivated"))
            }
        }
    }
}

/// What is sent, to be held against what comes out.
struct Sendings {
    dids: Vec<String>,
    hosts: Vec<HostId>,
    makes: Vec<Make>,
}

/// The rules of the stage, for everything that has come out so far.
fn check_rules(net: &mut Net, sendings: &Sendings) -> Result<(), TestCaseError> {
    // Across hosts there is no order.
    let mut places: HashMap<(&str, HostId), usize> = HashMap::new();
    let mut revs: HashMap<&str, u64> = HashMap::new();
    for ticket in &net.order {
        let sent = net.fates[*ticket].sent();
        prop_assert!(!matches!(sendings.makes[*ticket], Make::Forged | Make::Broken));
        let event = frame::parse(&sent.frame).unwrap();
        let rev = match &event.body {
            Body::Commit(commit) => Some(commit.rev),
            Body::Sync(sync) => Some(sync.rev),
            _ => None,
        };
        let did = sendings.dids[*ticket].as_str();
        let before = places.entry((did, sendings.hosts[*ticket])).or_default();
        prop_assert!(*ticket >= *before, "events of one account change places");
        *before = *ticket;
        let rev_before = revs.entry(did).or_default();
        if let Some(rev) = rev.and_then(Tid::parse) {
            prop_assert!(rev.as_u64() > *rev_before, "a rev that does not rise");
            *rev_before = rev.as_u64();
        }
    }
    Ok(())
}

fn run_commands(commands: &[Command]) -> Result<(), TestCaseError> {
    let mut net = Net::new();
    let mut senders = Senders::new(&mut net);
    let mut sendings = Sendings { dids: Vec::new(), hosts: Vec::new(), makes: Vec::new() };
    let mut open: Vec<AccountLookup> = Vec::new();
    let mut counted = [0u64; 3];
    for command in commands {
        match *command {
            Command::Frame { account, host, make } => {
                let frame = senders.make(account, make);
                net.send(host, &frame);
                sendings.dids.push(senders.repos[account as usize].did.clone());
                sendings.hosts.push(host);
                sendings.makes.push(make);
            }
            Command::Turn => net.turn(),
            Command::Answer(index) if !open.is_empty() => {
                let lookup = open.swap_remove(index % open.len());
                let answer = net.answer_to(&lookup);
                net.accounts.handle_answer(answer, net.now);
            }
            Command::Answer(_) => {}
            Command::Seconds(seconds) => {
                net.pass_seconds(seconds);
                net.accounts.handle_timeout(net.now);
            }
            Command::Directory { account, says } => {
                tell_directory(&mut net, &mut senders.repos[account as usize], says);
            }
        }
        net.collect();
        open.extend(net.take_lookups());
        for (index, lookup) in open.iter().enumerate() {
            let twice = open[..index].iter().any(|other| other.did == lookup.did);
            prop_assert!(!twice, "two questions out for {}", lookup.did);
        }
        count(&mut net, &mut counted)?;
    }
    check_rules(&mut net, &sendings)?;
    // In the end everything that waits is over: answered, or out of patience.
    for _ in 0..200 {
        net.pass_seconds(1);
        net.accounts.handle_timeout(net.now);
        net.turn();
        for lookup in std::mem::take(&mut open) {
            let answer = net.answer_to(&lookup);
            net.accounts.handle_answer(answer, net.now);
        }
        net.turn();
        open.extend(net.take_lookups());
    }
    count(&mut net, &mut counted)?;
    prop_assert!(net.fates.iter().all(|fate| *fate != Fate::Parked), "a frame waits for ever");
    prop_assert_eq!(net.accounts.next_timeout(), None);
    check_rules(&mut net, &sendings)
}

fn tell_directory(net: &mut Net, repo: &mut Repo, says: Says) {
    match says {
        Says::Found(host) => net.publish(repo, host, "alice.test"),
        Says::NewKey => {
            let number = repo.rev % 900 + 2_000;
            repo.key = Repo::new(number, Curve::K256).key;
            net.publish(repo, PDS, "alice.test");
        }
        Says::NotFound => drop(net.directory.remove(&repo.did)),
        Says::Unavailable => {
            net.directory.insert(repo.did.clone(), IdentityAnswer::Unavailable);
        }
    }
}

/// Received = forwarded + refused + waiting, by the stage's own counts and by ours.
fn count(net: &mut Net, counted: &mut [u64; 3]) -> Result<(), TestCaseError> {
    let waiting = net.accounts.inbox.len() as u64;
    let tally = net.accounts.take_tally();
    counted[0] += tally.received.iter().sum::<u64>();
    counted[1] += tally.forwarded.iter().sum::<u64>();
    counted[2] += tally.refused.iter().sum::<u64>();
    prop_assert_eq!(counted[0], counted[1] + counted[2] + tally.parked + waiting);
    let fates =
        |wanted: fn(&Fate) -> bool| net.fates.iter().filter(|fate| wanted(fate)).count() as u64;
    prop_assert_eq!(counted[1], fates(|fate| matches!(fate, Fate::Forwarded(_))));
    prop_assert_eq!(counted[2], fates(|fate| matches!(fate, Fate::Refused(_))));
    prop_assert_eq!(tally.parked + waiting, fates(|fate| *fate == Fate::Parked));
    Ok(())
}

/// What becomes of the frames if they come in turns of these lengths.
fn fates_in_turns(frames: &[(HostId, Vec<u8>)], turns: &[usize], setup: &Net) -> Vec<Fate> {
    let mut net = Net::new();
    net.directory = setup.directory.clone();
    let mut lengths = turns.iter().cycle();
    let mut rest = frames;
    while !rest.is_empty() {
        let length = (*lengths.next().unwrap()).clamp(1, rest.len());
        let (turn, tail) = rest.split_at(length);
        for (host, frame) in turn {
            net.send(*host, frame);
        }
        net.settle();
        rest = tail;
    }
    // Events of hosts that do not hold the account may have to wait until they are looked up.
    net.wait_seconds(60);
    net.fates
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn rules_hold_whatever_comes_in(commands in prop::collection::vec(command(), 1..80)) {
        run_commands(&commands)?;
    }

    #[test]
    fn how_frames_fall_into_turns_plays_no_part(
        makes in prop::collection::vec(frames(), 1..40),
        turns in prop::collection::vec(1..12usize, 1..6),
    ) {
        let mut net = Net::new();
        let mut senders = Senders::new(&mut net);
        let frames: Vec<(HostId, Vec<u8>)> = makes
            .iter()
            .map(|(account, host, make)| (*host, senders.make(*account, *make)))
            .collect();
        let one_by_one = fates_in_turns(&frames, &[1], &net);
        prop_assert_eq!(&one_by_one, &fates_in_turns(&frames, &turns, &net));
        prop_assert_eq!(&one_by_one, &fates_in_turns(&frames, &[usize::MAX], &net));
        prop_assert!(!one_by_one.contains(&Fate::Parked));
        for (fate, (_, _, make)) in one_by_one.iter().zip(&makes) {
            if matches!(make, Make::Broken) {
                prop_assert_eq!(fate, &Fate::Refused(RefusalReason::BlockHash));
            }
        }
    }
}
