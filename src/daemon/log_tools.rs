//! `relayered log …`: what the event log's files hold, for people and (with `--json`) for programs.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
    time::Duration,
};

use engine::log::{
    LogError,
    tools::{Fault, LogFiles, SegmentInfo, repair},
};
use ports::{LogRecord, RelaySeq};
use protocol::{
    cid::{Cid, Codec},
    frame::{self, Action, Body, Event, Op},
};
use serde_json::{Value, json};

use crate::{
    args::LogCommand,
    fatal::{Code, Fatal},
};

pub(crate) fn run(command: LogCommand, dir: &Path) -> Result<(), Fatal> {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = match command {
        LogCommand::Info { json } => info(dir, json, &mut out),
        LogCommand::Verify { json } => verify(dir, json, &mut out),
        LogCommand::Dump { from, count, json } => dump(dir, from, count, json, &mut out),
        LogCommand::Repair { json } => repair_log(dir, json, &mut out),
    };
    // Who closes the pipe has read enough.
    let _ = out.flush();
    result
}

fn fatal(error: &LogError) -> Fatal {
    let code = match error {
        LogError::Damaged { .. } | LogError::Missing { .. } | LogError::Lease { .. } => {
            Code::Damaged
        }
        _ => Code::Config,
    };
    Fatal::of(code, error)
}

fn open(dir: &Path) -> Result<LogFiles, Fatal> {
    LogFiles::open(dir).map_err(|error| match error {
        LogError::Io { .. } => {
            fatal(&error).remedy("Give the relay's --data-dir, or the log's own --persist-dir")
        }
        error => fatal(&error),
    })
}

fn info(dir: &Path, as_json: bool, out: &mut impl Write) -> Result<(), Fatal> {
    let files = open(dir)?;
    let segments = files.segments().map_err(|error| fatal(&error))?;
    let total: u64 = segments.iter().map(|one| one.data_bytes + one.index_bytes).sum();
    let events: u64 = segments.iter().map(|one| one.events).sum();
    let lease = files.lease();
    let clean_next = lease.and_then(|lease| lease.clean_next);
    if as_json {
        let value = json!({
            "dir": dir.display().to_string(),
            "running": files.is_running(),
            "leased": lease.map(|lease| lease.leased.0),
            "cleanNext": clean_next.map(|seq| seq.0),
            "events": events,
            "bytes": total,
            "segments": segments.iter().map(segment_json).collect::<Vec<_>>(),
        });
        let _ = writeln!(out, "{value}");
        return Ok(());
    }
    let _ = writeln!(out, "{}: {events} events, {total} bytes", dir.display());
    let state = match (files.is_running(), clean_next, lease) {
        (true, ..) => "a relay is running on it".to_owned(),
        (_, Some(next), _) => format!("stopped in order; the next seq is {next}"),
        (_, _, Some(lease)) => {
            format!("not stopped in order; numbering goes on behind {}", lease.leased)
        }
        _ => "no lease: a new log, or the file `lease` is missing".to_owned(),
    };
    let _ = writeln!(out, "{state}");
    for segment in &segments {
        let _ = writeln!(out, "{}", segment_text(segment));
    }
    Ok(())
}

