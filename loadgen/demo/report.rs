//! What the demonstration says: live lines, a line for each phase, the summary.

use std::fmt::Write as _;

use serde_json::json;

use super::bounds::Bounds;
use super::phase::{PhaseResult, Tick};
use super::replay::Replayed;
use crate::corpus::CorpusSummary;
use crate::corpus::verify::SignatureCost;
use crate::driver::DriverKind;
use crate::histogram::Percentiles;

/// What arrived of what was sent.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Delivered {
    pub(super) expected: u64,
    pub(super) received: u64,
    pub(super) lost: u64,
    pub(super) repeated: u64,
    pub(super) altered: u64,
    pub(super) seq_faults: u64,
    pub(super) disconnected: bool,
    /// Consumers besides the one that compares.
    pub(super) others: usize,
    /// The others got all events of their phase, and the same bytes.
    pub(super) others_alike: bool,
}

#[derive(Debug)]
pub(super) struct Summary {
    pub(super) corpus: CorpusSummary,
    pub(super) generate_seconds: f64,
    pub(super) driver: DriverKind,
    pub(super) phases: Vec<PhaseResult>,
    pub(super) bounds: Option<Bounds>,
    pub(super) replayed: Vec<Replayed>,
    pub(super) relay_idle_percent: Option<f64>,
    pub(super) signature: SignatureCost,
    pub(super) delivered: Delivered,
    pub(super) refusals: Vec<(String, u64)>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) relay_stop_seconds: Option<f64>,
    pub(super) relay_stopped_cleanly: Option<bool>,
}

impl Delivered {
    fn good(&self) -> bool {
        let faults = self.lost + self.repeated + self.altered + self.seq_faults;
        self.received == self.expected && faults == 0 && !self.disconnected && self.others_alike
    }
}

impl Summary {
    pub(super) fn good(&self) -> bool {
        self.delivered.good()
            && self.phases.iter().all(|phase| phase.complete)
            && self.replays().all(|replayed| replayed.failed == 0)
            && self.relay_stopped_cleanly != Some(false)
    }

    fn replays(&self) -> impl Iterator<Item = &Replayed> {
        self.replayed.iter().chain(self.phases.iter().filter_map(|phase| phase.replayed.as_ref()))
    }

    fn phase(&self, name: &str) -> Option<&PhaseResult> {
        self.phases.iter().find(|phase| phase.name == name)
    }

    /// The relay's CPU for each event at full speed over that of the bare signature checks, on one
    /// core and with all cores busy.
    fn ratios(&self) -> Option<(f64, f64)> {
        let relay = self.phase("full speed")?.relay_micros_per_event?;
        let signature = &self.signature;
        Some((relay / signature.micros_per_event, relay / signature.all_cores_micros_per_event))
    }

    /// CPU of each delivery to a further consumer, in microseconds.
    fn micros_per_delivery(&self) -> Option<f64> {
        let (one, many) = (self.phase("full speed")?, self.phase("fan-out")?);
        let more = (many.consumers - one.consumers) as f64;
        Some((many.relay_micros_per_event? - one.relay_micros_per_event?) / more)
    }

    pub(super) fn to_json(&self) -> String {
        json!({
            "good": self.good(),
            "driver": self.driver,
            "corpus": self.corpus,
            "generateSeconds": self.generate_seconds,
            "phases": self.phases,
            "signature": self.signature,
            "relayOverSignature": self.ratios().map(|(alone, _)| alone),
            "relayOverSignatureAllCores": self.ratios().map(|(_, busy)| busy),
            "microsPerFurtherDelivery": self.micros_per_delivery(),
            "bounds": self.bounds,
            "replayed": self.replayed,
            "relayIdlePercent": self.relay_idle_percent,
            "relayResidentBytes": self.resident_bytes,
            "relayStopSeconds": self.relay_stop_seconds,
            "relayStoppedCleanly": self.relay_stopped_cleanly,
            "delivered": self.delivered,
            "refusals": self.refusals.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        })
        .to_string()
    }
}

