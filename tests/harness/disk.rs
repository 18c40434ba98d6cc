//! A disk that loses power, fails, and stops the relay at any change: `disk.c`, preloaded into the real
//! binary, takes down every change below the data folder; here is what a power loss leaves of them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tempfile::TempDir;

use super::{dice::Dice, eventually};

/// Linux's numbers for what disks say.
pub const EIO: u32 = 5;
pub const ENOSPC: u32 = 28;
pub const EROFS: u32 = 30;

/// Where errors are.
pub const IN_LOG: u32 = 1;
pub const IN_DATABASE: u32 = 2;

/// A disk writes a sector as a whole.
const SECTOR_BYTES: usize = 512;

/// The words of `struct rules` in disk.c.
#[derive(Clone, Copy)]
enum Rule {
    WriteError,
    SyncError,
    ReadError,
    Places,
    SyncDelay,
    Frozen,
    Busy,
    Countdown,
    Changes,
}

/// Kinds of journal entries, as in disk.c.
const OPEN: u32 = 1;
const WRITE: u32 = 2;
const SET_LEN: u32 = 3;
const SYNC_BEGIN: u32 = 4;
const SYNC_END: u32 = 5;
const SYNC_FAILED: u32 = 6;
const RENAME: u32 = 7;
const UNLINK: u32 = 8;
const CREATE: u32 = 9;

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    /// In order, each with its number.
    pending: Vec<(u64, Change)>,
}

enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
}

/// What is open under a handle.
#[derive(Clone)]
enum Opened {
    File(usize),
    Folder(PathBuf),
}

/// What the journal has come to: as the page cache shows it, and as it is on the disk.
#[derive(Default)]
struct Model {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    name_changes: Vec<(u64, NameChange)>,
    opened: BTreeMap<u32, Opened>,
    /// Syncs that have begun: the first change that is not in them.
    syncing: BTreeMap<u64, u64>,
    count: u64,
}

/// The disk under one data folder.
pub struct Disk {
    place: TempDir,
    root: PathBuf,
    rules: File,
    model: Model,
}

impl Disk {
    /// `root` is the data folder; what is in it is on the disk for certain.
    pub fn under(root: PathBuf) -> Self {
        let place = TempDir::new().unwrap();
        fs::write(place.path().join("rules"), [0; 4096]).unwrap();
        let rules = File::options().read(true).write(true).open(place.path().join("rules"));
        let mut model = Model::default();
        model.take_as_durable(&root);
        Self { place, root, rules: rules.unwrap(), model }
    }

