//! One turn of a shard's loop: everything that has arrived, up to the budgets, in a fixed order.

use std::rc::Rc;

use ports::{HostFault, ShardCommand, ShardReport};

use super::{Core, mesh::Return, reports::Gauges, stop::Phase};
use crate::{accounts::WallTime, rt};

/// Frames verified in a turn: about a millisecond, after which consumers and sockets get theirs.
const FRAMES_A_TURN: usize = 128;
const COMMANDS_A_TURN: usize = 64;
const RETURNS_A_TURN: usize = 4096;
const COLLECTIONS_A_REPORT: usize = 1024;

impl Core {
    /// Does what there is to do; returns whether there is more.
    pub(super) fn turn(self: &Rc<Self>) -> bool {
        let now = WallTime::from_micros(rt::wall_micros());
        let mut more = self.take_commands(now);
        more |= self.take_returns();
        more |= self.verify(now);
        self.settle_synced();
        self.report_noted();
        self.mesh.borrow_mut().flush_returns();
        self.call_consumers();
        self.call_readers();
        self.advance_stop();
        self.send_reports();
        more
    }

    fn take_commands(self: &Rc<Self>, now: WallTime) -> bool {
        for _ in 0..COMMANDS_A_TURN {
            // Not held while the command is carried out.
            let command = self.commands.borrow_mut().pop();
            let Some(command) = command else { return false };
            match command {
                ShardCommand::Host(socket) => self.accept_host(socket),
                ShardCommand::DropHost(host) => {
                    // What waits for its turn does not go on either.
                    let link = self.hosts.borrow_mut().drop_host(host);
                    if let Some(link) = link {
                        link.end(HostFault::Stopped);
                    }
                }
                ShardCommand::SetStrictness(host, strictness) => {
                    if let Some(link) = self.hosts.borrow().link(host) {
                        link.set_strictness(strictness);
                    }
                }
                ShardCommand::SetHostLimits(host, limits) => {
                    self.hosts.borrow_mut().set_limits(host, limits);
                    self.release_paced();
                }
                ShardCommand::SetLocal(set) => {
                    self.accounts.borrow_mut().handle_set_local(&set, now);
                }
                ShardCommand::Consumer(socket) => self.accept_consumer(*socket),
                ShardCommand::DropConsumer(id) => {
                    if let Some(link) = self.consumers.borrow().get(&id) {
                        link.end(ports::ConsumerEnd::Kicked);
                    }
                }
                ShardCommand::Account(answer) => {
                    self.accounts.borrow_mut().handle_answer(*answer, now);
                }
            }
        }
        true
    }

    /// Hands on what slowed hosts may send by now.
    pub(super) fn release_paced(&self) {
        let mut mesh = self.mesh.borrow_mut();
        self.hosts.borrow_mut().release(rt::wall_micros(), |frame| mesh.push(frame));
        if mesh.flush() {
            self.bell.ring();
        }
    }

    fn take_returns(&self) -> bool {
        let mut hosts = self.hosts.borrow_mut();
        let mut mesh = self.mesh.borrow_mut();
        for _ in 0..RETURNS_A_TURN {
            let Some(item) = mesh.pop_return() else { return false };
            hosts.settle(item);
        }
        true
    }

    /// Verifies some frames and hands on what came of it. While the sequencer's ring is full, no
    /// frames are taken, so that the inboxes fill up and the readers stop. Once a shard that stops is
    /// drained, the sequencer takes nothing more: what an answer sets free now comes again after the
    /// next start.
    fn verify(&self, now: WallTime) -> bool {
        if self.phase_done.get() >= Phase::Drained {
            return false;
        }
        let mut accounts = self.accounts.borrow_mut();
        if !self.push_verified(&mut accounts) {
            return false;
        }
        self.mesh.borrow_mut().take_frames(FRAMES_A_TURN, |frame| accounts.handle_frame(frame));
        if accounts.next_timeout().is_some_and(|due| due <= now) {
            accounts.handle_timeout(now);
        }
        accounts.run_turn(now);
        let room = self.push_verified(&mut accounts);
        while let Some(finished) = accounts.poll_finished() {
            self.send_home(finished.home, Return::Finished(finished));
        }
        while let Some(lookup) = accounts.poll_lookup() {
            self.report(ShardReport::Lookup(Box::new(lookup)));
        }
        if room {
            for (account, local) in accounts.take_local_set() {
                self.report(ShardReport::LocalSet { account, local });
            }
        }
        room && (accounts.has_work() || self.mesh.borrow().has_frames())
    }

    /// Moves verified events into the sequencer's ring; false if it is full.
    fn push_verified(&self, accounts: &mut crate::accounts::Accounts) -> bool {
        let mut lane = self.lane.borrow_mut();
        let mut pushed = false;
        let room = loop {
            let Some(event) = lane.held.take().or_else(|| accounts.poll_verified()) else {
                break true;
            };
            let finished = event.finished();
            if let Err(event) = lane.ring.push(event) {
                lane.held = Some(event);
                break false;
            }
            pushed = true;
            let passed = Return::Passed { host: finished.host, ticket: finished.ticket };
            self.send_home(finished.home, passed);
            lane.unsynced.push_back(finished);
        };
        if pushed {
            lane.ring.ring();
        }
        room
    }

