//! A disk for tests that fails, shortens and loses writes, and that can lose power.
//!
//! The files are real, so readers see what a page cache would show them. Beside them it keeps what
//! a power loss would leave: the content as of the last sync, and the writes since.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use super::storage::{Disk, Handle, Storage};

/// SplitMix64: small, seeded, good enough to choose faults.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Every write fails: no space.
    Full,
    /// Nothing at all can be changed.
    ReadOnly,
    /// Syncs fail, and some of what they should have written is never written.
    Sync,
}

#[derive(Debug)]
struct State {
    dice: Dice,
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    /// From the inode numbers of the real files, which stay the same when a file is renamed.
    numbers: BTreeMap<u64, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
    fault: Option<Fault>,
    short_writes: bool,
    /// Syncs asked for, of files and directories.
    syncs: u64,
    /// Operations until the machine stops; `None`: it runs on.
    countdown: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct FaultyDisk {
    state: Mutex<State>,
}

impl FaultyDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                dice: Dice(seed),
                inodes: Vec::new(),
                names: BTreeMap::new(),
                numbers: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                name_changes: Vec::new(),
                fault: None,
                short_writes: false,
                syncs: 0,
                countdown: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    pub(crate) fn set_short_writes(&self, short: bool) {
        self.lock().short_writes = short;
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The machine stops at the operation after so many.
    pub(crate) fn stop_after(&self, operations: Option<u64>) {
        self.lock().countdown = operations;
    }

    pub(crate) fn stopped(&self) -> bool {
        self.lock().countdown == Some(0)
    }

    /// Makes the real files what they could be after a power loss.
    pub(crate) fn lose_power(&self) {
        let mut state = self.lock();
        let State { dice, inodes, names, durable_names, name_changes, .. } = &mut *state;
        // Names are journaled in order by the usual file systems.
        let kept = dice.below(name_changes.len() as u64 + 1) as usize;
        for change in name_changes.drain(..).take(kept) {
            apply_name(durable_names, change);
        }
        for path in names.keys() {
            fs::remove_file(path).unwrap();
        }
        for inode in inodes.iter_mut() {
            for change in std::mem::take(&mut inode.pending) {
                lose_some(dice, &mut inode.durable, change);
            }
        }
        names.clone_from(durable_names);
        for (path, inode) in names.iter() {
            fs::write(path, &inodes[*inode].durable).unwrap();
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

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => content.resize(*len as usize, 0),
        Change::Write(offset, bytes) => {
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(bytes);
        }
    }
}

/// A disk writes a sector as a whole, and a write to one page is not cut short by a kill.
const SECTOR_BYTES: u64 = 512;

fn left_in_sector(offset: u64) -> usize {
    (SECTOR_BYTES - offset % SECTOR_BYTES) as usize
}

/// An unsynced change reaches the disk, or not, or only some of its sectors do.
fn lose_some(dice: &mut Dice, content: &mut Vec<u8>, change: Change) {
    match (dice.below(3), &change) {
        (0, _) => {}
        (1, Change::Write(offset, bytes)) => {
            let (mut at, mut rest) = (*offset, &bytes[..]);
            while !rest.is_empty() {
                let (part, tail) = rest.split_at(rest.len().min(left_in_sector(at)));
                if dice.one_in(2) {
                    apply(content, &Change::Write(at, part.to_vec()));
                }
                at += part.len() as u64;
                rest = tail;
            }
        }
        _ => apply(content, &change),
    }
}

fn stopped() -> io::Error {
    io::Error::other("the machine has stopped")
}

impl State {
    fn tick(&mut self) -> io::Result<()> {
        if self.fault == Some(Fault::ReadOnly) {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        match &mut self.countdown {
            Some(0) => Err(stopped()),
            Some(left) => {
                *left -= 1;
                if *left == 0 { Err(stopped()) } else { Ok(()) }
            }
            None => Ok(()),
        }
    }

    fn check_space(&self) -> io::Result<()> {
        if self.fault == Some(Fault::Full) {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn inode(&self, handle: &Handle) -> usize {
        self.numbers[&handle.file.metadata().unwrap().ino()]
    }

    fn change(&mut self, handle: &Handle, change: Change) {
        let inode = self.inode(handle);
        self.inodes[inode].pending.push(change);
    }
}

impl Storage for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Handle> {
        let mut state = self.lock();
        state.tick()?;
        state.check_space()?;
        let handle = Disk.create(path)?;
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.names.insert(path.into(), inode);
        state.numbers.insert(handle.file.metadata()?.ino(), inode);
        state.name_changes.push(NameChange::Link(path.into(), inode));
        Ok(handle)
    }

    fn open(&self, path: &Path) -> io::Result<Handle> {
        let handle = Disk.open(path)?;
        let mut state = self.lock();
        if let Some(inode) = state.names.get(path).copied() {
            state.numbers.insert(handle.file.metadata()?.ino(), inode);
        }
        Ok(handle)
    }

    fn write_at(&self, handle: &Handle, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.lock();
        if state.countdown == Some(0) {
            return Err(stopped());
        }
        // The write during which the machine stops may come in part.
        let alive = state.tick();
        state.check_space()?;
        let short = alive.is_err() || (state.short_writes && state.dice.one_in(3));
        let short = short && bytes.len() > left_in_sector(offset);
        if alive.is_err() && !short && state.dice.one_in(2) {
            return Err(stopped());
        }
        let len =
            if short { 1 + state.dice.below(bytes.len() as u64) as usize } else { bytes.len() };
        let written = Disk.write_at(handle, &bytes[..len], offset)?;
        state.change(handle, Change::Write(offset, bytes[..written].to_vec()));
        alive.map(|()| written)
    }

    fn sync(&self, handle: &Handle) -> io::Result<()> {
        let mut state = self.lock();
        state.syncs += 1;
        state.tick()?;
        let failing = state.fault == Some(Fault::Sync);
        let inode = state.inode(handle);
        let State { dice, inodes, .. } = &mut *state;
        let inode = &mut inodes[inode];
        for change in std::mem::take(&mut inode.pending) {
            if failing {
                lose_some(dice, &mut inode.durable, change);
            } else {
                apply(&mut inode.durable, &change);
            }
        }
        if failing { Err(io::Error::other("sync failed")) } else { Ok(()) }
    }

    fn set_len(&self, handle: &Handle, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.tick()?;
        Disk.set_len(handle, len)?;
        state.change(handle, Change::SetLen(len));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.tick()?;
        Disk.rename(from, to)?;
        if let Some(inode) = state.names.remove(from) {
            state.names.insert(to.into(), inode);
            state.name_changes.push(NameChange::Link(to.into(), inode));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.tick()?;
        Disk.remove(path)?;
        state.names.remove(path);
        state.name_changes.push(NameChange::Unlink(path.into()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.syncs += 1;
        state.tick()?;
        let changes = std::mem::take(&mut state.name_changes);
        for change in changes {
            apply_name(&mut state.durable_names, change);
        }
        Ok(())
    }
}
