//! The store's thread: commands as they come, and the log every half second.

use std::{
    mem,
    sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use ports::{AccountState, HostId, RelaySeq};
use tokio::sync::watch;

use super::{
    Command, DatabaseUrl, FollowedWork, Reply, StoreConfig, StoreError, StoredAccount,
    database::Database,
};

/// How often the account rows follow the log while the relay runs.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
/// The same, while somebody waits for an event that is not synced yet.
const AWAITED_INTERVAL: Duration = Duration::from_millis(20);
/// Look-ups and creations done in one go.
const TOGETHER: usize = 512;

/// Opens the database on the thread that is to own it, and waits until it is open.
pub(super) fn start(
    url: DatabaseUrl,
    config: StoreConfig,
    gives_up: watch::Receiver<bool>,
    commands: Receiver<Command>,
) -> Result<(), StoreError> {
    let (opened, result) = mpsc::sync_channel(1);
    let work = move || {
        let database = match Database::open(&url, config, gives_up) {
            Ok(database) => database,
            // The other end waits for it below.
            Err(error) => return drop(opened.send(Err(error))),
        };
        let _ = opened.send(Ok(()));
        Thread {
            database,
            commands,
            held: None,
            awaiting: Vec::new(),
            following: Vec::new(),
            next_follow: Instant::now() + FOLLOW_INTERVAL,
            reachable: true,
        }
        .run();
    };
    thread::Builder::new().name("store".into()).spawn(work)?;
    result.recv().map_err(|_gone| StoreError::Closed)?
}

/// How many threads run at once on this machine.
pub(super) fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

struct Find {
    did: String,
    as_of: RelaySeq,
    reply: Reply<StoredAccount>,
}

struct Create {
    did: String,
    host: HostId,
    reply: Reply<AccountState>,
}

struct Thread {
    database: Database,
    commands: Receiver<Command>,
    /// Taken from the queue while commands of another kind were put together.
    held: Option<Command>,
    /// Look-ups that need events which are not synced yet.
    awaiting: Vec<Find>,
    /// Work that needs the account rows to be as of an event.
    following: Vec<(RelaySeq, FollowedWork)>,
    next_follow: Instant,
    reachable: bool,
}

impl Thread {
    fn run(mut self) {
        metrics::gauge!("relayered_store_reachable").set(1.0);
        while !self.database.closed() {
            let wait = self.next_follow.saturating_duration_since(Instant::now());
            let command = match self.held.take() {
                Some(command) => Ok(command),
                None => self.commands.recv_timeout(wait),
            };
            match command {
                Ok(command) => self.handle(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= self.next_follow && !self.database.closed() {
                self.follow();
            }
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Work(work) => work(&mut self.database),
            Command::Followed(work) => {
                self.following.push((self.database.synced(), work));
                self.next_follow = Instant::now();
            }
            Command::Find { did, as_of, reply } => {
                let mut finds = vec![Find { did, as_of, reply }];
                while finds.len() < TOGETHER {
                    match self.commands.try_recv() {
                        Ok(Command::Find { did, as_of, reply }) => {
                            finds.push(Find { did, as_of, reply });
                        }
                        other => {
                            self.hold(other);
                            break;
                        }
                    }
                }
                self.find(finds);
            }
            Command::Create { did, host, reply } => {
                let mut creates = vec![Create { did, host, reply }];
                while creates.len() < TOGETHER {
                    match self.commands.try_recv() {
                        Ok(Command::Create { did, host, reply }) => {
                            creates.push(Create { did, host, reply });
                        }
                        other => {
                            self.hold(other);
                            break;
                        }
                    }
                }
                self.create(creates);
            }
        }
    }

    fn hold(&mut self, command: Result<Command, TryRecvError>) {
        // An end of all handles is noticed by the next wait.
        self.held = command.ok();
    }

    fn follow(&mut self) {
        let followed = self.database.follow_slice();
        match &followed {
            Ok(()) => self.note_reachable(true),
            Err(error) if error.is_passing() => self.note_reachable(false),
            Err(error) => {
                tracing::error!(%error, "the account rows could not follow the log; trying again");
            }
        }
        self.do_followed(followed.as_ref().err());
        let awaiting = mem::take(&mut self.awaiting);
        if !awaiting.is_empty() {
            self.find(awaiting);
        }
        let behind = followed.is_ok() && self.database.behind();
        // A batch that was full says that there is more: commands first, then the next one.
        let pause = match (behind, self.awaiting.is_empty()) {
            (true, _) => Duration::ZERO,
            (false, true) => FOLLOW_INTERVAL,
            (false, false) => AWAITED_INTERVAL,
        };
        self.next_follow = Instant::now() + pause;
    }

    /// The work whose event has been reached, or all of it if nothing could be followed.
    fn do_followed(&mut self, error: Option<&StoreError>) {
        if self.following.is_empty() {
            return;
        }
        let reached = match (error, self.database.log_seq()) {
            (None, Ok(reached)) => reached,
            (error, known) => {
                let unknown = known.err();
                let error = error.or(unknown.as_ref()).unwrap_or(&StoreError::Closed);
                for (_, work) in self.following.drain(..) {
                    work(Err(again(error)));
                }
                return;
            }
        };
        let (now, later): (Vec<_>, Vec<_>) =
            mem::take(&mut self.following).into_iter().partition(|(wanted, _)| *wanted <= reached);
        self.following = later;
        for (_, work) in now {
            work(Ok(&mut self.database));
        }
    }

    fn note_reachable(&mut self, reachable: bool) {
        if self.reachable != reachable {
            self.reachable = reachable;
            metrics::gauge!("relayered_store_reachable").set(f64::from(u8::from(reachable)));
        }
    }

    fn find(&mut self, finds: Vec<Find>) {
        let wanted = finds.iter().map(|find| find.as_of).max().unwrap_or(RelaySeq(0));
        let reached = match self.follow_towards(wanted) {
            Ok(reached) => reached,
            Err(error) => return fail(finds.into_iter().map(|find| find.reply), &error),
        };
        let (now, later): (Vec<Find>, Vec<Find>) =
            finds.into_iter().partition(|find| find.as_of <= reached);
        if !later.is_empty() {
            self.awaiting.extend(later);
            let pause = if self.database.behind() { Duration::ZERO } else { AWAITED_INTERVAL };
            self.next_follow = self.next_follow.min(Instant::now() + pause);
        }
        let dids: Vec<String> = now.iter().map(|find| find.did.clone()).collect();
        match self.database.accounts_by_did(&dids) {
            Ok(found) => {
                for (find, found) in now.into_iter().zip(found) {
                    // The asker may have gone.
                    let _ = find.reply.send(Ok(found));
                }
            }
            Err(error) => fail(now.into_iter().map(|find| find.reply), &error),
        }
    }

    /// Follows by a slice, unless the rows are as of `wanted`: others may have something to ask
    /// before the next one.
    fn follow_towards(&mut self, wanted: RelaySeq) -> Result<RelaySeq, StoreError> {
        if self.database.log_seq()? < wanted {
            self.database.follow_slice()?;
        }
        self.database.log_seq()
    }

    fn create(&mut self, creates: Vec<Create>) {
        let wanted: Vec<(String, HostId)> =
            creates.iter().map(|create| (create.did.clone(), create.host)).collect();
        match self.database.create_accounts(&wanted) {
            Ok(states) => {
                for (create, state) in creates.into_iter().zip(states) {
                    // The asker may have gone.
                    let _ = create.reply.send(Ok(state));
                }
            }
            Err(error) => fail(creates.into_iter().map(|create| create.reply), &error),
        }
    }
}

/// Tells all of them the same.
fn fail<T>(replies: impl Iterator<Item = Reply<T>>, error: &StoreError) {
    for reply in replies {
        let _ = reply.send(Err(again(error)));
    }
}

/// An error for one more of those whom it concerns.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unreachable(why) => StoreError::Unreachable(why.clone()),
        StoreError::Taken(by) => StoreError::Taken(by.clone()),
        StoreError::Closed => StoreError::Closed,
        other => StoreError::Failed(other.to_string()),
    }
}