fn verify(dir: &Path, as_json: bool, out: &mut impl Write) -> Result<(), Fatal> {
    let files = open(dir)?;
    let (mut events, mut faults) = (0, 0);
    let whole = files.verify(|segment| {
        events += segment.events;
        faults += usize::from(segment.fault.as_ref().is_some_and(|fault| !fault.torn));
        let line = if as_json { segment_json(segment).to_string() } else { segment_text(segment) };
        let _ = writeln!(out, "{line}");
    });
    let (whole, lease_fault) = whole.map_err(|error| fatal(&error))?;
    if let Some(what) = &lease_fault {
        let path = dir.join("lease").display().to_string();
        if as_json {
            let fault = json!({ "what": what, "torn": false });
            let _ = writeln!(out, "{}", json!({ "file": path, "fault": fault }));
        } else {
            let _ = writeln!(out, "{path}: DAMAGED: {what}");
        }
        let _ = out.flush();
        return Err(Fatal::new(Code::Damaged, format!("{path}: {what}")).remedy(
            "It is not known which numbers were given out. Restore a backup, or see what a start says",
        ));
    }
    if !whole {
        let _ = out.flush();
        let message = format!("{}: {faults} damaged segments, see above", dir.display());
        return Err(Fatal::new(Code::Damaged, message).remedy(
            "Nothing damaged is served: consumers get what is behind it. Restore the segment from a \
             backup to have it whole again",
        ));
    }
    if !as_json {
        let _ = writeln!(out, "{events} events, all whole");
    }
    Ok(())
}

fn dump(
    dir: &Path,
    from: u64,
    count: u64,
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), Fatal> {
    let files = open(dir)?;
    let mut left = count;
    if left == 0 {
        return Ok(());
    }
    let dumped = files.dump(RelaySeq(from), |record, message| {
        let bytes = message.map_or(0, <[u8]>::len);
        let written = match frame::parse(message.unwrap_or_default()) {
            _ if message.is_none() => write_erased(out, record, as_json),
            Ok(event) if as_json => writeln!(out, "{}", event_json(record, &event, bytes)),
            Ok(event) => write_event(out, record, &event, bytes),
            Err(error) if as_json => {
                writeln!(out, "{}", json!({"seq": record.seq.0, "error": error.to_string()}))
            }
            Err(error) => writeln!(out, "{} not a frame: {error}", record.seq),
        };
        left -= 1;
        left > 0 && written.is_ok()
    });
    let _ = out.flush();
    dumped.map_err(|error| fatal(&error))
}

fn repair_log(dir: &Path, as_json: bool, out: &mut impl Write) -> Result<(), Fatal> {
    // A mistyped directory must not become a new log.
    open(dir)?;
    let next = repair(dir).map_err(|error| fatal(&error))?;
    if as_json {
        let _ = writeln!(out, "{}", json!({ "cleanNext": next.0 }));
    } else {
        let _ = writeln!(out, "in order; the next seq is {next}");
    }
    verify(dir, as_json, out)
}

/// `2026-01-01T00:00:00Z`, in UTC, to the microsecond.
fn time(micros: u64) -> String {
    let since = Duration::from_micros(micros);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_micros()
    )
}

/// The date so many days after 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years are counted from March, so that the leap day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

fn segment_text(segment: &SegmentInfo) -> String {
    let name = segment.path.display();
    let range = match segment.events {
        0 => "no events".to_owned(),
        events => format!(
            "seq {}..={}, {events} events, {} to {}",
            segment.first_seq,
            segment.first_seq.0 + events - 1,
            time(segment.oldest_micros),
            time(segment.newest_micros)
        ),
    };
    let bytes = segment.data_bytes + segment.index_bytes;
    let erased = match segment.erased {
        0 => String::new(),
        many => format!(", {many} erased"),
    };
    let fault = segment.fault.as_ref().map_or(String::new(), fault_text);
    format!("{name}: {range}{erased}, {bytes} bytes{fault}")
}

fn fault_text(fault: &Fault) -> String {
    if fault.torn {
        let what = &fault.what;
        return format!("\n    torn tail at seq {} ({what}): the next start repairs it", fault.seq);
    }
    format!("\n    DAMAGED at seq {}: {}", fault.seq, fault.what)
}

