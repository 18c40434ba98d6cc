//! TCP sockets that come connected: a reader, a writer, and a handle that ends both.

use std::{
    cell::UnsafeCell,
    fmt,
    io::{self, ErrorKind},
    net::TcpStream,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    rc::Rc,
};

use bytes::{Bytes, BytesMut};
use monoio::{
    buf::IoBufMut,
    io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, OwnedWriteHalf, Splitable},
};

/// The only one who reads.
pub struct SocketReader(OwnedReadHalf<monoio::net::TcpStream>);

/// The only one who writes with waiting. When it is dropped, the peer sees the end of the stream.
pub struct SocketWriter(OwnedWriteHalf<monoio::net::TcpStream>);

/// Acts on the socket at once, without waiting. Keeps the descriptor open.
#[derive(Clone)]
pub struct SocketHandle {
    fd: RawFd,
    /// So that the number in `fd` stays ours.
    _open: Rc<UnsafeCell<monoio::net::TcpStream>>,
}

/// The same socket for another thread, which may write to it at once, without waiting.
#[derive(Debug)]
pub struct SharedSocket(OwnedFd);

/// Takes a connected socket into this thread's runtime.
///
/// # Errors
/// If it can't be registered with the driver.
pub fn adopt(stream: TcpStream) -> io::Result<(SocketReader, SocketWriter, SocketHandle)> {
    // io_uring fails at once on non-blocking sockets where it should wait; epoll needs them.
    stream.set_nonblocking(monoio::utils::is_legacy())?;
    let fd = stream.as_raw_fd();
    let (read, write) = monoio::net::TcpStream::from_std(stream)?.into_split();
    let handle = SocketHandle { fd, _open: Rc::clone(&read.0) };
    Ok((SocketReader(read), SocketWriter(write), handle))
}

impl SocketReader {
    /// Reads into the spare room of `buffer`, behind what it holds. Zero bytes: the end.
    ///
    /// # Panics
    /// If there is no spare room: that could not be told from the end.
    ///
    /// # Cancel-safety
    /// Must not be dropped before it is done: bytes would be lost. End it by
    /// [`SocketHandle::shutdown`].
    pub async fn read(&mut self, buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        let (start, end) = (buffer.len(), buffer.capacity());
        assert!(start < end, "a read needs room");
        let (result, slice) = self.0.read(buffer.slice_mut(start..end)).await;
        (result, slice.into_inner())
    }
}

impl SocketWriter {
    /// Waits until the kernel takes some of the bytes, and returns how many it took.
    ///
    /// # Cancel-safety
    /// As [`SocketReader::read`].
    pub async fn write(&mut self, bytes: Bytes) -> io::Result<usize> {
        let (result, _) = self.0.write(bytes).await;
        match result {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            other => other,
        }
    }
}

impl SocketHandle {
    /// Ends the connection: whoever reads or writes gets the end or an error.
    pub fn shutdown(&self) {
        self.shutdown_how(libc::SHUT_RDWR);
    }

    /// Tells the peer that nothing more comes, behind what was written.
    pub fn shutdown_write(&self) {
        self.shutdown_how(libc::SHUT_WR);
    }

    fn shutdown_how(&self, how: libc::c_int) {
        // SAFETY: `fd` is an open socket for as long as `_open` lives. An error means that the
        // connection has ended already.
        unsafe { libc::shutdown(self.fd, how) };
    }

    /// Hands bytes to the kernel without waiting; returns how many it took, 0 if it has no room.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        send_now(self.borrow(), bytes)
    }

    /// The socket for a thread beside; it stays open until both are dropped.
    ///
    /// # Errors
    /// If there are too many descriptors.
    pub fn share(&self) -> io::Result<SharedSocket> {
        self.borrow().try_clone_to_owned().map(SharedSocket)
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: `fd` is an open socket for as long as `_open` lives.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Bounds what the kernel keeps of our bytes before it sends them.
    pub fn limit_unsent(&self, bytes: u32) {
        self.set_option(libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes);
    }

    /// Lets the kernel take some more at once, beyond what it had room for until now.
    pub fn make_room(&self) {
        self.limit_unsent(u32::MAX);
        // As much as it allows anyone.
        self.set_option(libc::SOL_SOCKET, libc::SO_SNDBUF, i32::MAX.unsigned_abs());
    }

    /// Without effect if the kernel does not have the option, or the connection has ended.
    fn set_option(&self, level: libc::c_int, name: libc::c_int, value: u32) {
        let len = size_of::<u32>() as libc::socklen_t;
        // SAFETY: `fd` is an open socket for as long as `_open` lives; the pointer and length are
        // those of one integer, which the call copies.
        unsafe { libc::setsockopt(self.fd, level, name, (&raw const value).cast(), len) };
    }

    /// Bytes written that the peer has not acknowledged.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn unacknowledged(&self) -> io::Result<usize> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: `fd` is an open socket for as long as `_open` lives; TIOCOUTQ stores one int.
        let result = unsafe { libc::ioctl(self.fd, libc::TIOCOUTQ, &raw mut bytes) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes.max(0) as usize) }
    }
}

impl SharedSocket {
    /// As [`SocketHandle::write_now`]. Nobody else may be writing.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        send_now(self.0.as_fd(), bytes)
    }
}

fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the socket is borrowed, the pointer and length are those of one slice, and the call
    // returns before the slice's borrow ends.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    if sent >= 0 {
        return Ok(sent as usize);
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(0),
        _ => Err(error),
    }
}

impl fmt::Debug for SocketReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketReader").finish()
    }
}

impl fmt::Debug for SocketWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketWriter").finish()
    }
}

impl fmt::Debug for SocketHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketHandle").field("fd", &self.fd).finish()
    }
}
