//! Threads for what may have to wait for the disk, or takes long, so that a shard does not.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crossbeam::channel::{Receiver, Sender, unbounded};
use ports::ring::Doorbell;

type Job = Box<dyn FnOnce() + Send>;

/// Runs work on threads of its own. They end when the last clone is dropped.
#[derive(Clone)]
pub struct Offload {
    /// Bounded by the tasks: each waits for its work before it has more.
    jobs: Sender<Job>,
}

impl Offload {
    /// Threads that are `nice` leave the processor to others who want it.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub fn start(name: &str, threads: usize, nice: i32) -> io::Result<Self> {
        let (jobs, queue) = unbounded();
        for index in 0..threads {
            let queue: Receiver<Job> = queue.clone();
            thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
                give_way(nice);
                queue.iter().for_each(|job| job());
            })?;
        }
        Ok(Self { jobs })
    }

    /// Runs the work on one of the threads and waits for what comes of it.
    ///
    /// # Cancel-safety
    /// The work is done even if nobody waits for it any more.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let bell = Doorbell::new();
        let slot = Arc::new(Mutex::new(None));
        let (done, result) = (Arc::clone(&bell), Arc::clone(&slot));
        let job: Job = Box::new(move || {
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(work());
            done.ring();
        });
        self.jobs.send(job).expect("the threads live as long as their queue has a sender");
        loop {
            bell.rung().await;
            let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(result) = taken {
                return result;
            }
        }
    }
}

/// Makes the calling thread nicer; where that is forbidden, it is like all others.
fn give_way(nice: i32) {
    if nice > 0 {
        // SAFETY: no memory is involved. On Linux, process 0 is the calling thread and no other.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    }
}

impl fmt::Debug for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::rt::{self, Signal, tests::drivers};

    #[test]
    fn a_task_that_waits_for_a_thread_holds_up_no_other() {
        for kind in drivers() {
            let sum = rt::run(kind, || async {
                let offload = Offload::start("test", 2, 1).unwrap();
                let (go, gone) = std::sync::mpsc::channel::<()>();
                // It can only end once the other task has run.
                let (done, ended) = (Rc::new(Signal::default()), offload.clone());
                let told = Rc::clone(&done);
                rt::spawn(async move {
                    assert!(ended.run(move || gone.recv().is_ok()).await);
                    told.notify();
                });
                let mut sum = 0;
                for number in 0..1000_u64 {
                    sum += offload.run(move || number).await;
                }
                let seen = done.count();
                go.send(()).unwrap();
                done.past(seen).await;
                sum
            });
            assert_eq!(sum.unwrap(), 499_500);
        }
    }
}
