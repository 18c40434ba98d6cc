//! Connections that only read, beside the one that writes: a list for the API does not wait until the
//! log has been followed, and the log does not wait for a long list.
//!
//! There are as many as there is to do at once, up to a limit; those that had nothing to do for a
//! while end. What was written before a question was asked is in its answer.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::sync::watch;

use super::{DatabaseUrl, StoreError, database::Database};

/// A connection without work ends after this time.
const IDLE: Duration = Duration::from_mins(1);

pub(super) type Job = Box<dyn FnOnce(Result<&mut Database, StoreError>) + Send>;

/// Clones share the threads, which end with the last of them.
pub(super) struct Readers(Arc<Shared>);

struct Shared {
    url: DatabaseUrl,
    gives_up: watch::Receiver<bool>,
    threads_max: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Of these threads, those that wait for work.
    idle: usize,
    handles: usize,
}

impl Readers {
    pub(super) fn new(
        url: &DatabaseUrl,
        threads_max: usize,
        gives_up: watch::Receiver<bool>,
    ) -> Self {
        let state = Mutex::new(State { handles: 1, ..State::default() });
        let url = url.clone();
        Self(Arc::new(Shared { url, gives_up, threads_max, state, work: Condvar::new() }))
    }

    pub(super) fn submit(&self, job: Job) -> Result<(), StoreError> {
        let mut state = self.0.lock();
        if state.idle <= state.jobs.len() && state.threads < self.0.threads_max {
            let shared = Arc::clone(&self.0);
            let started =
                thread::Builder::new().name("store-read".into()).spawn(move || shared.run());
            match started {
                Ok(_detached) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(error.into()),
                // Those that are there do it.
                Err(_) => {}
            }
        }
        state.jobs.push_back(job);
        drop(state);
        self.0.work.notify_one();
        Ok(())
    }
}

impl Clone for Readers {
    fn clone(&self) -> Self {
        self.0.lock().handles += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.0.lock().handles -= 1;
        self.0.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in it is ever half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut database = None;
        while let Some(job) = self.next() {
            if database.is_none() {
                match Database::reader(&self.url, self.gives_up.clone()) {
                    Ok(opened) => database = Some(opened),
                    Err(error) => {
                        job(Err(error));
                        continue;
                    }
                }
            }
            if let Some(database) = &mut database {
                job(Ok(database));
            }
        }
    }

    /// Waits for work. `None`: the thread is to end.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        if state.jobs.is_empty() {
            state.idle += 1;
            let idles = |state: &mut State| state.jobs.is_empty() && state.handles > 0;
            let waited = self.work.wait_timeout_while(state, IDLE, idles);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
        }
        let job = state.jobs.pop_front();
        if job.is_none() {
            state.threads -= 1;
        }
        job
    }
}
