//! Hosts whose connections are odd: what comes after is taken all the same, and nobody waits for them.

use crate::harness::{
    Consumer, FakePds, FakePlc, Relay,
    author::Author,
    consumer, eventually, json,
    pds::{write_frame, write_message},
};

struct Host {
    name: &'static str,
    pds: FakePds,
    author: Author,
    seq: u64,
    /// Revs that must come out, in order.
    revs: Vec<String>,
}

impl Host {
    /// The next commit of its account, as a frame under its number.
    fn frame(&mut self) -> (u64, Vec<u8>) {
        let mut body = self.author.post();
        self.seq += 1;
        body["seq"] = self.seq.into();
        self.revs.push(self.author.rev());
        (self.seq, json::event("commit", &body))
    }

    fn push(&mut self) {
        let (seq, frame) = self.frame();
        self.pds.push(seq, frame);
    }
}

/// Refuses a connection with these bytes, and takes the next one.
fn answer_once(host: &Host, reply: &[u8]) {
    host.pds.set_reply(Some(reply));
    host.pds.cut();
    host.pds.wait_for_connection(2);
    host.pds.set_reply(None);
}

type Oddity = (&'static str, fn(&mut Host));

/// What happens after the host's first commit has come out; then a second one is sent.
const CONNECTED: &[Oddity] = &[
    ("is cut", |host| host.pds.cut()),
    ("is cut in the middle of a message", |host| {
        let (_, frame) = host.frame();
        host.revs.pop();
        let mut bytes = Vec::new();
        write_message(&mut bytes, &frame);
        host.pds.send_raw(&bytes[..bytes.len() / 2]);
        host.pds.cut();
    }),
    ("says goodbye", |host| host.pds.send_raw(b"\x88\x02\x03\xe8")),
    ("goes away for a while", |host| {
        host.pds.set_refuse(Some(503));
        host.pds.cut();
        host.pds.wait_for_connection(2);
        host.pds.set_refuse(None);
    }),
    ("redirects", |host| {
        host.pds.set_refuse(Some(302));
        host.pds.cut();
        host.pds.wait_for_connection(2);
        host.pds.set_refuse(None);
    }),
    ("has no such method for a while", |host| {
        host.pds.set_refuse(Some(501));
        host.pds.cut();
        host.pds.wait_for_connection(2);
        host.pds.set_refuse(None);
    }),
    ("closes at once for a while", |host| {
        host.pds.set_slam(true);
        host.pds.cut();
        host.pds.wait_for_connection(3);
        host.pds.set_slam(false);
    }),
    ("is a relay for a moment", |host| {
        host.pds.set_server_header("x (atproto-relay)");
        host.pds.cut();
        host.pds.wait_for_connection(2);
        host.pds.set_server_header("fake-pds");
    }),
    ("complains of a slow consumer", |host| {
        let mut bytes = Vec::new();
        write_message(&mut bytes, b"\xa1\x62op\x20\xa1\x65error\x6fConsumerTooSlow");
        host.pds.send_raw(&bytes);
        host.pds.cut();
    }),
    ("complains of something new", |host| {
        let mut bytes = Vec::new();
        write_message(&mut bytes, b"\xa1\x62op\x20\xa2\x65error\x63Odd\x67message\x61x");
        host.pds.send_raw(&bytes);
    }),
    ("compresses", |host| {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, 0xc2, b"\xaa\x00\x00");
        host.pds.send_raw(&bytes);
    }),
    ("speaks HTTP where a stream was", |host| {
        host.pds.send_raw(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    }),
    ("announces a message of four gigabytes", |host| {
        host.pds.send_raw(b"\x82\x7f\x00\x00\x00\x01\x00\x00\x00\x00");
        host.pds.cut();
    }),
    ("sends a message in single bytes", |host| {
        let (seq, frame) = host.frame();
        let mut bytes = Vec::new();
        let (last, most) = frame.split_last().unwrap();
        write_frame(&mut bytes, 0x02, &[]);
        for byte in most {
            write_frame(&mut bytes, 0x00, std::slice::from_ref(byte));
        }
        write_frame(&mut bytes, 0x80, std::slice::from_ref(last));
        host.pds.send_raw(&bytes);
        assert!(seq > 0);
    }),
    ("pings without end", |host| host.pds.send_raw(&b"\x89\x01a".repeat(20_000))),
    ("answers with a page", |host| {
        answer_once(host, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>");
    }),
    ("answers with nothing", |host| answer_once(host, b"")),
    ("answers with half a head", |host| answer_once(host, b"HTTP/1.1 101 Switching Pro")),
    ("answers with what is no HTTP", |host| answer_once(host, b"SSH-2.0-OpenSSH_9.2\r\n\r\n")),
    ("answers with bytes", |host| answer_once(host, &[0xff; 4096])),
    ("answers with a head without end", |host| {
        answer_once(
            host,
            &[b"HTTP/1.1 101 x\r\n".as_slice(), &b"X: y\r\n".repeat(100_000)].concat(),
        );
    }),
    ("answers with a line without end", |host| {
        answer_once(host, &[b"HTTP/1.1 101 ".as_slice(), &[b'x'; 1_000_000]].concat());
    }),
    ("accepts a key that is not the relay's", |host| {
        let reply = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
        answer_once(host, reply.as_bytes());
    }),
    ("accepts without a key", |host| {
        let reply = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\n\r\n";
        answer_once(host, reply.as_bytes());
    }),
    ("wants another protocol", |host| {
        answer_once(host, b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\n\r\n");
    }),
    ("is busy and says for how long", |host| {
        answer_once(host, b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n\r\n");
    }),
    ("calls the request bad", |host| {
        let body = r#"{"error":"InvalidRequest","message":"cursor"}"#;
        let head = format!("HTTP/1.1 400 Bad\r\nContent-Length: {}\r\n\r\n", body.len());
        answer_once(host, format!("{head}{body}").as_bytes());
    }),
    ("redirects into the relay's own network", |host| {
        let to = "http://169.254.169.254/latest/meta-data";
        answer_once(host, format!("HTTP/1.1 301 Moved\r\nLocation: {to}\r\n\r\n").as_bytes());
    }),
    ("sends a first message together with a bad handshake", |host| {
        answer_once(host, b"HTTP/1.1 101 x\r\n\r\n\x82\x00");
    }),
    ("closes with a code of its own", |host| host.pds.send_raw(b"\x88\x06\x0f\xa0gone")),
    ("closes with a code that there is not", |host| host.pds.send_raw(b"\x88\x02\x00\x05")),
    ("closes with text that is none", |host| host.pds.send_raw(b"\x88\x04\x03\xe8\xff\xfe")),
    ("goes on after its goodbye", |host| {
        host.pds.send_raw(b"\x88\x02\x03\xe8\x82\x00\x82\x00\x89\x00");
    }),
    ("masks what it sends", |host| host.pds.send_raw(b"\x82\x81\x01\x02\x03\x04\x05")),
    ("sends a fragment of nothing", |host| host.pds.send_raw(b"\x80\x01a")),
    ("sends a ping in fragments", |host| host.pds.send_raw(b"\x09\x01a\x80\x01b")),
    ("sends pongs that nobody asked for", |host| host.pds.send_raw(&b"\x8a\x03odd".repeat(1000))),
    ("tells of an error without a name", |host| {
        let mut bytes = Vec::new();
        write_message(&mut bytes, b"\xa1\x62op\x20\xa0");
        host.pds.send_raw(&bytes);
    }),
    ("tells of an error with a name of a megabyte", |host| {
        let mut body = b"\xa1\x62op\x20\xa1\x65error\x7a\x00\x10\x00\x00".to_vec();
        body.resize(body.len() + (1 << 20), b'x');
        let mut bytes = Vec::new();
        write_message(&mut bytes, &body);
        host.pds.send_raw(&bytes);
        host.pds.cut();
    }),
    ("repeats all that it has ever sent", |host| {
        host.pds.cut();
        host.pds.wait_for_connection(2);
        let mut bytes = Vec::new();
        write_message(&mut bytes, b"\xa2\x61t\x65#info\x62op\x01\xa1\x64name\x6eOutdatedCursor");
        host.pds.send_raw(&bytes);
    }),
];

fn start(name: &'static str, number: u64, plc: &FakePlc) -> Host {
    let pds = FakePds::start();
    let author = Author::new((9 << 20) + number);
    author.register(plc, &pds);
    Host { name, pds, author, seq: 0, revs: Vec::new() }
}

/// The revs that have come out of an account.
fn revs_of(consumer: &Consumer, did: &str) -> Vec<String> {
    let frames = consumer.frames();
    let own = frames.iter().filter(|frame| consumer::event(frame).did == did);
    own.map(|frame| crate::harness::describe_rev(frame)).collect()
}

#[test]
fn odd_connections() {
    let plc = FakePlc::start();
    let relay = Relay::start(&plc, &["--log-level", "info"]);
    let consumer = Consumer::connect(relay.api, None);
    let mut hosts: Vec<Host> =
        (1..).zip(CONNECTED).map(|(number, (name, _))| start(name, number, &plc)).collect();
    for host in &mut hosts {
        relay.add_host(&host.pds);
        host.push();
    }
    consumer.wait_for(hosts.len());
    for (host, (name, oddity)) in hosts.iter_mut().zip(CONNECTED) {
        eprintln!("a host that {name}");
        oddity(host);
        host.push();
    }
    // A relay is left alone for long; the operator knows better.
    for host in hosts.iter().filter(|host| host.name == "is a relay for a moment") {
        eventually("a host to be taken for a relay", || {
            let list = relay.admin("GET", "/admin/pds/list", "").json();
            let rows = list.as_array().unwrap();
            rows.iter().find(|row| row["StatusReason"] == "relay").map(|_| ())
        });
        relay.add_host(&host.pds);
    }
    for host in &hosts {
        eventually(host.name, || {
            let revs = revs_of(&consumer, &host.author.did);
            (revs.len() >= host.revs.len()).then_some(())
        });
        let connections = host.pds.cursors().len();
        assert!(connections <= 8, "a host that {}: {connections} connections", host.name);
    }
    for host in &hosts {
        assert_eq!(revs_of(&consumer, &host.author.did), host.revs, "a host that {}", host.name);
    }
}
