//! CPU times from `/proc`.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of a process and of all threads that it ever had, in nanoseconds.
///
/// The kernel counts exactly but tells in ticks; a tick is a hundredth of a second on Linux, as
/// far as user space is concerned.
pub fn process_cpu_nanos(pid: u32) -> Option<u64> {
    const NANOS_PER_TICK: u64 = 10_000_000;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (user, system): (u64, u64) = (fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?);
    Some((user + system) * NANOS_PER_TICK)
}

/// CPU time of the process's present threads, each with its name, in nanoseconds: finer than
/// [`process_cpu_nanos`], but a thread that ends takes its time along.
pub fn threads_cpu_nanos(pid: u32) -> Vec<(String, u64)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let threads = entries.flatten().filter_map(|entry| {
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let nanos = first_number(&fs::read_to_string(entry.path().join("schedstat")).ok()?)?;
        Some((name.trim().to_owned(), nanos))
    });
    threads.collect()
}

/// CPU time of the calling thread in nanoseconds, exact where `/proc` is only as of the last tick.
pub fn thread_cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_has_times() {
        assert!(process_cpu_nanos(std::process::id()).is_some());
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        assert!(!threads_cpu_nanos(std::process::id()).is_empty());
        assert_eq!(process_cpu_nanos(u32::MAX), None);
    }
}
