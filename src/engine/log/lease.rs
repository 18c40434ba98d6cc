//! The lease: which numbers may have been given out, written before they are.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use ports::RelaySeq;

use super::{
    LogConfig, LogError, LogPos,
    format::{get_u32, get_u64, put_u32, put_u64},
    storage::{Storage, replace_file},
};

const MAGIC: &[u8; 8] = b"rlyrleas";
/// As of the segments: an older program must not serve what a newer one has erased.
const VERSION: u32 = 2;
const BYTES: usize = 64;

/// The content of the file `lease`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// After an unclean stop every number up to this one counts as given out.
    pub(super) leased: RelaySeq,
    /// The segment that was made last, unless it was given up: it must be there.
    pub(super) active: Option<RelaySeq>,
    /// Segments that start at or above this number may be torn, or not there; zero: only the last.
    pub(super) torn_from: RelaySeq,
    /// Written last thing by a process that stopped in order.
    pub(super) clean: Option<CleanStop>,
}

/// What a process that stopped in order left behind; compared with what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CleanStop {
    /// The next number to give out.
    pub(super) next: RelaySeq,
    /// Where the log ended: the number and the place behind the last event.
    pub(super) end_seq: RelaySeq,
    pub(super) end_pos: LogPos,
}

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("lease")
}

impl Lease {
    /// Segments that start at or above this number must stay.
    pub(super) fn insists_from(&self) -> RelaySeq {
        self.active.unwrap_or(self.torn_from)
    }

    fn encode(&self) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        out[..8].copy_from_slice(MAGIC);
        put_u32(&mut out, 8, VERSION);
        put_u32(&mut out, 12, u32::from(self.clean.is_some()));
        put_u64(&mut out, 16, self.leased.0);
        put_u64(&mut out, 24, self.active.map_or(0, |seq| seq.0));
        if let Some(clean) = self.clean {
            put_u64(&mut out, 32, clean.next.0);
            put_u64(&mut out, 40, clean.end_seq.0);
            put_u64(&mut out, 48, clean.end_pos.0);
        } else {
            put_u64(&mut out, 32, self.torn_from.0);
        }
        let crc = crc32c::crc32c(&out[..BYTES - 4]);
        put_u32(&mut out, BYTES - 4, crc);
        out
    }

    fn decode(bytes: &[u8; BYTES]) -> Result<Self, Option<u32>> {
        let whole = crc32c::crc32c(&bytes[..BYTES - 4]) == get_u32(bytes, BYTES - 4);
        if &bytes[..8] != MAGIC || !whole {
            return Err(None);
        }
        match get_u32(bytes, 8) {
            1..=VERSION => {}
            version => return Err(Some(version)),
        }
        let (clean, active) = (get_u32(bytes, 12) != 0, get_u64(bytes, 24));
        Ok(Self {
            leased: RelaySeq(get_u64(bytes, 16)),
            active: (active != 0).then_some(RelaySeq(active)),
            torn_from: RelaySeq(if clean { 0 } else { get_u64(bytes, 32) }),
            clean: clean.then(|| CleanStop {
                next: RelaySeq(get_u64(bytes, 32)),
                end_seq: RelaySeq(get_u64(bytes, 40)),
                end_pos: LogPos(get_u64(bytes, 48)),
            }),
        })
    }

    /// `Ok(None)` if there is no such file.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, LogError> {
        let path = path(dir);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io("open", &path, error)),
        };
        let mut bytes = Vec::new();
        file.take(BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| LogError::io("read", &path, error))?;
        let damaged = |what| LogError::Lease { path: path.clone(), what };
        let bytes = <[u8; BYTES]>::try_from(bytes).map_err(|_| damaged("wrong length"))?;
        Self::decode(&bytes).map(Some).map_err(|version| match version {
            Some(found) => LogError::Newer { path: path.clone(), found },
            None => damaged("wrong checksum"),
        })
    }

    pub(super) fn write(&self, storage: &dyn Storage, dir: &Path) -> io::Result<()> {
        replace_file(storage, &path(dir), &self.encode())
    }
}

/// If the log is gone, numbering goes on this far behind the last number known elsewhere, which lags the
/// log by less than a second.
const LOST_LOG_MARGIN: u64 = 1_000_000;

/// The number to go on with. `end_seq` is the number behind the newest event, zero without events.
pub(super) fn next_seq(
    config: &LogConfig,
    lease: Option<Lease>,
    end_seq: RelaySeq,
) -> Result<RelaySeq, LogError> {
    let floor = config.initial_seq.max(1);
    let next = match lease {
        Some(Lease { clean: Some(clean), .. }) => clean.next,
        Some(lease) => lease.leased.next(),
        // A new log, or an operator who has put the floor above what is there.
        None if end_seq.0 == 0 || floor > end_seq.0 => RelaySeq(floor),
        None => {
            return Err(LogError::Lease { path: path(&config.dir), what: "missing" });
        }
    };
    let next = RelaySeq(next.0.max(floor).max(end_seq.0));
    if config.known_seq < next.0 {
        return Ok(next);
    }
    let behind = RelaySeq(config.known_seq + LOST_LOG_MARGIN);
    tracing::error!(
        log = next.0 - 1,
        known = config.known_seq,
        next = behind.0,
        "events are missing: the event log is gone, or was replaced by an older one. Numbering goes \
         on well behind the last number known"
    );
    Ok(behind)
}