pub(super) fn corpus_text(corpus: &CorpusSummary, seconds: f64) -> String {
    format!(
        "corpus: {} events of {} accounts ({} with P-256 keys), {:.1} MB, mean frame {:.0} B, \
         ready in {seconds:.1} s\n        {} commits, {} syncs, {} identity and {} account events",
        corpus.events,
        corpus.accounts,
        corpus.p256_accounts,
        corpus.bytes as f64 / 1e6,
        corpus.mean_frame_bytes,
        corpus.commits,
        corpus.syncs,
        corpus.identities,
        corpus.account_events,
    )
}

pub(super) fn live_text(
    phase: &str,
    before: &Tick,
    now: &Tick,
    latency: &Percentiles,
    refused: u64,
) -> String {
    let seconds = (now.at - before.at).as_secs_f64();
    let rate = |before: u64, now: u64| (now - before) as f64 / seconds;
    let cpu = |before: Option<u64>, now: Option<u64>| Some(now?.saturating_sub(before?) as f64);
    let received = now.received - before.received;
    let mut line = format!(
        "  {phase:<10} in {:>7.0}/s  out {:>7.0}/s",
        rate(before.written, now.written),
        rate(before.received, now.received),
    );
    if let Some(used) = cpu(before.relay, now.relay)
        && received > 0
    {
        let _ = write!(line, "  relay {:>6.1} µs/event", used / 1000.0 / received as f64);
    }
    if let Some(used) = cpu(before.own, now.own) {
        let _ = write!(line, "  loadgen {:>3.0} %", used / 1e7 / seconds);
    }
    let _ = write!(
        line,
        "  p50 {} p99 {}  refused {refused}",
        duration(latency.p50_ns),
        duration(latency.p99_ns)
    );
    line
}

pub(super) fn phase_text(phase: &PhaseResult) -> String {
    let mut text = format!(
        "{}: {} events to {} consumer{} in {:.2} s = {:.0}/s",
        phase.name,
        phase.events,
        phase.consumers,
        if phase.consumers == 1 { "" } else { "s" },
        phase.seconds,
        phase.events_per_second,
    );
    if let Some(micros) = phase.relay_micros_per_event {
        let _ = write!(text, ", relay {micros:.1} µs CPU an event");
    }
    if let Some(micros) = phase.loadgen_micros_per_event {
        let _ = write!(text, ", loadgen {micros:.1}");
    }
    if !phase.complete {
        text.push_str("  INCOMPLETE");
    }
    if let Some(replayed) = &phase.replayed {
        let _ = write!(text, "\n        beside it, {}", replayed_text(replayed));
    }
    if !phase.relay_threads.is_empty() {
        let threads = phase.relay_threads.iter();
        let threads: Vec<String> =
            threads.map(|(name, micros)| format!("{name} {micros:.1}")).collect();
        let _ = write!(text, "\n        by thread: {}", threads.join(", "));
    }
    text
}

pub(super) fn replayed_text(replayed: &Replayed) -> String {
    let mut text = format!(
        "replay: {} events to {} reader{} in {:.2} s = {:.0}/s, {:.2} GB/s",
        replayed.events,
        replayed.readers,
        if replayed.readers == 1 { "" } else { "s" },
        replayed.seconds,
        replayed.events as f64 / replayed.seconds,
        replayed.bytes as f64 / 1e9 / replayed.seconds,
    );
    if let Some(micros) = replayed.relay_micros_per_event {
        let _ = write!(text, ", relay {micros:.2} µs CPU each = {:.0}/s a core", 1e6 / micros);
    }
    let _ = write!(text, "; {} came to the newest event", replayed.caught_up);
    if replayed.failed > 0 {
        let _ = write!(text, "; {} FAILED", replayed.failed);
    }
    text
}

