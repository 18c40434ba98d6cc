//! The rows of the database against the log and against what was sent, after a stream with everything in
//! it: all kinds of events, moves, take-downs, accounts above a limit, refused events, kills.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use harness::{
    FakePds, FakePlc, Postgres, Relay,
    author::{Author, record},
    eventually, json,
};
use ports::{StatusWord, UpstreamStatus};
use protocol::{Cid, syntax::Tid};
use serde_json::{Value, json};

const HOSTS: usize = 3;
const ACCOUNTS: u64 = 18;
/// The last host may have so many accounts, and more than that want to be there.
const LIMIT: usize = 4;
const COLLECTIONS: [&str; 4] =
    ["app.bsky.feed.post", "app.bsky.feed.like", "com.example.thing", "net.example.other.kind"];

struct Member {
    author: Author,
    host: usize,
    /// What its host said last.
    said: UpstreamStatus,
    taken_down: bool,
    /// Collections of the creates that were sent.
    created: BTreeSet<String>,
    records: Vec<String>,
}

struct World {
    plc: FakePlc,
    hosts: [FakePds; HOSTS],
    seqs: [u64; HOSTS],
    members: Vec<Member>,
    relay: Relay,
    random: u64,
    /// Nothing that waits for it can be waited for.
    database_is_away: bool,
}

impl World {
    fn new(arguments: &[&str]) -> Self {
        let plc = FakePlc::start();
        let hosts: [FakePds; HOSTS] = std::array::from_fn(|_| FakePds::start());
        // So that the limit of accounts holds.
        let untrusted = ["--trusted-domains", "*.example"];
        let relay = Relay::start(&plc, &[&untrusted[..], arguments].concat());
        for (number, pds) in hosts.iter().enumerate() {
            relay.add_host(pds);
            let limit = if number == HOSTS - 1 { LIMIT } else { 1000 };
            let limits = json!({
                "host": pds.hostname(), "repo_limit": limit,
                "per_second": 100_000, "per_hour": 100_000_000, "per_day": 100_000_000,
            });
            let reply = relay.admin("POST", "/admin/pds/changeLimits", &limits.to_string());
            assert_eq!(reply.status, 200, "{reply:?}");
        }
        let member = |number: u64| {
            let host = number as usize % HOSTS;
            let author = Author::new((20 << 20) + number);
            author.register(&plc, &hosts[host]);
            let (created, records) = (BTreeSet::new(), Vec::new());
            let said = UpstreamStatus::ACTIVE;
            Member { author, host, said, taken_down: false, created, records }
        };
        let members = (0..ACCOUNTS).map(member).collect();
        Self { members, plc, hosts, seqs: [0; HOSTS], relay, random: 7, database_is_away: false }
    }

