//! What shards report of accounts and no event of the log tells: it is stored from here, in order.

use std::time::Duration;

use ports::{AccountId, UpstreamStatus};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use crate::store::{Store, StoreError};

/// Between two tries while the database is away.
const RETRY: Duration = Duration::from_secs(1);

enum Notice {
    /// What hosts said while the relay's own word stood before it.
    Upstream(Vec<(AccountId, UpstreamStatus)>),
    Collections(Vec<(AccountId, Box<str>)>),
    Flush(oneshot::Sender<()>),
}

/// A handle to the task that stores them. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Notices {
    // Unbounded: each account is reported once for each of its collections, and seldom otherwise.
    queue: mpsc::UnboundedSender<Notice>,
}

impl Notices {
    /// Starts the task; within a Tokio runtime.
    pub(crate) fn start(store: Store) -> Self {
        let (queue, inbox) = mpsc::unbounded_channel();
        tokio::spawn(run(store, inbox));
        Self { queue }
    }

    pub(crate) fn upstream(&self, noted: Vec<(AccountId, UpstreamStatus)>) {
        self.send(Notice::Upstream(noted));
    }

    pub(crate) fn collections(&self, found: Vec<(AccountId, Box<str>)>) {
        self.send(Notice::Collections(found));
    }

    /// Returns once everything before this is stored, or the database is found to be away.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.send(Notice::Flush(done));
        // A task that has ended has nothing left to store.
        let _ = tokio::time::timeout(RETRY, flushed).await;
    }

    fn send(&self, notice: Notice) {
        // The task ends with the runtime only.
        let _ = self.queue.send(notice);
    }
}

async fn run(store: Store, mut inbox: mpsc::UnboundedReceiver<Notice>) {
    while let Some(notice) = inbox.recv().await {
        let stored = match notice {
            Notice::Upstream(noted) => persist(|| store.note_upstream(noted.clone())).await,
            Notice::Collections(found) => persist(|| store.collections_add(found.clone())).await,
            Notice::Flush(done) => {
                // Whoever asked may have lost patience.
                let _ = done.send(());
                Ok(())
            }
        };
        if let Err(error) = stored {
            tracing::error!(%error, "what shards reported of accounts could not be stored");
        }
    }
}

/// Tries until the database is there.
async fn persist<F: Future<Output = Result<(), StoreError>>>(
    mut write: impl FnMut() -> F,
) -> Result<(), StoreError> {
    loop {
        match write().await {
            Err(error) if error.is_passing() => sleep(RETRY).await,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use ports::{HostId, StatusWord};

    use super::*;
    use crate::store::DatabaseUrl;

    #[tokio::test]
    async fn what_was_reported_is_in_the_database_after_a_flush() {
        let store = Store::open(&DatabaseUrl::Memory).unwrap();
        let state = store.create_account("did:web:a.test", HostId(1)).await.unwrap();
        let gone = UpstreamStatus { active: false, word: StatusWord::Deleted };
        let notices = Notices::start(store.clone());
        notices.upstream(vec![(state.id, UpstreamStatus::ACTIVE), (state.id, gone)]);
        notices.collections(vec![(state.id, "test.one.two".into())]);
        notices.flush().await;
        let after = store.account_by_did("did:web:a.test").await.unwrap().unwrap();
        assert_eq!(after.upstream, gone);
        let found = store.accounts_by_collection("test.one.two", AccountId(0), 10).await.unwrap();
        assert_eq!(found.len(), 1);
        let counts = store.account_counts(HostId(1)).await.unwrap();
        assert_eq!((counts.all, counts.counted, counts.deleted), (1, 0, 1));
    }
}
