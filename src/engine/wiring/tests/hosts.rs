use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpListener,
};

use ports::{HostFault, HostId, HostResume, HostSeq, RefusalReason, ShardCommand, ShardReport};
use protocol::frame::error_frame;
use tungstenite::Message;

use super::harness::{Bench, Script, config, drain, drivers, event, fake_host, send};
use crate::upstream::WindowLimits;

fn resume(cursor: Option<u64>) -> HostResume {
    HostResume { cursor: cursor.map(HostSeq), ..HostResume::default() }
}

#[test]
fn events_of_many_hosts_come_out_once_and_in_order() {
    const HOSTS: u32 = 5;
    const EVENTS: u64 = 400;
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir, driver);
        // Small enough to be full all the time.
        config.limits.host_window = WindowLimits { items: 64, bytes: 4096 };
        config.limits.mesh = crate::RingLimits { items: 8, bytes: 4096 };
        config.limits.verified = crate::RingLimits { items: 4, bytes: 4096 };
        let mut bench = Bench::start(config);
        let mut consumer = bench.consumer(None);
        for host in 1..=HOSTS {
            let script: Script = Box::new(move |socket, _| {
                // Seven accounts a host, no account at two hosts.
                for seq in 1..=EVENTS {
                    send(socket, event(u64::from(host) * 100 + seq % 7, seq, "throttled"));
                }
                drain(socket);
            });
            let (address, _) = fake_host(vec![script]);
            bench.connect(HostId(host), address, resume(None));
        }
        let events = consumer.events(HOSTS as usize * EVENTS as usize);
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for (index, (seq, did)) in events.iter().enumerate() {
            assert_eq!(*seq, index as u64 + 1);
            *counts.entry(did).or_default() += 1;
        }
        assert_eq!(counts.len(), HOSTS as usize * 7);
        for host in 1..=HOSTS {
            let progress = bench.wait_cursor(HostId(host), EVENTS);
            assert!(progress.log_floor.0 <= events.len() as u64);
        }
    }
}

#[test]
fn a_reconnect_takes_nothing_twice() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start(config(&dir, driver));
        let mut consumer = bench.consumer(None);
        let host = HostId(3);
        let first: Script = Box::new(|socket, cursor| {
            assert_eq!(cursor, Some(4));
            (5..=10).for_each(|seq| send(socket, event(seq, seq, "throttled")));
            // Out of order within a connection.
            send(socket, event(7, 7, "throttled"));
            socket.close(None).unwrap();
            drain(socket);
        });
        let second: Script = Box::new(|socket, cursor| {
            assert_eq!(cursor, Some(10));
            // It goes back, also to events that were taken before this log began.
            (3..=15).for_each(|seq| send(socket, event(seq, seq, "throttled")));
            drain(socket);
        });
        let (address, thread) = fake_host(vec![first, second]);
        bench.connect(host, address, resume(Some(4)));
        bench.wait_open(host);
        assert_eq!(bench.wait_fault(host), HostFault::Closed);
        bench.connect(host, address, resume(None));
        // Accounts are on both shards, so only the set is certain.
        let mut dids: Vec<_> = consumer.events(13).into_iter().map(|(_, did)| did).collect();
        let mut expected: Vec<_> = (3..=15).map(|seq| format!("did:web:a{seq}.test")).collect();
        dids.sort();
        expected.sort();
        assert_eq!(dids, expected);
        bench.wait_cursor(host, 15);
        bench.command(1, ShardCommand::DropHost(host));
        assert_eq!(bench.wait_fault(host), HostFault::Stopped);
        thread.join().unwrap();
    }
}

