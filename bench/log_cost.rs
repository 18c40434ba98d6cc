//! What an event costs the thread that appends to the log, by the size of batches.

use std::time::{Duration, Instant, SystemTime};

use engine::log::{self, Entry, LogConfig};
use ports::{
    AccountId, EventKind, HostId, HostSeq, LocalStatus, LogControl, RepoHead, UpstreamStatus,
};
use protocol::frame;
use rustix::time::{ClockId, clock_gettime};

const EVENTS: u64 = 400_000;
const FRAME_BYTES: usize = 3400;

/// Measures in a directory below the working directory, which is on a disk more often than `/tmp`.
pub(crate) fn run() -> Result<(), Box<dyn std::error::Error>> {
    let (did, time) = ("did:plc:abcdefghijklmnopqrstuvwx", "2026-01-01T00:00:00.000Z");
    let frame = frame::account_frame(did, time, false, Some(&"x".repeat(FRAME_BYTES)));
    let span = frame::parse(&frame)?.seq_span;
    let entry = Entry {
        kind: EventKind::Account,
        account: AccountId(7),
        host: HostId(3),
        host_seq: HostSeq(99),
        upstream: UpstreamStatus::ACTIVE,
        local: LocalStatus::Active,
        head: Some(RepoHead { rev: 1, data: [2; 32], commit: [3; 32] }),
        frame: &frame,
        seq_span: span.start as u32..span.end as u32,
        time_micros: 0,
    };
    for batch in [1, 16, 64, 256] {
        let dir = tempfile::tempdir_in(".")?;
        let (mut writer, reader) = log::open(LogConfig::new(dir.path()))?;
        let (mut waited, mut time_micros) = (0_u64, 0);
        let (wall, cpu) = (Instant::now(), thread_cpu());
        for number in 0..EVENTS {
            if number % batch == 0 {
                time_micros = SystemTime::UNIX_EPOCH.elapsed()?.as_micros() as u64;
            }
            while writer.append(&Entry { time_micros, ..entry.clone() }).is_err() {
                waited += 1;
                std::thread::yield_now();
            }
            if number % batch == batch - 1 {
                while writer.commit().is_err() {
                    std::thread::yield_now();
                }
            }
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / EVENTS as f64;
        let (cpu, wall) = (each(thread_cpu().saturating_sub(cpu)), each(wall.elapsed()));
        println!(
            "batches of {batch}: {cpu:.2} us CPU, {wall:.2} us wall an event; waited {waited} times; {:?}",
            reader.health().stats
        );
        writer.close()?;
    }
    Ok(())
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
