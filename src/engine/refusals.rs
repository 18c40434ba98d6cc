//! The refusals that are kept for the next report: of each host the last few, so that one that sends
//! nothing but nonsense does not push out those of others.

use ports::Refusal;

/// In all, and of one host.
const KEPT_MAX: usize = 256;
const OF_HOST_MAX: usize = 16;

/// Adds one, for another that is older.
pub(crate) fn keep(kept: &mut Vec<Refusal>, refusal: Refusal) {
    let mut of_host = kept.iter().enumerate().filter(|(_, older)| older.host == refusal.host);
    let first = of_host.next().map(|(at, _)| at);
    if 1 + of_host.count() >= OF_HOST_MAX
        && let Some(first) = first
    {
        kept.remove(first);
    } else if kept.len() >= KEPT_MAX {
        kept.remove(0);
    }
    kept.push(refusal);
}

#[cfg(test)]
mod tests {
    use ports::{HostId, HostSeq, RefusalReason};

    use super::*;

    fn refusal(host: u32, seq: u64) -> Refusal {
        Refusal {
            host: HostId(host),
            host_seq: Some(HostSeq(seq)),
            kind: None,
            did: None,
            reason: RefusalReason::FrameMalformed,
        }
    }

    #[test]
    fn one_host_pushes_out_its_own_only() {
        let mut kept = Vec::new();
        keep(&mut kept, refusal(1, 7));
        for seq in 0..1000 {
            keep(&mut kept, refusal(2, seq));
        }
        assert_eq!(kept.len(), 1 + OF_HOST_MAX);
        assert_eq!(kept[0], refusal(1, 7));
        assert_eq!(kept[OF_HOST_MAX], refusal(2, 999));
        for host in 0..1000 {
            keep(&mut kept, refusal(100 + host, 1));
        }
        assert_eq!(kept.len(), KEPT_MAX);
        assert_eq!(kept[KEPT_MAX - 1], refusal(1099, 1));
    }
}