#[test]
fn bad_frames_are_refused_and_stepped_over() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start(config(&dir, driver));
        let mut consumer = bench.consumer(None);
        let host = HostId(2);
        let script: Script = Box::new(|socket, _| {
            socket.send(Message::text("hello")).unwrap();
            send(socket, b"not cbor".to_vec());
            send(socket, Vec::new());
            send(socket, event(1, 1, "throttled"));
            send(socket, event(1, 1, "throttled"));
            let mut trailing = event(2, 2, "throttled");
            trailing.push(0);
            send(socket, trailing);
            socket.send(Message::Ping("ping".into())).unwrap();
            assert_eq!(socket.read().unwrap(), Message::Pong("ping".into()));
            send(socket, event(3, 3, "throttled"));
            send(socket, error_frame("Overloaded", "go away"));
            drain(socket);
        });
        let (address, thread) = fake_host(vec![script]);
        bench.connect(host, address, resume(None));
        let mut dids: Vec<_> = consumer.events(2).into_iter().map(|(_, did)| did).collect();
        dids.sort();
        assert_eq!(dids, ["did:web:a1.test", "did:web:a3.test"]);
        assert_eq!(bench.wait_fault(host), HostFault::ErrorFrame("Overloaded".into()));
        thread.join().unwrap();
        let mut refused = [0; RefusalReason::COUNT];
        let sum = |refused: &[u64]| refused.iter().sum::<u64>();
        while sum(&refused) < 5 {
            let more = bench.wait(|report| match report {
                ShardReport::Tally(tally) => Some(tally.refused),
                _ => None,
            });
            refused.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        assert_eq!(refused[RefusalReason::FrameText.index()], 1);
        assert_eq!(refused[RefusalReason::SeqOrder.index()], 1);
        assert_eq!(refused[RefusalReason::FrameMalformed.index()], 3);
    }
}

/// Plays raw bytes behind a good handshake and returns how the connection ended.
fn fault_of(bench: &mut Bench, host: HostId, bytes: Vec<u8>) -> HostFault {
    let script: Script = Box::new(move |socket, _| {
        socket.get_mut().write_all(&bytes).unwrap();
        let _ = socket.get_mut().read_to_end(&mut Vec::new());
    });
    let (address, thread) = fake_host(vec![script]);
    bench.connect(host, address, resume(None));
    let fault = bench.wait_fault(host);
    thread.join().unwrap();
    fault
}

#[test]
fn a_broken_layer_ends_the_connection() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start(config(&dir, driver));
        let host = HostId(6);
        let huge = [&[0x82, 127][..], &100_000_000_u64.to_be_bytes()].concat();
        assert_eq!(fault_of(&mut bench, host, huge), HostFault::TooLarge);
        let masked = vec![0x82, 0x81, 0, 0, 0, 0, 0];
        assert!(matches!(fault_of(&mut bench, host, masked), HostFault::Protocol(_)));
        let endless = [&[0x02, 0][..], &[0, 0].repeat(5000)].concat();
        assert_eq!(fault_of(&mut bench, host, endless), HostFault::Protocol("too many fragments"));
        assert_eq!(fault_of(&mut bench, host, vec![0x88, 0]), HostFault::Closed);
    }
}

#[test]
fn replies_that_are_no_upgrade() {
    let reply_with = |bench: &mut Bench, reply: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(reply).unwrap();
        });
        bench.connect(HostId(1), address, resume(None));
        let fault = bench.wait_fault(HostId(1));
        thread.join().unwrap();
        fault
    };
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start(config(&dir, driver));
        let status = |status| HostFault::Handshake { status };
        let limited = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(reply_with(&mut bench, limited), status(429));
        let relay = b"HTTP/1.1 400 Bad\r\nServer: other (atproto-relay)\r\n\r\n";
        assert_eq!(reply_with(&mut bench, relay), HostFault::Relay);
        assert_eq!(reply_with(&mut bench, b"SSH-2.0-OpenSSH\r\n"), status(0));
        assert_eq!(reply_with(&mut bench, b""), status(0));
    }
}

#[test]
fn a_silent_host_is_pinged_and_then_given_up() {
    for driver in drivers() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir, driver);
        config.links.ping = std::time::Duration::from_millis(600);
        config.links.silence = std::time::Duration::from_secs(2);
        let mut bench = Bench::start(config);
        let host = HostId(4);
        let script: Script = Box::new(|socket, _| {
            // Reading answers the pings, for longer than the deadline.
            for _ in 0..5 {
                assert!(matches!(socket.read().unwrap(), Message::Ping(_)));
            }
            let _ = socket.get_mut().read_to_end(&mut Vec::new());
        });
        let (address, thread) = fake_host(vec![script]);
        bench.connect(host, address, resume(None));
        assert_eq!(bench.wait_fault(host), HostFault::Silent);
        thread.join().unwrap();
    }
}
