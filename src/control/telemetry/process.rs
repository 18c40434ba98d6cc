//! What the operating system says of this process.

use std::fs;

/// `/proc` counts CPU time in these, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;

/// Sets the process gauges. What `/proc` does not tell is left out.
pub(super) fn publish() {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse)
    {
        metrics::gauge!("relayered_process_cpu_seconds").set(stat.cpu_ticks / TICKS_PER_SECOND);
        metrics::gauge!("relayered_process_resident_bytes").set(stat.resident_pages * PAGE_BYTES);
        metrics::gauge!("relayered_process_threads_count").set(stat.threads);
        if let Some(boot) = boot_seconds() {
            let start = boot + stat.start_ticks / TICKS_PER_SECOND;
            metrics::gauge!("relayered_process_start_seconds").set(start);
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        metrics::gauge!("relayered_process_open_fds_count").set(entries.count() as f64);
    }
}

fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
    resident_pages: f64,
}

impl Stat {
    /// Fields are counted behind the command's name, which may hold spaces and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: number(11)? + number(12)?,
            threads: number(17)?,
            start_ticks: number(19)?,
            resident_pages: number(21)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_strange_name() {
        let text = "7 (re) lay) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1234 99999 321 \
                    18446744073709551615";
        let expected =
            Stat { cpu_ticks: 300.0, threads: 9.0, start_ticks: 1234.0, resident_pages: 321.0 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (x"), None);
        assert_eq!(Stat::parse("7 (x) S 1"), None);
    }
}