/// What one core can copy in a second, also as events.
pub(super) fn bounds_text(bounds: &Bounds, mean_frame_bytes: f64) -> String {
    let each = |bytes_per_second: f64| {
        let events = bytes_per_second / mean_frame_bytes;
        format!("{:.1} GB/s = {:.2} µs an event", bytes_per_second / 1e9, 1e6 / events)
    };
    format!(
        "bounds of one core: memcpy {}, read {}, send {},\n        read and send {}, sendfile {}",
        each(bounds.memcpy),
        each(bounds.read),
        each(bounds.send),
        each(bounds.read_and_send),
        each(bounds.sendfile),
    )
}

pub(super) fn summary_text(summary: &Summary) -> String {
    let mut text = String::from("\nsummary\n");
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<22} {value}");
    };
    let delivered = &summary.delivered;
    line(
        "events",
        format!(
            "{} of {} arrived; lost {}, repeated {}, altered {}, seq faults {}",
            delivered.received,
            delivered.expected,
            delivered.lost,
            delivered.repeated,
            delivered.altered,
            delivered.seq_faults,
        ),
    );
    if delivered.others > 0 {
        let verdict = if delivered.others_alike { "the same bytes" } else { "NOT the same" };
        line("further consumers", format!("{} got {verdict}", delivered.others));
    }
    if let Some(full) = summary.phase("full speed") {
        line("full speed", format!("{:.0} events/s", full.events_per_second));
        if let Some(micros) = full.relay_micros_per_event {
            line("relay CPU an event", format!("{micros:.1} µs"));
        }
    }
    line(
        "bare signature checks",
        format!(
            "{:.1} µs an event on one core, {:.1} in batches, {:.1} with all cores busy",
            summary.signature.micros_per_event,
            summary.signature.batch_micros_per_event,
            summary.signature.all_cores_micros_per_event,
        ),
    );
    if let Some((alone, busy)) = summary.ratios() {
        line("relay : signatures", format!("{alone:.2}, with all cores busy {busy:.2}"));
    }
    if let Some(micros) = summary.micros_per_delivery() {
        line("further delivery", format!("{micros:.2} µs"));
    }
    if let Some(paced) = summary.phase("paced") {
        line("latency from write", percentiles(&paced.latency));
        line("latency from due time", percentiles(&paced.latency_from_due));
    }
    if let Some(beside) = summary.phase("replay beside") {
        line("  beside replays", percentiles(&beside.latency));
        readers_behind(beside).for_each(|behind| line("", behind));
    }
    if let Some(percent) = summary.relay_idle_percent {
        line("idle", format!("{percent:.2} % of a core"));
    }
    if let Some(bytes) = summary.resident_bytes {
        line("relay memory", format!("{:.0} MB", bytes as f64 / 1e6));
    }
    if let (Some(seconds), Some(clean)) =
        (summary.relay_stop_seconds, summary.relay_stopped_cleanly)
    {
        let how = if clean { "cleanly" } else { "NOT cleanly" };
        line("relay stopped", format!("{how} in {seconds:.2} s"));
    }
    for (reason, count) in &summary.refusals {
        line("refused", format!("{count} {reason}"));
    }
    line("verdict", if summary.good() { "good".into() } else { "NOT good".into() });
    text
}

/// Where those ended that read no faster than they should.
fn readers_behind(phase: &PhaseResult) -> impl Iterator<Item = String> {
    let readers = phase.replayed.iter().flat_map(|replayed| &replayed.behind);
    readers.filter_map(|(speed, behind)| {
        let speed = (*speed)? / 1_000_000;
        Some(format!("a reader of {speed} MB/s ended {behind} events behind"))
    })
}

fn percentiles(latency: &Percentiles) -> String {
    format!(
        "p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
        duration(latency.p50_ns),
        duration(latency.p90_ns),
        duration(latency.p99_ns),
        duration(latency.p999_ns),
        duration(latency.max_ns),
    )
}

fn duration(nanos: u64) -> String {
    match nanos {
        0..1_000_000 => format!("{} µs", nanos / 1000),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        _ => format!("{:.1} s", nanos as f64 / 1e9),
    }
}
