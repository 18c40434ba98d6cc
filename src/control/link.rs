//! The link to the shards: commands out, reports in, each through bounded rings.
//!
//! One task owns the rings' ends ([`Link::run`]); everyone else in the control plane sends through a
//! [`Shards`] handle. A command that finds its ring full waits here, in order, until the shard has
//! made room: nothing is dropped, and no task blocks.

use std::{collections::VecDeque, sync::Arc};

use ports::{
    AccountState, HostId, SetLocal, ShardCommand, ShardId, ShardReport, owner_of,
    ring::{self, Doorbell},
};
use tokio::sync::{mpsc, oneshot};

/// Reports taken from one ring before the others get their turn.
const REPORTS_A_TURN: usize = 256;

/// Sends commands to shards.
#[derive(Clone, Debug)]
pub struct Shards {
    commands: mpsc::UnboundedSender<(ShardId, ShardCommand)>,
    count: u16,
}

impl Shards {
    /// A handle, and the end of its queue that [`Link::new`] takes.
    pub fn new(count: u16) -> (Self, mpsc::UnboundedReceiver<(ShardId, ShardCommand)>) {
        let (commands, queue) = mpsc::unbounded_channel();
        (Self { commands, count: count.max(1) }, queue)
    }

    pub fn count(&self) -> u16 {
        self.count
    }

    /// The shard that holds the connection to a host.
    pub fn home_of(&self, host: HostId) -> ShardId {
        ShardId((host.0 % u32::from(self.count)) as u16)
    }

    /// Queues a command. The queue is bounded by what stands behind it: one socket a host and a
    /// consumer, one answer a look-up in flight.
    pub fn send(&self, shard: ShardId, command: ShardCommand) {
        // After the link has ended the relay is shutting down, and commands have no meaning.
        let _ = self.commands.send((shard, command));
    }

    /// To the account's owner shard.
    pub fn set_local(&self, did: &str, state: AccountState) {
        let set = SetLocal { did: did.into(), state };
        self.send(owner_of(did, usize::from(self.count)), ShardCommand::SetLocal(Box::new(set)));
    }

    /// To the host's home shard.
    pub fn send_home(&self, host: HostId, command: ShardCommand) {
        self.send(self.home_of(host), command);
    }
}

/// Asks the link for an answer once all that shards have reported by now is handled.
#[derive(Clone, Debug)]
pub struct Barrier(mpsc::Sender<oneshot::Sender<()>>);

impl Barrier {
    /// A handle, and its other end, for [`Link::run`].
    pub fn new() -> (Self, mpsc::Receiver<oneshot::Sender<()>>) {
        let (asking, asked) = mpsc::channel(1);
        (Self(asking), asked)
    }

    /// A link that has ended handles nothing any more: then this returns at once.
    pub async fn reports_handled(&self) {
        let (reply, handled) = oneshot::channel();
        if self.0.send(reply).await.is_ok() {
            let _ = handled.await;
        }
    }
}

/// The rings' ends on the control side.
#[derive(Debug)]
pub struct Link {
    senders: Vec<ring::Sender<ShardCommand>>,
    receivers: Vec<ring::Receiver<ShardReport>>,
    bell: Arc<Doorbell>,
    queue: mpsc::UnboundedReceiver<(ShardId, ShardCommand)>,
    /// For each shard, commands that found the ring full.
    waiting: Vec<VecDeque<ShardCommand>>,
}

impl Link {
    pub fn new(
        senders: Vec<ring::Sender<ShardCommand>>,
        receivers: Vec<ring::Receiver<ShardReport>>,
        bell: Arc<Doorbell>,
        queue: mpsc::UnboundedReceiver<(ShardId, ShardCommand)>,
    ) -> Self {
        let waiting = senders.iter().map(|_| VecDeque::new()).collect();
        Self { senders, receivers, bell, queue, waiting }
    }

    /// Moves commands and reports until all [`Shards`] handles are gone.
    ///
    /// # Cancel-safety
    /// Dropping the future between polls loses nothing: all state is in `self`.
    pub async fn run(
        &mut self,
        mut barriers: mpsc::Receiver<oneshot::Sender<()>>,
        mut handle: impl FnMut(ShardId, ShardReport),
    ) {
        let mut barrier = None;
        loop {
            tokio::select! {
                command = self.queue.recv() => match command {
                    Some(command) => self.accept(command),
                    None => return,
                },
                Some(reply) = barriers.recv(), if barrier.is_none() => barrier = Some(reply),
                () = self.bell.rung() => {}
            }
            while let Ok(command) = self.queue.try_recv() {
                self.accept(command);
            }
            self.push_waiting();
            if self.take_reports(&mut handle) {
                // More is there than one turn takes: let other tasks run, then look again.
                self.bell.ring();
                tokio::task::yield_now().await;
            } else if let Some(reply) = barrier.take() {
                // Whoever asked may be gone.
                let _ = reply.send(());
            }
        }
    }