    /// Sends the tickets home whose events are synced.
    fn settle_synced(&self) {
        let mut lane = self.lane.borrow_mut();
        let synced = lane.progress.synced();
        while lane.settled < synced {
            let Some(finished) = lane.unsynced.pop_front() else { return };
            lane.settled += 1;
            self.send_home(finished.home, Return::Finished(finished));
        }
    }

    /// Tells the accounts how far the log is, and control what no event tells.
    fn report_noted(&self) {
        let settled = self.lane.borrow().settled;
        let mut accounts = self.accounts.borrow_mut();
        accounts.note_synced(settled, self.log.head().0);
        let noted: Vec<_> = std::iter::from_fn(|| accounts.poll_noted(settled)).collect();
        if !noted.is_empty() {
            self.report(ShardReport::Noted(noted));
        }
    }

    fn send_home(&self, home: ports::ShardId, item: Return) {
        if let Some(item) = self.mesh.borrow_mut().send_home(home, item) {
            self.hosts.borrow_mut().settle(item);
        }
    }

    fn call_consumers(&self) {
        let head = self.log.head_pos();
        if self.seen_head.replace(head) != head {
            self.grown.notify();
        }
    }

    fn call_readers(&self) {
        if self.mesh.borrow_mut().take_starved() {
            if self.stop.phase() == Phase::Running {
                self.release_paced();
            }
            self.room.notify();
        }
    }

    /// Deadlines of sockets; reports are due. Called twice a second.
    pub(super) fn sweep(&self) {
        let now = rt::now();
        self.hosts.borrow().tick(now, &self.config.links);
        if self.stop.phase() == Phase::Running {
            self.release_paced();
        }
        for link in self.consumers.borrow().values() {
            link.tick(now, &self.config.consumers);
        }
        self.report_due.set(true);
    }

    fn send_reports(&self) {
        if self.report_due.get() && self.reports.borrow().is_clear() {
            self.report_due.set(false);
            self.report_sums();
        }
        self.reports.borrow_mut().flush();
    }

    fn report_sums(&self) {
        let mut hosts = self.hosts.borrow_mut().take_progress(self.log.head().0);
        hosts.extend(self.accounts.borrow_mut().take_charges());
        let consumers = self.consumers.borrow();
        let progress: Vec<_> =
            consumers.values().filter_map(|link| link.progress(|pos| self.seq_at(pos))).collect();
        let sent =
            self.sent_by_gone.get() + consumers.values().map(|link| link.written()).sum::<u64>();
        let gauges = Gauges {
            sent_bytes: sent - self.sent_reported.replace(sent),
            consumers: consumers.len() as u64,
            hosts: self.hosts.borrow().connected() as u64,
        };
        let slowed = self.hosts.borrow_mut().take_slowed(rt::wall_micros());
        let mut reports = self.reports.borrow_mut();
        for slowed in slowed {
            reports.send(slowed);
        }
        if !hosts.is_empty() {
            reports.send(ShardReport::Progress(hosts));
        }
        if !progress.is_empty() {
            reports.send(ShardReport::Consumers(progress));
        }
        let collections = self.accounts.borrow_mut().take_collections();
        for part in collections.chunks(COLLECTIONS_A_REPORT) {
            reports.send(ShardReport::Collections(part.to_vec()));
        }
        reports.send_tally(self.accounts.borrow_mut().take_tally(), gauges);
    }

    /// Does the phase of stopping that has begun, as far as it can be done now.
    fn advance_stop(&self) {
        let phase = self.stop.phase();
        if phase >= Phase::Deaf && self.phase_done.get() < Phase::Deaf {
            let links: Vec<_> = self.hosts.borrow().links().cloned().collect();
            for link in &links {
                link.end(HostFault::Stopped);
            }
            self.room.notify();
            if links.is_empty() {
                self.finish_phase(Phase::Deaf);
            }
        }
        if phase >= Phase::Drained && self.phase_done.get() == Phase::Deaf && self.is_drained() {
            self.finish_phase(Phase::Drained);
        }
        if phase >= Phase::Settled
            && self.phase_done.get() == Phase::Drained
            && self.is_settled(phase)
        {
            self.finish_phase(Phase::Settled);
        }
        if phase >= Phase::Parting && self.phase_done.get() == Phase::Settled {
            self.grown.notify();
            if phase >= Phase::Cut {
                let consumers: Vec<_> = self.consumers.borrow().values().cloned().collect();
                for link in &consumers {
                    link.cut();
                }
            }
            if self.consumers.borrow().is_empty() {
                while self.take_returns() {}
                self.report_sums();
                self.finish_phase(Phase::Parting);
                self.done.set(true);
            }
        }
    }

    fn finish_phase(&self, phase: Phase) {
        self.phase_done.set(phase);
        self.stop.note_done(phase);
    }

    fn is_drained(&self) -> bool {
        let accounts = self.accounts.borrow();
        self.lane.borrow().held.is_none()
            && !accounts.has_work()
            && !self.mesh.borrow().has_frames()
    }

    /// Whether all tickets that this shard holds are on their way home.
    fn is_settled(&self, phase: Phase) -> bool {
        phase >= Phase::Cut || (self.lane.borrow().unsynced.is_empty() && self.mesh_is_quiet())
    }

    fn mesh_is_quiet(&self) -> bool {
        self.mesh.borrow_mut().flush_returns()
    }
}
