//! The one rule by which two words on an account become the one that counts.

use crate::{LocalStatus, StatusWord, UpstreamStatus};

/// What consumers are told of an account, and what the API answers.
///
/// The word is [`StatusWord::None`] for an active account about which there is nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Effective {
    pub active: bool,
    pub word: StatusWord,
}

impl Effective {
    pub const ACTIVE: Self = Self { active: true, word: StatusWord::None };

    /// One byte for SQL, as [`UpstreamStatus::code`].
    pub fn code(self) -> u8 {
        UpstreamStatus { active: self.active, word: self.word }.code()
    }

    pub fn from_code(code: u8) -> Self {
        let UpstreamStatus { active, word } = UpstreamStatus::from_code(code);
        Self { active, word }
    }
}

/// What counts: the relay's own word before the host's.
///
/// | local     | upstream            | effective            |
/// |-----------|---------------------|----------------------|
/// | takendown | any                 | takendown            |
/// | throttled | active              | throttled, inactive  |
/// | throttled | not active          | as upstream          |
/// | active    | any                 | as upstream          |
///
/// A throttled account that its host calls inactive is what its host says: the place that it waits
/// for would be of no use to it.
pub fn effective(upstream: UpstreamStatus, local: LocalStatus) -> Effective {
    match local {
        LocalStatus::Takendown => Effective { active: false, word: StatusWord::Takendown },
        LocalStatus::Throttled if upstream.active => {
            Effective { active: false, word: StatusWord::Throttled }
        }
        LocalStatus::Throttled | LocalStatus::Active => {
            Effective { active: upstream.active, word: upstream.word }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(upstream: (bool, StatusWord), local: LocalStatus, expected: (bool, StatusWord)) {
        let upstream = UpstreamStatus { active: upstream.0, word: upstream.1 };
        let Effective { active, word } = effective(upstream, local);
        assert_eq!((active, word), expected, "{upstream:?} {local:?}");
    }

    #[test]
    fn the_relay_s_word_goes_before_the_host_s() {
        let (active, deleted) = ((true, StatusWord::None), (false, StatusWord::Deleted));
        let lagging = (true, StatusWord::Desynchronized);
        check(active, LocalStatus::Active, active);
        check(deleted, LocalStatus::Active, deleted);
        check(lagging, LocalStatus::Active, lagging);
        check((false, StatusWord::Other), LocalStatus::Active, (false, StatusWord::Other));
        for upstream in [active, deleted, lagging] {
            check(upstream, LocalStatus::Takendown, (false, StatusWord::Takendown));
        }
        check(active, LocalStatus::Throttled, (false, StatusWord::Throttled));
        check(lagging, LocalStatus::Throttled, (false, StatusWord::Throttled));
        check(deleted, LocalStatus::Throttled, deleted);
    }
}
