//! A cheap look at a frame: what it is, whose it is, and its number.

use std::ops::Range;

use ports::{EventKind, HostSeq, RefusalReason};
use protocol::frame::{FrameKind, Skim, skim};

use super::FrameOutline;

/// An error's name is kept up to this length.
const ERROR_NAME_BYTES_MAX: usize = 64;

/// What a binary message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outlined {
    Event(FrameOutline),
    /// An #info: has no number, is for us only.
    Info,
    /// The host ends the stream and says why.
    Error(Box<str>),
    Refused(RefusalReason),
}

/// Looks at a message.
pub(super) fn outline(frame: &[u8]) -> Outlined {
    match skim(frame) {
        Ok(Skim::Event { kind, did, seq }) => match span_of(frame, did) {
            Some(span) => Outlined::Event(FrameOutline {
                kind: event_kind(kind),
                host_seq: HostSeq(seq),
                did: span,
            }),
            None => Outlined::Refused(RefusalReason::DidSyntax),
        },
        Ok(Skim::Info { .. }) => Outlined::Info,
        Ok(Skim::Error { error, .. }) => {
            Outlined::Error(error.chars().take(ERROR_NAME_BYTES_MAX).collect::<String>().into())
        }
        Ok(Skim::Unknown { .. }) => Outlined::Refused(RefusalReason::FrameUnknown),
        Err(_) => Outlined::Refused(RefusalReason::FrameMalformed),
    }
}

fn event_kind(kind: FrameKind) -> EventKind {
    match kind {
        FrameKind::Commit => EventKind::Commit,
        FrameKind::Sync => EventKind::Sync,
        FrameKind::Identity => EventKind::Identity,
        FrameKind::Account => EventKind::Account,
    }
}

/// Where in the frame a text borrowed from it stands; `None` if it is empty.
fn span_of(frame: &[u8], text: &str) -> Option<Range<u32>> {
    let start = (text.as_ptr() as usize).checked_sub(frame.as_ptr() as usize)?;
    let end = start + text.len();
    if text.is_empty() || end > frame.len() {
        return None;
    }
    Some(u32::try_from(start).ok()?..u32::try_from(end).ok()?)
}

#[cfg(test)]
mod tests {
    use protocol::frame::{account_frame, error_frame, info_frame};

    use super::*;

    #[test]
    fn tells_events_notices_and_garbage_apart() {
        let frame = account_frame("did:web:a.test", "2026-01-01T00:00:00Z", true, None);
        let Outlined::Event(event) = outline(&frame) else { panic!("an event") };
        assert_eq!((event.kind, event.host_seq), (EventKind::Account, HostSeq(0)));
        let did = &frame[event.did.start as usize..event.did.end as usize];
        assert_eq!(did, b"did:web:a.test");
        assert_eq!(outline(&info_frame("OutdatedCursor", "")), Outlined::Info);
        assert_eq!(
            outline(&error_frame("FutureCursor", "")),
            Outlined::Error("FutureCursor".into())
        );
        assert_eq!(outline(b"garbage"), Outlined::Refused(RefusalReason::FrameMalformed));
        let nobody = account_frame("", "2026-01-01T00:00:00Z", true, None);
        assert_eq!(outline(&nobody), Outlined::Refused(RefusalReason::DidSyntax));
    }
}
