use ports::{ConsumerEnd, ConsumerId, HostId, HostResume, ShardCommand, ShardReport};
use tungstenite::Message;

use super::harness::{Bench, Consumer, Got, config, drain, drivers, event, fake_host, send};
use crate::fanout::ConsumerTimes;

const HOST: HostId = HostId(1);

/// A bench whose log holds so many events, each of its own account.
fn filled(bench: &Bench, count: u64) {
    let script = move |socket: &mut super::harness::Socket, _| {
        (1..=count).for_each(|seq| send(socket, event(seq, seq, "throttled")));
        drain(socket);
    };
    let mut live = bench.consumer(None);
    let (address, _) = fake_host(vec![Box::new(script)]);
    bench.connect(HOST, address, HostResume::default());
    live.events(count as usize);
}

fn wait_end(bench: &mut Bench, id: ConsumerId) -> ConsumerEnd {
    bench.wait(|report| match report {
        ShardReport::ConsumerClosed { id: of, reason } if *of == id => Some(*reason),
        _ => None,
    })
}

fn seqs(consumer: &mut Consumer, count: usize) -> Vec<u64> {
    consumer.events(count).into_iter().map(|(seq, _)| seq).collect()
}

#[test]
fn cursors() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir, driver);
        config.log.initial_seq = 101;
        let mut bench = Bench::start(config);
        let mut early = bench.consumer(None);
        filled(&bench, 50);
        let all: Vec<u64> = (101..=150).collect();
        assert_eq!(seqs(&mut early, 50), all);
        assert_eq!(seqs(&mut bench.consumer(Some(0)), 50), all);
        assert_eq!(seqs(&mut bench.consumer(Some(100)), 50), all);
        assert_eq!(seqs(&mut bench.consumer(Some(140)), 10), all[40..]);

        let mut outdated = bench.consumer(Some(7));
        assert_eq!(outdated.next(), Got::Info("OutdatedCursor".into()));
        assert_eq!(seqs(&mut outdated, 50), all);

        let mut future = bench.consumer(Some(151));
        assert_eq!(future.next(), Got::Error("FutureCursor".into()));
        assert_eq!(future.next(), Got::Closed(1008, "FutureCursor".into()));
        let id = future.id;
        drop(future);
        assert_eq!(wait_end(&mut bench, id), ConsumerEnd::FutureCursor);
    }
}

#[test]
fn a_shutdown_sends_the_rest_and_says_goodbye() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start(config(&dir, driver));
        filled(&bench, 20);
        let mut consumer = bench.consumer(Some(0));
        consumer.events(1);
        assert!(bench.shutdown());
        assert_eq!(consumer.events(19).len(), 19);
        assert_eq!(consumer.next(), Got::Closed(1001, "the relay is shutting down".into()));
        assert_eq!(wait_end(&mut bench, consumer.id), ConsumerEnd::Shutdown);
        let progress = bench.wait_cursor(HOST, 20);
        assert_eq!(progress.cursor, Some(ports::HostSeq(20)));
        drop(bench);

        let reopened = Bench::start(config(&dir, driver));
        assert_eq!(seqs(&mut reopened.consumer(Some(0)), 20), (1..=20).collect::<Vec<_>>());
    }
}

#[test]
fn pings_are_answered_and_what_is_said_is_ignored() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir, driver);
        config.consumers.linger = std::time::Duration::ZERO;
        let mut bench = Bench::start(config);
        let mut consumer = bench.consumer(None);
        consumer.socket.send(Message::text("hello")).unwrap();
        consumer.socket.send(Message::binary(vec![0; 3000])).unwrap();
        consumer.socket.send(Message::Ping("are you there".into())).unwrap();
        assert_eq!(consumer.socket.read().unwrap(), Message::Pong("are you there".into()));
        consumer.socket.close(None).unwrap();
        assert!(matches!(consumer.next(), Got::Closed(1000, _)));
        assert_eq!(consumer.next(), Got::Gone);
        assert_eq!(wait_end(&mut bench, consumer.id), ConsumerEnd::Left);

        let mut kicked = bench.consumer(None);
        bench.command(kicked.id.0 as usize % 2, ShardCommand::DropConsumer(kicked.id));
        assert_eq!(kicked.next(), Got::Closed(1008, "closed by the operator".into()));
        assert_eq!(wait_end(&mut bench, kicked.id), ConsumerEnd::Kicked);

        let rude = bench.consumer(None);
        std::io::Write::write_all(&mut rude.socket.get_ref(), &[0x82, 1, 0]).unwrap();
        assert_eq!(wait_end(&mut bench, rude.id), ConsumerEnd::Protocol);
    }
}

