//! What this machine's memory and kernel allow a replay at most: the same bytes copied by one plain
//! thread, which does nothing else. Measured right before the relay's replays, as figures of different
//! minutes do not compare on a machine that others use, too.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::thread::{self, JoinHandle};

use crate::procfs::thread_cpu_nanos;

/// As much as the relay reads and sends at once.
const PIECE_BYTES: usize = 256 << 10;

/// More than the processor's caches hold.
const FILE_BYTES: usize = 512 << 20;

/// Bytes a second of one core, by the CPU time of the thread that copies.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(super) struct Bounds {
    /// From memory into a buffer in the cache.
    pub(super) memcpy: f64,
    /// From the page cache into a buffer in the cache.
    pub(super) read: f64,
    /// From a buffer in the cache into a socket.
    pub(super) send: f64,
    /// The two before, one after the other: what a replay does.
    pub(super) read_and_send: f64,
    /// From the page cache into a socket, without a buffer.
    pub(super) sendfile: f64,
}

/// # Errors
/// If there is no room for a file, or no socket.
pub(super) fn measure() -> io::Result<Bounds> {
    let mut piece = vec![0x5a; PIECE_BYTES];
    let mut file = tempfile::tempfile()?;
    for _ in 0..FILE_BYTES / PIECE_BYTES {
        file.write_all(&piece)?;
    }
    let memory = vec![0xa5; FILE_BYTES];
    let memcpy = bytes_per_second(|at| {
        piece.copy_from_slice(&memory[at..at + PIECE_BYTES]);
        black_box(&mut piece);
        Ok(())
    })?;
    drop(memory);
    let read = bytes_per_second(|at| file.read_exact_at(&mut piece, at as u64))?;
    let (mut socket, drain) = drained_socket()?;
    let send = bytes_per_second(|_| socket.write_all(&piece))?;
    let read_and_send = bytes_per_second(|at| {
        file.read_exact_at(&mut piece, at as u64)?;
        socket.write_all(&piece)
    })?;
    let sendfile = bytes_per_second(|at| sendfile_all(&socket, &file, at as u64))?;
    drop(socket);
    drain.join().map_err(|_| io::Error::other("the reading thread has panicked"))?;
    Ok(Bounds { memcpy, read, send, read_and_send, sendfile })
}

/// Goes over the file's places twice; the first time does not count.
fn bytes_per_second(mut copy: impl FnMut(usize) -> io::Result<()>) -> io::Result<f64> {
    let mut before = 0;
    for _ in 0..2 {
        before = thread_cpu_nanos();
        for at in (0..FILE_BYTES).step_by(PIECE_BYTES) {
            copy(at)?;
        }
    }
    Ok(FILE_BYTES as f64 * 1e9 / (thread_cpu_nanos() - before) as f64)
}

fn sendfile_all(socket: &TcpStream, file: &File, mut at: u64) -> io::Result<()> {
    let end = at + PIECE_BYTES as u64;
    while at < end {
        let left = usize::try_from(end - at).map_err(io::Error::other)?;
        if rustix::fs::sendfile(socket, file, Some(&mut at), left)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// A socket whose other end a thread reads until it is closed.
fn drained_socket() -> io::Result<(TcpStream, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    let (mut other, _) = listener.accept()?;
    let drain = thread::Builder::new().name("lg-drain".into()).spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        while other.read(&mut buffer).is_ok_and(|read| read > 0) {}
    })?;
    Ok((socket, drain))
}
