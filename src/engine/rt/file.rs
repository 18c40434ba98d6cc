//! Reads of log files, for consumers that are far behind.

use std::{fs::File, io, sync::Arc};

use bytes::BytesMut;
use monoio::buf::IoBufMut;

/// A log file open for reading through the driver.
///
/// On io_uring a read from a cold disk does not hold up the shard. On epoll it does: files have no
/// readiness there.
#[derive(Debug)]
pub struct ReplayFile {
    file: monoio::fs::File,
    origin: Arc<File>,
}

impl ReplayFile {
    /// # Errors
    /// If there are no more descriptors.
    pub fn new(origin: &Arc<File>) -> io::Result<Self> {
        let file = monoio::fs::File::from_std(origin.try_clone()?)?;
        Ok(Self { file, origin: Arc::clone(origin) })
    }

    /// Whether this reads from that file.
    pub fn is_of(&self, origin: &Arc<File>) -> bool {
        Arc::ptr_eq(&self.origin, origin)
    }

    /// Reads up to `len` bytes at `offset`.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn read_at(&self, offset: u64, len: usize) -> io::Result<BytesMut> {
        let buffer = BytesMut::with_capacity(len);
        let (result, slice) = self.file.read_at(buffer.slice_mut(0..len), offset).await;
        result.map(|_| slice.into_inner())
    }
}