    fn random(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) as usize % below
    }

    fn send(&mut self, host: usize, kind: &str, body: &Value) {
        self.seqs[host] += 1;
        let mut body = body.clone();
        body["seq"] = self.seqs[host].into();
        self.hosts[host].push(self.seqs[host], json::event(kind, &body));
    }

    fn of(&mut self, index: usize, kind: &str, body: &Value) {
        self.send(self.members[index].host, kind, body);
    }

    /// One event or a few, of whatever kind.
    fn step(&mut self) {
        let index = self.random(self.members.len());
        if !self.members[index].said.active {
            if self.random(3) == 0 {
                self.says(index, UpstreamStatus::ACTIVE);
            } else {
                self.announce(index);
            }
            return;
        }
        match self.random(60) {
            0..=5 => self.touch(index),
            6..=8 => self.sync(index),
            9..=11 => self.announce(index),
            12..=14 => {
                // Where the host is full, nobody makes room.
                let words = [
                    StatusWord::Deactivated,
                    StatusWord::Suspended,
                    StatusWord::Takendown,
                    StatusWord::Deleted,
                ];
                let count = if self.members[index].host == HOSTS - 1 { 3 } else { 4 };
                let word = words[self.random(count)];
                self.says(index, UpstreamStatus { active: false, word });
            }
            15 => self.moves(index),
            16..=18 => self.forges(index),
            19..=21 => self.strays(index),
            _ => self.create(index),
        }
    }

    fn create(&mut self, index: usize) {
        let collection = COLLECTIONS[self.random(COLLECTIONS.len())];
        let number = self.random(1 << 30) as u64;
        let path = format!("{collection}/{number}");
        let member = &mut self.members[index];
        let body = member.author.commit(&[(&path, Some(record(number)))]);
        member.created.insert(collection.to_owned());
        member.records.push(path);
        self.of(index, "commit", &body);
    }

    /// An update or a delete.
    fn touch(&mut self, index: usize) {
        let number = self.random(1 << 30) as u64;
        let member = &mut self.members[index];
        let Some(path) = member.records.pop() else { return };
        let after = number.is_multiple_of(2).then(|| record(number));
        let body = member.author.commit(&[(&path, after)]);
        self.of(index, "commit", &body);
    }

    /// Instead of a commit that nobody gets.
    fn sync(&mut self, index: usize) {
        self.members[index].author.post();
        let body = self.members[index].author.sync();
        self.of(index, "sync", &body);
    }

    fn announce(&mut self, index: usize) {
        let handle = self.members[index].author.handle();
        let body = self.members[index].author.identity(Some(&handle));
        self.of(index, "identity", &body);
    }

    fn says(&mut self, index: usize, said: UpstreamStatus) {
        self.members[index].said = said;
        let did = self.members[index].author.did.clone();
        let reply = json!({ "did": did, "active": said.active, "status": said.word.label() });
        self.hosts[self.members[index].host].set_status(&did, reply.to_string());
        let body = self.members[index].author.account(said.active, said.word.label());
        self.of(index, "account", &body);
    }

    /// To another host, but not to the one that is full.
    fn moves(&mut self, index: usize) {
        if self.members[index].host == HOSTS - 1 || Self::strays_of(index) || self.database_is_away
        {
            return;
        }
        // What the old host has sent is through before the document changes.
        self.wait_until_taken();
        let to = 1 - self.members[index].host;
        self.members[index].host = to;
        self.members[index].author.register(&self.plc, &self.hosts[to]);
        self.announce(index);
        self.create(index);
    }

    /// Signed by somebody else.
    fn forges(&mut self, index: usize) {
        let other = Author::new((21 << 20) + index as u64).key;
        let mut forger = Author::new(0);
        forger.did.clone_from(&self.members[index].author.did);
        let draft = forger.draft_post();
        let body = forger.seal_with(&draft, &other);
        self.of(index, "commit", &body);
    }

    /// Whether others speak for the account. Such accounts stay where they are: what was refused may
    /// come again after a kill, and would be in order then, had the account gone there.
    fn strays_of(index: usize) -> bool {
        index.is_multiple_of(2)
    }

    /// Of a host that does not hold the account.
    fn strays(&mut self, index: usize) {
        if !Self::strays_of(index) {
            return;
        }
        let body = self.members[index].author.account(false, Some("deleted"));
        self.send((self.members[index].host + 1) % HOSTS, "account", &body);
    }

    fn take_down(&mut self, index: usize, down: bool) {
        self.wait_until_taken();
        let did = &self.members[index].author.did;
        let method = if down { "takeDown" } else { "reverseTakedown" };
        let body = json!({ "did": did }).to_string();
        let reply = self.relay.admin("POST", &format!("/admin/repo/{method}"), &body);
        // One that has been heard of in vain only is not known.
        assert!([200, 404].contains(&reply.status), "{reply:?}");
        self.members[index].taken_down = down && reply.status == 200;
    }

    /// All that was sent has become an event, or was refused.
    fn wait_until_taken(&self) {
        for (pds, seq) in self.hosts.iter().zip(self.seqs) {
            let target =
                format!("/xrpc/com.atproto.sync.getHostStatus?hostname={}", pds.hostname());
            eventually("the host's events to be taken", || {
                (self.relay.get(&target).json()["seq"].as_u64().unwrap_or(0) >= seq).then_some(())
            });
        }
    }

    /// The events of the log, oldest first, by the tool.
    fn dump(&self) -> Vec<Value> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relayered"));
        command.env_clear().args(["log", "dump", "--json", "--from", "0", "--data-dir"]);
        let done = command.arg(self.relay.data_dir()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let text = String::from_utf8(done.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Where the rows are.
enum Database {
    Sqlite,
    Postgres(Postgres),
}

impl Database {
    /// Rows of texts. `hex(…)` is taken by both.
    fn rows(&self, world: &World, sql: &str) -> Vec<Vec<Option<String>>> {
        match self {
            Self::Sqlite => {
                let path = world.relay.data_dir().join("relayered.sqlite");
                let connection = rusqlite::Connection::open(path).unwrap();
                let mut statement = connection.prepare(sql).unwrap();
                let count = statement.column_count();
                let rows = statement
                    .query_map([], |row| (0..count).map(|at| row.get(at)).collect())
                    .unwrap();
                rows.map(Result::unwrap).collect()
            }
            Self::Postgres(postgres) => {
                let sql = sql.replace("hex(", "public.hex(");
                let rows = postgres.query(&sql);
                rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect()
            }
        }
    }
}

/// What the log says of an account.
#[derive(Debug, Default)]
struct Told {
    did: String,
    host: Option<u64>,
    head: Option<(String, String, String)>,
    announced: Option<u8>,
    collections: BTreeSet<String>,
    erased: bool,
}

/// Accounts by number.
fn fold(dump: &[Value]) -> BTreeMap<u64, Told> {
    let mut accounts: BTreeMap<u64, Told> = BTreeMap::new();
    for event in dump {
        let account = accounts.entry(event["account"].as_u64().unwrap()).or_default();
        let kind = event["kind"].as_str().unwrap();
        let host = event["host"].as_u64().unwrap();
        if kind != "#identity" && host != 0 {
            account.host = Some(host);
        }
        if event["erased"] == true {
            account.erased = true;
            account.head = None;
            continue;
        }
        event["did"].as_str().unwrap().clone_into(&mut account.did);
        let body = &event["body"];
        match kind {
            "#commit" | "#sync" => {
                let text = |name: &str| body[name].as_str().unwrap();
                let rev = Tid::parse(text("rev")).unwrap().as_u64().to_string();
                account.head = Some((rev, digest(text("data")), digest(text("commit"))));
            }
            "#account" => {
                let active = body["active"] == true;
                let word = body["status"].as_str().map_or(StatusWord::None, StatusWord::parse);
                account.announced = Some(UpstreamStatus { active, word }.code());
            }
            _ => {}
        }
        for op in body["ops"].as_array().into_iter().flatten() {
            if op["action"] == "create" {
                let path = op["path"].as_str().unwrap();
                account.collections.insert(path.split('/').next().unwrap().to_owned());
            }
        }
    }
    accounts
}

fn digest(cid: &str) -> String {
    let bytes = BASE32_NOPAD.decode(cid.strip_prefix('b').unwrap().to_uppercase().as_bytes());
    HEXLOWER.encode(&Cid::parse(&bytes.unwrap()).unwrap().digest())
}

/// Plays the stream, with kills in it, and stops the relay in order.
fn play(world: &mut World, database: &mut Database) {
    const STEPS: usize = 600;
    for step in 0..STEPS {
        match step {
            150 => world.take_down(3, true),
            200 => world.take_down(4, true),
            400 => world.take_down(3, false),
            250 => {
                world.relay.kill();
                world.relay.launch();
            }
            320 | 360 => {
                if let Database::Postgres(postgres) = database {
                    world.database_is_away = step == 320;
                    if world.database_is_away { postgres.crash() } else { postgres.launch() }
                }
            }
            450 => {
                // Killed right behind its events.
                for index in 0..world.members.len() {
                    if world.members[index].said.active {
                        world.create(index);
                    }
                }
                world.wait_until_taken();
                world.relay.kill();
                world.relay.launch();
            }
            _ => {}
        }
        world.step();
    }
    world.wait_until_taken();
    assert!(world.relay.terminate().success());
}

fn compare(world: &World, database: &Database) {
    let dump = world.dump();
    for kind in ["#commit", "#sync", "#identity", "#account"] {
        assert!(dump.iter().filter(|event| event["kind"] == kind).count() > 5, "{kind}");
    }
    let told = fold(&dump);
    compare_accounts(world, database, &told);
    compare_collections(world, database, &told);
    compare_hosts(world, database);
    let newest = dump.last().unwrap()["seq"].to_string();
    let sql = "SELECT CAST(value AS TEXT) FROM meta WHERE name = 'log_seq'";
    assert_eq!(database.rows(world, sql), [[Some(newest)]], "the rows' place in the log");
}

fn compare_accounts(world: &World, database: &Database, told: &BTreeMap<u64, Told>) {
    let rows = database.rows(
        world,
        "SELECT CAST(id AS TEXT), did, CAST(host_id AS TEXT), CAST(upstream AS TEXT),
                CAST(local AS TEXT), CAST(announced AS TEXT), CAST(rev AS TEXT), hex(data),
                hex(commit_hash)
         FROM account ORDER BY id",
    );
    let ids: BTreeSet<u64> =
        rows.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
    assert!(told.keys().all(|id| ids.contains(id)), "each account of the log has its row");
    let mut throttled = 0;
    for row in &rows {
        let field = |at: usize| row[at].as_deref();
        let did = field(1).unwrap();
        let number = |at: usize| field(at).map(|text| text.parse::<u64>().unwrap());
        let member = world.members.iter().find(|member| member.author.did == did).unwrap();
        let upstream = UpstreamStatus::from_code(number(3).unwrap() as u8);
        let local = number(4).unwrap();
        throttled += u64::from(local == 2);
        assert_eq!(local == 1, member.taken_down, "{did}: taken down");
        assert_eq!(upstream, member.said, "{did}: what its host said last");
        let Some(account) = told.get(&number(0).unwrap()) else {
            assert_eq!((number(5), number(6)), (None, None), "{did}: nothing is in the log");
            continue;
        };
        if !account.did.is_empty() {
            assert_eq!(account.did, did);
        }
        if let Some(host) = account.host {
            assert_eq!(number(2), Some(host), "{did}: host");
        }
        assert_eq!(number(5), account.announced.map(u64::from), "{did}: announced");
        let hex = |at: usize| field(at).map(str::to_lowercase);
        let head = field(6).map(|rev| (rev.to_owned(), hex(7).unwrap(), hex(8).unwrap()));
        if !account.erased || account.head.is_some() {
            assert_eq!(head, account.head, "{did}: head");
        }
        // Nobody has stopped it: the log is as far as its author.
        if local == 0 && !account.erased && member.host != HOSTS - 1 {
            let data = member.author.data().map(|data| HEXLOWER.encode(&data.digest()));
            assert_eq!(head.map(|(_, data, _)| data), data, "{did}: the author's tree");
        }
    }
    assert!(throttled > 0, "accounts above the limit of a host where nobody is deleted");
}

fn compare_collections(world: &World, database: &Database, told: &BTreeMap<u64, Told>) {
    let rows = database.rows(
        world,
        "SELECT CAST(c.account_id AS TEXT), n.nsid FROM collection AS c
         JOIN collection_name AS n ON n.id = c.name_id",
    );
    let mut stored: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        let id = row[0].as_ref().unwrap().parse().unwrap();
        stored.entry(id).or_default().insert(row[1].clone().unwrap());
    }
    for (id, account) in told {
        let stored = stored.remove(id).unwrap_or_default();
        let missing: Vec<_> = account.collections.difference(&stored).collect();
        assert!(missing.is_empty(), "{}: no row for {missing:?}", account.did);
        let of_log = account.erased || stored == account.collections;
        assert!(of_log, "{}: {stored:?}, not {:?}", account.did, account.collections);
    }
    assert!(stored.is_empty(), "collections of accounts without events: {stored:?}");
}

fn compare_hosts(world: &World, database: &Database) {
    let rows = database.rows(
        world,
        "SELECT hostname, CAST(last_seq AS TEXT), CAST(account_count AS TEXT),
                CAST((SELECT count(*) FROM account
                      WHERE host_id = host.id AND upstream <> 3 AND local <> 2) AS TEXT)
         FROM host ORDER BY id",
    );
    assert_eq!(rows.len(), HOSTS);
    for (row, (pds, seq)) in rows.iter().zip(world.hosts.iter().zip(world.seqs)) {
        assert_eq!(row[0], Some(pds.hostname()));
        assert_eq!(row[1], Some(seq.to_string()), "the cursor of {:?}", row[0]);
        assert_eq!(row[2], row[3], "the number of accounts of {:?}", row[0]);
    }
}

#[test]
fn rows_are_what_the_log_says_in_sqlite() {
    let mut world = World::new(&[]);
    play(&mut world, &mut Database::Sqlite);
    compare(&world, &Database::Sqlite);
}

#[test]
fn rows_are_what_the_log_says_in_postgresql() {
    let Some(postgres) = Postgres::start() else {
        return harness::skipped("rows", "PostgreSQL is not installed");
    };
    postgres.query(
        "CREATE FUNCTION hex(bytea) RETURNS text LANGUAGE sql AS $$ SELECT encode($1, 'hex') $$",
    );
    let mut world = World::new(&["--db-url", &postgres.url()]);
    let mut database = Database::Postgres(postgres);
    play(&mut world, &mut database);
    compare(&world, &database);
}