    /// For the relay, or a tool that works on the folder.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            ("LD_PRELOAD".into(), text(library())),
            ("RELAYERED_TEST_DISK".into(), text(self.place.path())),
            ("RELAYERED_TEST_DISK_ROOT".into(), text(&self.root)),
        ]
    }

    fn set(&self, rule: Rule, value: u32) {
        self.rules.write_all_at(&value.to_ne_bytes(), rule as u64 * 4).unwrap();
    }

    fn get(&self, rule: Rule) -> u32 {
        let mut bytes = [0; 4];
        self.rules.read_exact_at(&mut bytes, rule as u64 * 4).unwrap();
        u32::from_ne_bytes(bytes)
    }

    /// From now on changes fail like this; 0: they don't.
    pub fn fail_writes(&self, place: u32, errno: u32) {
        self.set(Rule::Places, place);
        self.set(Rule::WriteError, errno);
    }

    pub fn fail_syncs(&self, place: u32, errno: u32) {
        self.set(Rule::Places, place);
        self.set(Rule::SyncError, errno);
    }

    pub fn fail_reads(&self, place: u32, errno: u32) {
        self.set(Rule::Places, place);
        self.set(Rule::ReadError, errno);
    }

    pub fn slow_syncs(&self, millis: u32) {
        self.set(Rule::SyncDelay, millis);
    }

    /// The process dies in the change after so many; 0: it lives on.
    pub fn die_after(&self, changes: u32) {
        self.set(Rule::Countdown, changes);
    }

    /// How many changes there were.
    pub fn changes(&self) -> u32 {
        self.get(Rule::Changes)
    }

    /// Between two changes; whoever wants to make one waits. To be killed in.
    pub fn freeze(&self) {
        self.set(Rule::Frozen, 1);
        eventually("the end of a change", || (self.get(Rule::Busy) == 0).then_some(()));
    }

    /// The process has ended: the disk is ready for the next one.
    pub fn thaw(&mut self) {
        self.set(Rule::Frozen, 0);
        self.set(Rule::Busy, 0);
        self.set(Rule::Countdown, 0);
        let path = self.place.path().join("journal");
        if let Ok(journal) = fs::read(&path) {
            self.model.read(&journal);
            fs::remove_file(path).unwrap();
        }
        self.model.forget_handles();
    }

    /// After [`Disk::thaw`]: the folder becomes what a power loss could leave.
    pub fn lose_power(&mut self, dice: &mut Dice) {
        self.model.lose_power(dice);
        for path in files_below(&self.root) {
            fs::remove_file(path).unwrap();
        }
        for (path, inode) in &self.model.names {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &self.model.inodes[*inode].durable).unwrap();
        }
    }

    /// After [`Disk::thaw`]: asserts that the journal tells of everything that has changed.
    pub fn check(&self) {
        let real: Vec<_> =
            files_below(&self.root).into_iter().filter(|path| is_kept(path)).collect();
        assert!(real.iter().eq(self.model.names.keys()), "{real:?} {:?}", self.model.names.keys());
        for (path, inode) in &self.model.names {
            let held = self.model.inodes[*inode].as_seen();
            assert!(fs::read(path).unwrap() == held, "{} is not as in the journal", path.display());
        }
    }
}

/// SQLite's index of its write-ahead log is mapped, and made anew after a crash.
fn is_kept(path: &Path) -> bool {
    path.extension() != Some(OsStr::new("sqlite-shm"))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => content.resize(*len, 0),
        Change::Write(offset, bytes) => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
    }
}

