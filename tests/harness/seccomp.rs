//! A process without io_uring, as under a container's seccomp profile.

use std::{io, os::unix::process::CommandExt, process::Command};

/// Lets the command start without `io_uring_setup`, `_enter` and `_register`: they fail with EPERM.
pub(crate) fn forbid_io_uring(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, on memory that lives in this frame.
    unsafe {
        command.pre_exec(install_filter);
    }
}

/// x86_64 and aarch64 number the three calls alike.
const IO_URING_CALLS: std::ops::RangeInclusive<u32> = 425..=427;

fn install_filter() -> io::Result<()> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_GE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const JUMP_GT: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD_WORD, 0, 0, 0), // the number of the system call
        step(JUMP_GE, 0, 2, *IO_URING_CALLS.start()),
        step(JUMP_GT, 1, 0, *IO_URING_CALLS.end()),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: plain calls with constants, and a program that outlives the call.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) != 0
    };
    if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
}
