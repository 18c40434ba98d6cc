//! Sends each sibling its changes, one at a time; a task for each.

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::time::{sleep, sleep_until};

use super::{
    Change, Kind, Lane, REPLY_TIMEOUT, Siblings, SiblingsConfig,
    outcome::{Outcome, judge},
    pace::Pace,
};
use crate::{
    dial::{FetchError, HttpClient, Outgoing, Reach},
    store::{SiblingChange, Store},
    unix_now,
};

/// Replies are an error's name and message.
const REPLY_BYTES_MAX: usize = 64 * 1024;
/// How long the tasks leave a database alone that has failed.
const STORE_PAUSE: Duration = Duration::from_secs(2);

pub(super) fn start(siblings: &Siblings, config: &SiblingsConfig) -> Result<(), FetchError> {
    if config.addresses.is_empty() {
        return Ok(());
    }
    // Named by the operator, as the directory is: also in the operator's own network.
    let client = HttpClient::new(Reach::Trusted, REPLY_TIMEOUT, REPLY_BYTES_MAX)?;
    for (index, address) in config.addresses.iter().enumerate() {
        let key = address.key().or(config.key.as_deref());
        let sender = Sender {
            siblings: siblings.clone(),
            index,
            origin: address.origin().to_owned(),
            authorization: key
                .map(|key| format!("Basic {}", BASE64_STANDARD.encode(format!("admin:{key}")))),
            client: client.clone(),
            pace: Pace::new(config.pace, siblings.0.lanes[index].lock().failures),
        };
        tokio::spawn(sender.run());
    }
    Ok(())
}

struct Sender {
    siblings: Siblings,
    index: usize,
    origin: String,
    authorization: Option<String>,
    client: HttpClient,
    pace: Pace,
}

impl Sender {
    /// Runs as long as the process.
    async fn run(mut self) {
        loop {
            self.wait_for_turn().await;
            match self.store().sibling_head(&self.origin).await {
                Ok(None) => self.lane().queued.notified().await,
                Ok(Some(change)) => {
                    let outcome = self.send(&change).await;
                    self.settle(&change, outcome).await;
                }
                Err(error) => {
                    tracing::warn!(sibling = self.origin, %error, "the queue can't be read");
                    sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    fn store(&self) -> &Store {
        &self.siblings.0.store
    }

    fn lane(&self) -> &Lane {
        &self.siblings.0.lanes[self.index]
    }

    async fn wait_for_turn(&mut self) {
        let Some(at) = self.pace.not_before() else { return };
        let siblings = self.siblings.clone();
        tokio::select! {
            () = sleep_until(at.into()) => {}
            () = siblings.0.lanes[self.index].hurried.notified() => self.pace.hurry(),
        }
    }

    async fn send(&self, change: &SiblingChange) -> Outcome {
        let mut headers = vec![("via", change.via.as_str()), ("accept", "application/json")];
        if let Some(authorization) = &self.authorization {
            headers.push(("authorization", authorization));
        }
        if let Some(kind) = Change::content_type(&change.body) {
            headers.push(("content-type", kind));
        }
        let url = format!("{}{}", self.origin, change.path);
        let request =
            Outgoing { method: &change.method, url: &url, headers: &headers, body: &change.body };
        let path = change.path.split('?').next().unwrap_or_default();
        let kind = Change::kind_of_path(path).unwrap_or(Kind::Admin);
        judge(kind, self.client.send(request).await)
    }

    /// Writes down what became of a change, and sets the pace.
    async fn settle(&mut self, change: &SiblingChange, outcome: Outcome) {
        let now = unix_now();
        match outcome {
            Outcome::Delivered => {
                self.pace.handle_success();
                self.count("delivered");
                tracing::debug!(sibling = self.origin, path = change.path, "change passed on");
                self.take_from_queue(change, None).await;
            }
            Outcome::Refused(reason) => {
                self.pace.handle_success();
                self.count("refused");
                tracing::warn!(
                    sibling = self.origin,
                    path = change.path,
                    reason,
                    "a sibling does not make a change"
                );
                self.note_error(&reason, now);
                self.take_from_queue(change, Some(reason)).await;
            }
            Outcome::Failed { error, retry_after } => {
                let wait = self.pace.handle_failure(retry_after, Instant::now());
                self.count("failed");
                let next_at = now + wait.as_secs();
                tracing::warn!(
                    sibling = self.origin,
                    path = change.path,
                    error,
                    ?wait,
                    "a change could not be passed on; trying again"
                );
                self.note_error(&error, now);
                self.note_wait(next_at);
                let noted =
                    self.store().sibling_failed(change.id, &self.origin, error, next_at).await;
                if let Err(error) = noted {
                    tracing::warn!(sibling = self.origin, %error, "an attempt could not be noted");
                }
            }
        }
    }

    /// A change that is done leaves the queue; if that fails it is sent again, and the sibling knows
    /// its number.
    async fn take_from_queue(&self, change: &SiblingChange, refusal: Option<String>) {
        match self.store().sibling_done(change.id, &self.origin, refusal).await {
            Ok(oldest_at) => {
                let mut state = self.lane().lock();
                state.queued = state.queued.saturating_sub(1);
                state.oldest_at = oldest_at;
                state.failures = 0;
                state.next_attempt_at = None;
            }
            Err(error) => {
                tracing::warn!(sibling = self.origin, %error, "the queue can't be written");
                sleep(STORE_PAUSE).await;
            }
        }
    }

    fn note_error(&self, error: &str, now: u64) {
        let mut state = self.lane().lock();
        state.last_error = Some(error.to_owned());
        state.last_error_at = Some(now);
    }

    fn note_wait(&self, next_at: u64) {
        let mut state = self.lane().lock();
        state.next_attempt_at = Some(next_at);
        state.failures = self.pace.failures();
    }

    fn count(&self, outcome: &'static str) {
        let sibling = self.origin.clone();
        metrics::counter!("relayered_siblings_changes_total", "sibling" => sibling, "outcome" => outcome)
            .increment(1);
        let mut state = self.lane().lock();
        match outcome {
            "delivered" => {
                state.delivered += 1;
                state.last_ok_at = Some(unix_now());
            }
            "refused" => {
                state.refused += 1;
                state.last_ok_at = Some(unix_now());
            }
            _ => {}
        }
    }
}
