//! The relay's executable.

#![forbid(unsafe_code)]

/// Frames are allocated on one thread and freed on another all the time, which mimalloc does best.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    daemon::main()
}
