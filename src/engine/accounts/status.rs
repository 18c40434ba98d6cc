//! The states of an account: what its host says, what the relay says, and what consumers were told.
//!
//! This is the one place in which they change:
//!
//! | what happens                             | host's word | relay's word | #account                  |
//! |------------------------------------------|-------------|--------------|---------------------------|
//! | the host's #account                      | as it says  |              | the host's, if it is news,|
//! |                                          |             |              | or newer and what counts  |
//! | the host's answer when asked             | as it says  |              | the relay's, if it is news|
//! | take-down by the operator                |             | as said      | the relay's, always       |
//! | reversal, throttling, a place            |             | as said      | the relay's, if it is news|
//! | the state is read from the store         | as stored   | as stored    | the relay's, if owed      |
//! | the account moves to another host        |             |              | the next one goes out     |
//!
//! News is what changes what counts ([`effective`]); of an account of which consumers have heard
//! nothing yet, everything is news that its host says, while the relay keeps quiet if it is active.

use ports::{AccountState, Effective, LocalStatus, StatusWord, UpstreamStatus, effective};

/// What became of the host's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Consumers are to be told.
    News,
    /// It is noted, but changes nothing that counts: the relay's own word stands before it.
    Noted,
    /// It is what we knew.
    Known,
}

/// See the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    upstream: UpstreamStatus,
    local: LocalStatus,
    /// As [`Effective::code`], or [`Status::NOTHING`].
    told: u8,
    /// Hash of the host's word if it is one that we don't know: two such words are not the same.
    word: u16,
}

impl Status {
    /// No code has this word.
    const NOTHING: u8 = 0x7f;

    pub(super) fn new(state: &AccountState) -> Self {
        Self {
            upstream: state.upstream,
            local: state.local,
            told: state.announced.map_or(Self::NOTHING, Effective::code),
            word: 0,
        }
    }

    pub(super) fn upstream(self) -> UpstreamStatus {
        self.upstream
    }

    pub(super) fn local(self) -> LocalStatus {
        self.local
    }

    pub(super) fn effective(self) -> Effective {
        effective(self.upstream, self.local)
    }

    /// The host's #account, or its answer. `word` is the hash of a status that we don't know, and 0
    /// for all others.
    pub(super) fn hear(&mut self, said: UpstreamStatus, word: u16) -> Heard {
        let changed = self.upstream != said || self.word != word;
        self.upstream = said;
        self.word = word;
        let effective = self.effective();
        let unknown = effective.word == StatusWord::Other && changed;
        if unknown || self.told() != Some(effective) {
            Heard::News
        } else if changed {
            Heard::Noted
        } else {
            Heard::Known
        }
    }

    /// Take-down, reversal, throttling, a place that became free.
    pub(super) fn set_local(&mut self, local: LocalStatus) {
        self.local = local;
    }

    /// What counts is not what consumers believe: the relay must tell them.
    pub(super) fn is_owed(self) -> bool {
        self.told().unwrap_or(Effective::ACTIVE) != self.effective()
    }

    /// An #account with what counts now is on its way.
    pub(super) fn note_told(&mut self) {
        self.told = self.effective().code();
    }

    /// Before the relay says anything of an account whose state was not announced, it was active.
    fn told(self) -> Option<Effective> {
        (self.told != Self::NOTHING).then(|| Effective::from_code(self.told))
    }
}