/// A change that was not synced is on the disk, or not, or only some of its sectors are.
fn lose_some(dice: &mut Dice, content: &mut Vec<u8>, change: &Change) {
    match (dice.below(3), change) {
        (0, _) => {}
        (1, Change::Write(offset, bytes)) => {
            let (mut at, mut rest) = (*offset, &bytes[..]);
            while !rest.is_empty() {
                let (part, tail) = rest.split_at(rest.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
                if dice.one_in(2) {
                    apply(content, &Change::Write(at, part.to_vec()));
                }
                at += part.len();
                rest = tail;
            }
        }
        _ => apply(content, change),
    }
}

impl Inode {
    fn as_seen(&self) -> Vec<u8> {
        let mut content = self.durable.clone();
        self.pending.iter().for_each(|(_, change)| apply(&mut content, change));
        content
    }
}

impl Model {
    fn take_as_durable(&mut self, root: &Path) {
        for path in files_below(root).into_iter().filter(|path| is_kept(path)) {
            let durable = fs::read(&path).unwrap();
            self.inodes.push(Inode { durable, pending: Vec::new() });
            self.names.insert(path, self.inodes.len() - 1);
        }
        self.durable_names.clone_from(&self.names);
    }

    /// Reads journal entries; a last one may be cut off.
    fn read(&mut self, mut journal: &[u8]) {
        const HEAD: usize = 24;
        while let Some((head, rest)) = journal.split_at_checked(HEAD) {
            let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
            let long = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap());
            let Some((bytes, tail)) = rest.split_at_checked(long(16) as usize) else { return };
            self.handle(word(0), word(4), long(8), bytes);
            journal = tail;
        }
    }

    fn handle(&mut self, kind: u32, handle: u32, offset: u64, bytes: &[u8]) {
        self.count += 1;
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        match kind {
            OPEN | CREATE => self.open(handle, path(bytes), kind == CREATE),
            WRITE => self.change(handle, Change::Write(offset as usize, bytes.to_vec())),
            SET_LEN => self.change(handle, Change::SetLen(offset as usize)),
            SYNC_BEGIN => {
                self.syncing.insert(offset, self.count);
            }
            SYNC_END | SYNC_FAILED => self.sync(handle, offset, kind == SYNC_FAILED),
            RENAME => {
                let (from, to) = bytes.split_at(offset as usize);
                if let Some(inode) = self.names.remove(&path(from)) {
                    self.link(path(to), inode);
                }
            }
            UNLINK => {
                self.names.remove(&path(bytes));
                self.name_changes.push((self.count, NameChange::Unlink(path(bytes))));
            }
            _ => panic!("journal entry {kind}"),
        }
    }

    fn open(&mut self, handle: u32, path: PathBuf, created: bool) {
        if created && is_kept(&path) {
            self.inodes.push(Inode::default());
            self.link(path.clone(), self.inodes.len() - 1);
        }
        let opened = match self.names.get(&path) {
            Some(inode) => Opened::File(*inode),
            None => Opened::Folder(path),
        };
        self.opened.insert(handle, opened);
    }

    fn link(&mut self, path: PathBuf, inode: usize) {
        self.names.insert(path.clone(), inode);
        self.name_changes.push((self.count, NameChange::Link(path, inode)));
    }

    fn change(&mut self, handle: u32, change: Change) {
        if let Some(Opened::File(inode)) = self.opened.get(&handle) {
            self.inodes[*inode].pending.push((self.count, change));
        }
    }

    fn sync(&mut self, handle: u32, token: u64, failed: bool) {
        let Some(end) = self.syncing.remove(&token) else { return };
        match self.opened.get(&handle) {
            Some(Opened::File(inode)) => {
                let inode = &mut self.inodes[*inode];
                let synced = inode.pending.partition_point(|(number, _)| *number < end);
                for (number, change) in inode.pending.drain(..synced) {
                    // Linux counts pages that could not be written as clean: a later sync leaves them out.
                    if !failed || number % 2 == 0 {
                        apply(&mut inode.durable, &change);
                    }
                }
            }
            Some(Opened::Folder(folder)) if !failed => {
                let (folder, changes) = (folder.clone(), std::mem::take(&mut self.name_changes));
                for (number, change) in changes {
                    let (NameChange::Link(path, _) | NameChange::Unlink(path)) = &change;
                    if number < end && path.parent() == Some(&folder) {
                        apply_name(&mut self.durable_names, change);
                    } else {
                        self.name_changes.push((number, change));
                    }
                }
            }
            _ => {}
        }
    }

    fn forget_handles(&mut self) {
        self.opened.clear();
        self.syncing.clear();
    }

    fn lose_power(&mut self, dice: &mut Dice) {
        // The usual file systems journal names in order.
        let kept = dice.below(self.name_changes.len() + 1);
        for (_, change) in self.name_changes.drain(..).take(kept) {
            apply_name(&mut self.durable_names, change);
        }
        self.names.clone_from(&self.durable_names);
        for inode in &mut self.inodes {
            for (_, change) in std::mem::take(&mut inode.pending) {
                lose_some(dice, &mut inode.durable, &change);
            }
        }
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            // A rename takes the old name away.
            names.retain(|_, held| *held != inode);
            names.insert(path, inode);
        }
        NameChange::Unlink(path) => {
            names.remove(&path);
        }
    }
}

/// Compiled once for a process; the compiler is the one that the workspace needs anyhow.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/disk.c");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let fresh = target.join(format!("disk-{}.so", std::process::id()));
        let options = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread", "-o"];
        let output = Command::new("cc").args(options).arg(&fresh).arg(source).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Tests that run beside this one have the old file mapped: it is replaced, not overwritten.
        let path = target.join("disk.so");
        fs::rename(&fresh, &path).unwrap();
        path
    })
}