#[test]
fn a_stalled_consumer_holds_up_nobody_and_is_told() {
    // More than two sockets can hold between them.
    const EVENTS: u64 = 1200;
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir, driver);
        let second = std::time::Duration::from_secs(1);
        config.consumers =
            ConsumerTimes { stall: second, linger: 20 * second, ..ConsumerTimes::default() };
        let mut bench = Bench::start(config);
        // On the same shard, as ids are given out in turn.
        let mut stalled = bench.consumer(None);
        let _other_shard = bench.consumer(None);
        let mut live = bench.consumer(None);
        let script = move |socket: &mut super::harness::Socket, _| {
            let padding = "x".repeat(20_000);
            (1..=EVENTS).for_each(|seq| send(socket, event(seq, seq, &padding)));
            drain(socket);
        };
        let (address, _) = fake_host(vec![Box::new(script)]);
        bench.connect(HOST, address, HostResume::default());
        live.events(EVENTS as usize);

        // Its stream ends at an event's end, with a reason, though it only reads much later.
        let wait = bench.wait(|report| match report {
            ShardReport::Consumers(progress) => progress
                .iter()
                .find(|of| of.id == live.id && of.seq.0 == EVENTS)
                .map(|of| of.events_sent),
            _ => None,
        });
        assert_eq!(wait, EVENTS);
        std::thread::park_timeout(3 * second);
        let mut events = 0;
        let end = loop {
            match stalled.next() {
                Got::Event(..) => events += 1,
                other => break other,
            }
        };
        assert_eq!(end, Got::Error("ConsumerTooSlow".into()), "after {events} events");
        assert!(events < EVENTS);
        assert_eq!(stalled.next(), Got::Closed(1008, "ConsumerTooSlow".into()));
        let id = stalled.id;
        drop(stalled);
        assert_eq!(wait_end(&mut bench, id), ConsumerEnd::TooSlow);
    }
}

#[test]
fn quiet_streams_get_pings_and_silence_ends_them() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir, driver);
        config.consumers.ping = std::time::Duration::from_millis(600);
        config.consumers.linger = std::time::Duration::from_millis(500);
        let mut bench = Bench::start(config);
        // Answers pings whenever it reads, which the library does by itself.
        let mut alive = bench.consumer(None);
        let silent = bench.consumer(None);
        for _ in 0..3 {
            assert!(matches!(alive.socket.read().unwrap(), Message::Ping(_)));
        }
        assert_eq!(wait_end(&mut bench, silent.id), ConsumerEnd::Silent);
        assert!(matches!(alive.socket.read().unwrap(), Message::Ping(_)));
    }
}

#[test]
fn a_pong_stands_between_events_of_a_replay() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir, driver);
        // So that the oldest events are read from the files.
        config.log.chunk_bytes = 1 << 16;
        config.log.chunks_in_memory = 2;
        let bench = Bench::start(config);
        let script = move |socket: &mut super::harness::Socket, _| {
            let padding = "x".repeat(3000);
            (1..=1000).for_each(|seq| send(socket, event(seq % 50, seq, &padding)));
            drain(socket);
        };
        let mut live = bench.consumer(None);
        let (address, _) = fake_host(vec![Box::new(script)]);
        bench.connect(HOST, address, HostResume::default());
        live.events(1000);
        let mut replay = bench.consumer(Some(0));
        for round in 0..20_u64 {
            replay.socket.send(Message::Ping(round.to_string().into())).unwrap();
            assert_eq!(
                seqs(&mut replay, 50),
                (round * 50 + 1..=round * 50 + 50).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn a_client_that_talks_without_end_is_let_go() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start(config(&dir, driver));
        let mut talker = bench.consumer(None);
        let mut said = 0;
        while talker.socket.send(Message::binary(vec![0; 4000])).is_ok() && said < 2000 {
            said += 1;
        }
        let id = talker.id;
        drop(talker);
        assert_eq!(wait_end(&mut bench, id), ConsumerEnd::Protocol);
    }
}