#[cfg(test)]
mod tests {
    use ports::{AccountId, HostId};
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Says(UpstreamStatus, u16),
        Answers(UpstreamStatus),
        SetLocal(LocalStatus),
        /// Forgotten and read from the store again.
        Reload,
        /// As with [`Act::SetLocal`], but the relay was killed before the shard heard of it.
        SetInStore(LocalStatus),
    }

    fn upstream() -> impl Strategy<Value = UpstreamStatus> {
        (any::<bool>(), 0..8u8)
            .prop_map(|(active, word)| UpstreamStatus { active, word: StatusWord::from_code(word) })
    }

    fn local() -> impl Strategy<Value = LocalStatus> {
        (0..3u8).prop_map(LocalStatus::from_code)
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (upstream(), 1..3u16).prop_map(|(said, word)| {
                Act::Says(said, if said.word == StatusWord::Other { word } else { 0 })
            }),
            1 => upstream().prop_map(Act::Answers),
            3 => local().prop_map(Act::SetLocal),
            1 => Just(Act::Reload),
            1 => local().prop_map(Act::SetInStore),
        ]
    }

    /// The plain truth: what was said, and every announcement.
    struct Model {
        upstream: UpstreamStatus,
        local: LocalStatus,
        announced: Vec<Effective>,
    }

    impl Model {
        fn wanted(&self) -> Effective {
            match (self.local, self.upstream) {
                (LocalStatus::Takendown, _) => {
                    Effective { active: false, word: StatusWord::Takendown }
                }
                (LocalStatus::Throttled, UpstreamStatus { active: true, .. }) => {
                    Effective { active: false, word: StatusWord::Throttled }
                }
                (_, UpstreamStatus { active, word }) => Effective { active, word },
            }
        }

        fn state(&self) -> AccountState {
            AccountState {
                id: AccountId(1),
                host: HostId(1),
                upstream: self.upstream,
                local: self.local,
                announced: self.announced.last().copied(),
                head: None,
            }
        }
    }

    /// What the shard does after a change of its own.
    fn settle(status: &mut Status, model: &mut Model) {
        if status.is_owed() {
            status.note_told();
            model.announced.push(status.effective());
        }
    }

    fn step(act: Act, status: &mut Status, model: &mut Model) {
        match act {
            Act::Says(said, word) => {
                model.upstream = said;
                if status.hear(said, word) == Heard::News {
                    status.note_told();
                    model.announced.push(status.effective());
                }
            }
            Act::Answers(said) => {
                model.upstream = said;
                status.hear(said, 0);
                settle(status, model);
            }
            Act::SetLocal(local) if model.local == local => {}
            Act::SetLocal(local) => {
                model.local = local;
                status.set_local(local);
                if local == LocalStatus::Takendown {
                    status.note_told();
                    model.announced.push(status.effective());
                } else {
                    settle(status, model);
                }
            }
            Act::Reload => {
                *status = Status::new(&model.state());
                settle(status, model);
            }
            Act::SetInStore(local) => {
                model.local = local;
                *status = Status::new(&model.state());
                settle(status, model);
            }
        }
    }

    proptest! {
        #[test]
        fn consumers_know_what_counts_and_hear_nothing_twice(
            acts in prop::collection::vec(act(), 0..60),
        ) {
            let start = UpstreamStatus::ACTIVE;
            let mut model = Model { upstream: start, local: LocalStatus::Active, announced: vec![] };
            let mut status = Status::new(&model.state());
            for act in acts {
                let before = model.announced.len();
                step(act, &mut status, &mut model);
                prop_assert_eq!(status.effective(), model.wanted());
                let last = model.announced.last().copied();
                prop_assert_eq!(last.unwrap_or(Effective::ACTIVE), model.wanted(), "{:?}", act);
                prop_assert!(model.announced.len() <= before + 1);
            }
            // Two that are equal: words that we don't know, and a take-down by host and operator.
            let odd = [StatusWord::Other, StatusWord::Takendown];
            for pair in model.announced.windows(2) {
                prop_assert!(pair[0] != pair[1] || odd.contains(&pair[1].word), "{:?}", pair);
            }
        }
    }

    #[test]
    fn a_take_down_is_undone_only_by_its_reversal() {
        let state = AccountState {
            id: AccountId(1),
            host: HostId(1),
            upstream: UpstreamStatus::ACTIVE,
            local: LocalStatus::Takendown,
            announced: Some(Effective { active: false, word: StatusWord::Takendown }),
            head: None,
        };
        let mut status = Status::new(&state);
        let gone = UpstreamStatus { active: false, word: StatusWord::Deleted };
        assert_eq!(status.hear(UpstreamStatus::ACTIVE, 0), Heard::Known);
        assert_eq!(status.hear(gone, 0), Heard::Noted);
        assert!(!status.is_owed());
        status.set_local(LocalStatus::Active);
        assert!(status.is_owed());
        assert_eq!(status.effective(), Effective { active: false, word: StatusWord::Deleted });
    }
}
