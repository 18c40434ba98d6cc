//! `bench store URL ACCOUNTS`: the store with a table of that many accounts.

use std::{
    io,
    time::{Duration, Instant},
};

use control::store::{DatabaseUrl, NewHost, Store, StoreError};
use ports::{
    AccountId, EventKind, HostId, HostSeq, LocalStatus, LogBounds, LogRecord, LogTail, RelaySeq,
    RepoHead, UpstreamStatus,
};

const HOSTS: u64 = 1000;
/// Events after the table has been filled, of accounts all over it.
const UPDATES: u64 = 1_000_000;
const LOOKUPS: u64 = 20_000;

/// A log that is made up as it is read: first one event of every account, then events of accounts
/// all over the table.
struct MadeUp {
    accounts: u64,
    end: u64,
}

/// Bits well mixed (splitmix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn did(account: u64) -> String {
    const DIGITS: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
    let (mut high, mut low) = (mix(account), mix(!account));
    let mut text = String::from("did:plc:");
    for _ in 0..12 {
        for half in [&mut high, &mut low] {
            text.push(char::from(DIGITS[(*half & 31) as usize]));
            *half >>= 5;
        }
    }
    text
}

impl MadeUp {
    fn account(&self, seq: u64) -> u64 {
        if seq <= self.accounts { seq } else { mix(seq) % self.accounts + 1 }
    }
}

impl LogTail for MadeUp {
    fn bounds(&self) -> LogBounds {
        let newest = RelaySeq(self.end);
        LogBounds { oldest: Some(RelaySeq(1)), newest, synced: newest, bytes: 0 }
    }

    fn release(&mut self, _: RelaySeq) {}

    fn read_after(
        &mut self,
        after: RelaySeq,
        count: usize,
        records: &mut Vec<LogRecord>,
    ) -> io::Result<()> {
        for seq in (after.0 + 1..=self.end).take(count) {
            let account = self.account(seq);
            let mut hash = [0; 32];
            for (chunk, number) in hash.chunks_exact_mut(8).zip(seq..) {
                chunk.copy_from_slice(&mix(number).to_le_bytes());
            }
            records.push(LogRecord {
                seq: RelaySeq(seq),
                kind: EventKind::Commit,
                account: AccountId(account),
                host: HostId((account % HOSTS + 1) as u32),
                host_seq: HostSeq(seq),
                time_micros: 0,
                upstream: UpstreamStatus::ACTIVE,
                local: LocalStatus::Active,
                head: Some(RepoHead { rev: seq, data: hash, commit: hash }),
            });
        }
        Ok(())
    }

    fn did_of(&mut self, seq: RelaySeq) -> io::Result<String> {
        Ok(did(self.account(seq.0)))
    }
}

pub(crate) fn run(url: &str, accounts: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match (runtime, DatabaseUrl::parse(url)) {
        (Ok(runtime), Ok(url)) => runtime.block_on(measure(&url, accounts)),
        (Err(error), _) => Err(error.into()),
        (_, Err(error)) => Err(error),
    };
    if let Err(error) = result {
        eprintln!("bench store: {error}");
    }
}

async fn measure(url: &DatabaseUrl, accounts: u64) -> Result<(), StoreError> {
    println!("{url}: {accounts} accounts on {HOSTS} hosts");
    let store = Store::open(url)?;
    for number in 1..=HOSTS {
        let hostname = format!("host{number}.example");
        let (tls, trusted, account_limit, by_admin) = (true, true, u64::from(u32::MAX), true);
        store.insert_host(NewHost { hostname, tls, trusted, account_limit, by_admin }).await?;
    }
    // All events count as taken: their hosts' cursors are far ahead.
    let progress = (1..=HOSTS as u32).map(|host| ports::HostProgress {
        cursor: Some(HostSeq(u64::from(u32::MAX))),
        ..ports::HostProgress::new(HostId(host))
    });
    store.save_progress(progress.collect()).await?;
    let rate = |count: u64, since: Instant| count as f64 / since.elapsed().as_secs_f64();

    let known = store.log_seq().await?.0;
    let began = Instant::now();
    store.follow(Box::new(MadeUp { accounts, end: accounts.max(known) })).await?;
    println!(
        "{:>12.0} accounts a second made from the log",
        rate(accounts.saturating_sub(known), began)
    );
    store.close().await?;

    let began = Instant::now();
    let store = Store::open(url)?;
    let end = accounts.max(known);
    store.follow(Box::new(MadeUp { accounts, end })).await?;
    println!("{:>12.1} ms from nothing to ready", began.elapsed().as_secs_f64() * 1e3);

    let began = Instant::now();
    store.follow(Box::new(MadeUp { accounts, end: end + UPDATES })).await?;
    println!("{:>12.0} account updates a second, all over the table", rate(UPDATES, began));
    lookups(&store, accounts).await?;
    pages(&store, accounts).await?;
    store.close().await
}

async fn lookups(store: &Store, accounts: u64) -> Result<(), StoreError> {
    let began = Instant::now();
    for number in 0..1000 {
        store.account_as_of(&did(mix(number) % accounts + 1), RelaySeq(0)).await?;
    }
    println!("{:>12.1} µs a look-up, one at a time", began.elapsed().as_secs_f64() * 1e3);
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..LOOKUPS {
        let (store, did) = (store.clone(), did(mix(number << 20) % accounts + 1));
        tasks.spawn(async move { store.account_as_of(&did, RelaySeq(0)).await.is_ok() });
    }
    let found = tasks.join_all().await.into_iter().filter(|found| *found).count();
    println!(
        "{:>12.0} look-ups a second, many at once",
        found as f64 / began.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn pages(store: &Store, accounts: u64) -> Result<(), StoreError> {
    let mut times = Vec::new();
    for after in [0, accounts / 2, accounts - 1001] {
        let began = Instant::now();
        store.accounts_after(after, 1000).await?;
        times.push(began.elapsed());
    }
    let millis = |time: &Duration| time.as_secs_f64() * 1e3;
    let [first, middle, last] = [0, 1, 2].map(|index| times.get(index).map_or(0.0, millis));
    println!(
        "{first:>12.1} ms a page of 1000 accounts at the beginning, {middle:.1} in the middle, {last:.1} at the end"
    );
    Ok(())
}