fn segment_json(segment: &SegmentInfo) -> Value {
    let some = |micros| (segment.events > 0).then(|| time(micros));
    json!({
        "file": segment.path.display().to_string(),
        "firstSeq": segment.first_seq.0,
        "lastSeq": segment.events.checked_sub(1).map(|last| segment.first_seq.0 + last),
        "events": segment.events,
        "erased": segment.erased,
        "dataBytes": segment.data_bytes,
        "indexBytes": segment.index_bytes,
        "oldest": some(segment.oldest_micros),
        "newest": some(segment.newest_micros),
        "fault": segment.fault.as_ref().map(|fault| json!({
            "seq": fault.seq.0, "what": fault.what, "torn": fault.torn,
        })),
    })
}

fn action(op: &Op<'_>) -> &'static str {
    match op.action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Delete => "delete",
    }
}

fn event_json(record: &LogRecord, event: &Event<'_>, bytes: usize) -> Value {
    let text = |cid: Option<Cid>| cid.map(|cid| cid.to_string());
    let block = |digest| Cid::from_digest(Codec::DagCbor, digest).to_string();
    let head = record.head;
    let (kind, body) = match &event.body {
        Body::Commit(body) => (
            "#commit",
            json!({
                "rev": body.rev,
                "since": body.since,
                "commit": body.commit.to_string(),
                "data": head.map(|head| block(head.data)),
                "prevData": text(body.prev_data),
                "tooBig": body.too_big,
                "blocksBytes": body.blocks.len(),
                "ops": body.ops.iter().map(|op| json!({
                    "action": action(&op), "path": op.path, "cid": text(op.cid), "prev": text(op.prev),
                })).collect::<Vec<_>>(),
            }),
        ),
        Body::Sync(body) => (
            "#sync",
            json!({
                "rev": body.rev,
                "commit": head.map(|head| block(head.commit)),
                "data": head.map(|head| block(head.data)),
                "blocksBytes": body.blocks.len(),
            }),
        ),
        Body::Identity(body) => ("#identity", json!({ "handle": body.handle })),
        Body::Account(body) => {
            ("#account", json!({ "active": body.active, "status": body.status }))
        }
    };
    json!({
        "seq": event.seq,
        "kind": kind,
        "did": event.did,
        "time": event.time,
        "numbered": time(record.time_micros),
        "host": record.host.0,
        "hostSeq": record.host_seq.0,
        "account": record.account.0,
        "bytes": bytes,
        "body": body,
    })
}

/// An event of an account that was taken down later.
fn write_erased(out: &mut impl Write, record: &LogRecord, as_json: bool) -> io::Result<()> {
    let (kind, numbered) = (record.kind.label(), time(record.time_micros));
    let LogRecord { seq, host, host_seq, .. } = record;
    if as_json {
        let value = json!({
            "seq": seq.0,
            "kind": format!("#{kind}"),
            "numbered": numbered,
            "host": host.0,
            "hostSeq": host_seq.0,
            "account": record.account.0,
            "erased": true,
        });
        return writeln!(out, "{value}");
    }
    writeln!(out, "{seq} {numbered} erased #{kind} host={host} host_seq={host_seq}")
}

fn write_event(
    out: &mut impl Write,
    record: &LogRecord,
    event: &Event<'_>,
    bytes: usize,
) -> io::Result<()> {
    let numbered = time(record.time_micros);
    write!(out, "{} {numbered} {} ", event.seq, event.did)?;
    match &event.body {
        Body::Commit(body) => {
            write!(out, "#commit rev={} commit={}", body.rev, body.commit)?;
            for op in &body.ops {
                write!(out, " {} {}", action(&op), op.path)?;
            }
        }
        Body::Sync(body) => write!(out, "#sync rev={}", body.rev)?,
        Body::Identity(body) => write!(out, "#identity handle={}", body.handle.unwrap_or("-"))?,
        Body::Account(body) => {
            let status = body.status.unwrap_or("-");
            write!(out, "#account active={} status={status}", body.active)?;
        }
    }
    writeln!(out, " host={} host_seq={} bytes={bytes}", record.host, record.host_seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(time(seconds * 1_000_000), text);
        }
    }
}
