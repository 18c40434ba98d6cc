//! A full disk under the event log: hosts wait, everything is served, and it goes on by itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Consumer, Relay, corpus::Corpus, eventually};

/// A small file system of its own; only root can make one.
struct SmallDisk {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        fs::create_dir(&path).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=24m", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(&path).output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self { _directory: directory, path })
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// To the last byte.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096, 1] {
            let block = vec![7; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn wait_for_health(relay: &Relay, status: u16) {
    eventually(&format!("health {status}"), || {
        let reply = relay.get("/xrpc/_health");
        (reply.status == status && relay.get("/_health").status == status).then_some(())
    });
}

fn log_dir(path: &Path) -> String {
    path.join("log").display().to_string()
}

#[test]
fn on_a_full_disk_hosts_wait_and_all_is_served_also_after_a_restart() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let mut relay = Relay::start(&plc, &["--persist-dir", &log_dir(&disk.path)]);
    for pds in &hosts {
        relay.add_host(pds);
    }
    let third = |frames: &[(u64, Vec<u8>)]| frames.len() / 3;
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        pds.push_all(frames[..third(frames)].iter().cloned());
    }
    let first: usize = corpus.hosts.iter().map(|frames| third(frames)).sum();
    let live = Consumer::connect(relay.api, Some(0));
    live.wait_for(first);
    assert_eq!(relay.get("/xrpc/_health").status, 200);

    disk.fill();
    for (pds, frames) in hosts.iter().zip(&corpus.hosts) {
        pds.push_all(frames[third(frames)..].iter().cloned());
    }
    wait_for_health(&relay, 503);
    let reply = relay.get("/xrpc/_health");
    assert!(reply.body.contains("No space left"), "{}", reply.body);
    assert!(relay.metrics_text().contains("relayered_log_writable_count 0"));
    // Consumers come and are served what there is.
    let served = Consumer::connect(relay.api, Some(0)).wait_for(first);

    // A start on the full disk.
    relay.kill();
    relay.launch();
    let again = Consumer::connect(relay.api, Some(0)).wait_for(first);
    assert!(served[..first] == again[..first]);
    wait_for_health(&relay, 503);

    disk.empty();
    wait_for_health(&relay, 200);
    let all = Consumer::connect(relay.api, Some(0)).wait_for(corpus.event_count());
    corpus.assert_complete(&all);
    assert!(all[..first] == again[..first]);
    assert!(relay.metrics_text().contains("relayered_log_writable_count 1"));
    assert!(relay.terminate().success());
}
