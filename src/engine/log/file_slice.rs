//! Pieces of data files, and the ways to read them: at once, or waiting for the disk.

use std::{
    fs::File,
    io::{self, ErrorKind, IoSliceMut},
    num::NonZeroU64,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use rustix::{
    fs::{Advice, fadvise},
    io::{Errno, ReadWriteFlags, preadv2},
};

use super::segment::Segment;

/// How much [`FileSlice::warm`] has in memory when it returns.
const WARM_BYTES: usize = 1 << 20;

/// How far ahead of a reader the disk is kept busy.
const AHEAD_BYTES: u64 = 8 << 20;

/// A piece of a data file, which stays readable even if the segment is removed meanwhile.
#[derive(Clone, Debug)]
pub struct FileSlice {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) len: usize,
    /// The segment, and how often frames in it had begun to be overwritten.
    pub(super) blankings: Option<(Arc<Segment>, u64)>,
}

impl FileSlice {
    /// Whether bytes that have been read are as they were when the slice was given. If not, an event
    /// in them may just have been erased, and they must not be used: ask for the place again.
    pub fn is_sound(&self) -> bool {
        // The bytes were read before this; overwriting begins after the number has changed.
        fence(Ordering::SeqCst);
        self.blankings.as_ref().is_none_or(|(segment, before)| segment.blankings() == *before)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The piece without so many bytes at its start.
    #[must_use]
    pub fn after(mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.len);
        self.offset += bytes as u64;
        self.len -= bytes;
        self
    }

    /// Reads the piece, on the calling thread.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        self.read_start(&mut bytes)?;
        Ok(bytes)
    }

    /// Fills the buffer (or as much of it as the piece has) from the start of the piece, and waits for
    /// the disk if it has to.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn read_start(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.len.min(buffer.len());
        self.file.read_exact_at(&mut buffer[..len], self.offset)?;
        Ok(len)
    }

    /// As [`Self::read_start`], but takes only what is in memory. `None`: the first byte is not, or
    /// this file system can't tell.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn read_cached(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let len = self.len.min(buffer.len());
        let mut target = [IoSliceMut::new(&mut buffer[..len])];
        match preadv2(&self.file, &mut target, self.offset, ReadWriteFlags::NOWAIT) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => Ok(Some(read)),
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the start of the piece read into memory, and what follows it on the way there.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn warm(&self) -> io::Result<()> {
        // Only a hint: where it is not taken, the reads are slower.
        let _ = fadvise(&self.file, self.offset, NonZeroU64::new(AHEAD_BYTES), Advice::WillNeed);
        let mut buffer = vec![0; self.len.min(WARM_BYTES)];
        self.read_start(&mut buffer).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn slice(bytes: &[u8], offset: u64, len: usize) -> FileSlice {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        FileSlice { file: Arc::new(file), offset, len, blankings: None }
    }

    #[test]
    fn reads_no_more_than_the_piece_and_no_more_than_the_buffer() {
        let piece = slice(b"0123456789", 2, 5);
        assert_eq!(piece.read().unwrap(), b"23456");
        let mut buffer = [0; 8];
        assert_eq!(piece.read_start(&mut buffer).unwrap(), 5);
        assert_eq!(&buffer, b"23456\0\0\0");
        assert_eq!(piece.read_start(&mut buffer[..2]).unwrap(), 2);
    }

    #[test]
    fn what_was_warmed_is_read_without_waiting() {
        let bytes: Vec<u8> = (0..3 << 20).map(|at| (at / 4096) as u8).collect();
        let piece = slice(&bytes, 4096, 2 << 20);
        piece.warm().unwrap();
        let mut buffer = vec![0; 1 << 20];
        if let Some(read) = piece.read_cached(&mut buffer).unwrap() {
            assert_eq!(buffer[..read], bytes[4096..4096 + read]);
        }
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error() {
        let piece = slice(b"0123", 2, 5);
        assert_eq!(piece.read().unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(piece.warm().unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let beyond = slice(b"0123", 4096, 5);
        assert!(!matches!(beyond.read_cached(&mut [0; 5]), Ok(Some(_))));
    }
}
