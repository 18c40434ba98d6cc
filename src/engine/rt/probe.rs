//! Asks the kernel whether io_uring may be used, before the runtime is trusted with it.
//!
//! The runtime ignores errors of `io_uring_enter` and would ask again for ever, so a filter that
//! lets a ring be made but not be entered has to be found here.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

/// `struct io_uring_params`, of which nothing is asked and nothing is read.
#[repr(C, align(8))]
struct Params([u32; 30]);

/// Makes a small ring and enters it once.
pub(super) fn uring() -> io::Result<()> {
    let mut params = Params([0; 30]);
    // SAFETY: the kernel reads and writes one `io_uring_params` (120 bytes), which `params` is.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8_u32, &raw mut params) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just returned this descriptor, and nobody else has it.
    let ring = unsafe { OwnedFd::from_raw_fd(ring as libc::c_int) };
    // SAFETY: nothing is submitted and nothing waited for, and no signal mask is given.
    let entered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring.as_raw_fd(),
            0_u32,
            0_u32,
            0_u32,
            ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    if entered < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