    fn accept(&mut self, (shard, command): (ShardId, ShardCommand)) {
        match self.waiting.get_mut(usize::from(shard.0)) {
            Some(waiting) => waiting.push_back(command),
            None => tracing::error!(shard = shard.0, "a command for a shard that is not there"),
        }
    }

    fn push_waiting(&mut self) {
        for (sender, waiting) in self.senders.iter_mut().zip(&mut self.waiting) {
            let mut pushed = false;
            while let Some(command) = waiting.pop_front() {
                if let Err(command) = sender.push(command) {
                    waiting.push_front(command);
                    break;
                }
                pushed = true;
            }
            if pushed {
                sender.ring();
            }
        }
    }

    /// Takes reports up to the budget; `true` if some are left.
    fn take_reports(&mut self, handle: &mut impl FnMut(ShardId, ShardReport)) -> bool {
        let mut left = false;
        for (index, receiver) in self.receivers.iter_mut().enumerate() {
            for _ in 0..REPORTS_A_TURN {
                let Some(report) = receiver.pop() else { break };
                handle(ShardId(index as u16), report);
            }
            left |= !receiver.is_empty();
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use ports::Tally;

    use super::*;

    #[tokio::test]
    async fn commands_wait_for_room_and_reports_come_through() {
        let (control_bell, shard_bell) = (Doorbell::new(), Doorbell::new());
        let (command_in, mut command_out) = ring::ring(1, 1 << 20, &shard_bell, &control_bell);
        let (mut report_in, report_out) = ring::ring(8, 1 << 20, &control_bell, &shard_bell);
        let (shards, queue) = Shards::new(1);
        let mut link =
            Link::new(vec![command_in], vec![report_out], Arc::clone(&control_bell), queue);
        for number in 0..3 {
            shards.send_home(HostId(number), ShardCommand::DropHost(HostId(number)));
        }
        report_in.push(ShardReport::Tally(Box::<Tally>::default())).unwrap();
        report_in.push(ShardReport::HostOpen(HostId(7))).unwrap();
        report_in.ring();
        let (seen, mut reports) = mpsc::unbounded_channel();
        let running = async {
            link.run(Barrier::new().1, |shard, report| {
                seen.send((shard, report)).unwrap();
            })
            .await;
        };
        let shard = async move {
            for number in 0..3 {
                let command = loop {
                    match command_out.pop() {
                        Some(command) => break command,
                        None => shard_bell.rung().await,
                    }
                };
                assert!(matches!(command, ShardCommand::DropHost(host) if host.0 == number));
            }
            drop(shards);
        };
        tokio::join!(running, shard);
        assert!(matches!(reports.try_recv().unwrap().1, ShardReport::Tally(_)));
        assert!(matches!(reports.try_recv().unwrap(), (ShardId(0), ShardReport::HostOpen(_))));
    }

    #[tokio::test]
    async fn a_barrier_waits_for_all_reports() {
        const REPORTS: usize = 3 * REPORTS_A_TURN;
        let (control_bell, shard_bell) = (Doorbell::new(), Doorbell::new());
        let (mut report_in, report_out) = ring::ring(REPORTS, 1 << 20, &control_bell, &shard_bell);
        let (shards, queue) = Shards::new(1);
        let mut link = Link::new(Vec::new(), vec![report_out], control_bell, queue);
        for _ in 0..REPORTS {
            report_in.push(ShardReport::HostOpen(HostId(7))).unwrap();
        }
        // Nobody has rung, and still none is left out.
        let (barrier, asked) = Barrier::new();
        let handled = std::cell::Cell::new(0);
        let running = link.run(asked, |_, _| handled.set(handled.get() + 1));
        let asking = async {
            barrier.reports_handled().await;
            assert_eq!(handled.get(), REPORTS);
            drop(shards);
        };
        tokio::join!(running, asking);
        barrier.reports_handled().await;
    }
}
