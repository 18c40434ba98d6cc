//! A corpus in a file, so that a benchmark does not sign the same events again and again.
//!
//! One line of JSON (spec, accounts, events, sizes), then the hosts' streams as they are.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::Path;

use ecdsa::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::{Corpus, CorpusAccount, CorpusSpec, EventMeta, HostLog, generate};

/// Changes with the layout of the file and with what the generator makes of a spec.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct FileHead {
    version: u32,
    spec: CorpusSpec,
    accounts: Vec<FileAccount>,
    events: Vec<EventMeta>,
    /// Where each message of each host ends.
    hosts: Vec<Vec<u64>>,
}

#[derive(Serialize, Deserialize)]
struct FileAccount {
    did: String,
    handle: String,
    host: u32,
    key: Vec<u8>,
}

/// The corpus from the file if it is there and of this spec; else a new one, kept in the file.
pub fn load_or_generate(spec: &CorpusSpec, path: Option<&Path>) -> Corpus {
    let Some(path) = path else { return generate(spec) };
    match read(path, spec) {
        Ok(Some(corpus)) => return corpus,
        Ok(None) => {}
        Err(error) => tracing::warn!("corpus file {}: {error}; made anew", path.display()),
    }
    let corpus = generate(spec);
    if let Err(error) = write(&corpus, path) {
        tracing::warn!("corpus file {} not kept: {error}", path.display());
    }
    corpus
}

pub fn write(corpus: &Corpus, path: &Path) -> io::Result<()> {
    let head = FileHead {
        version: VERSION,
        spec: corpus.spec.clone(),
        accounts: corpus
            .accounts
            .iter()
            .map(|account| FileAccount {
                did: account.did.clone(),
                handle: account.handle.clone(),
                host: account.host,
                key: account.key.to_bytes().to_vec(),
            })
            .collect(),
        events: corpus.events.clone(),
        hosts: corpus.hosts.iter().map(|host| host.ends.clone()).collect(),
    };
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer(&mut file, &head)?;
    file.write_all(b"\n")?;
    for host in &corpus.hosts {
        file.write_all(&host.bytes)?;
    }
    file.flush()
}

/// The corpus in the file; `None` if there is no file, or one of another spec or version.
pub fn read(path: &Path, spec: &CorpusSpec) -> io::Result<Option<Corpus>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    file.read_until(b'\n', &mut line)?;
    let head: FileHead = serde_json::from_slice(&line)?;
    if head.version != VERSION || head.spec != *spec {
        return Ok(None);
    }
    let mut hosts = Vec::with_capacity(head.hosts.len());
    for ends in head.hosts {
        let mut bytes = vec![0; ends.last().copied().unwrap_or(0) as usize];
        file.read_exact(&mut bytes)?;
        hosts.push(HostLog { bytes, ends, events: Vec::new() });
    }
    let accounts: Option<Vec<CorpusAccount>> = head.accounts.into_iter().map(account).collect();
    let mut accounts = accounts.ok_or(ErrorKind::InvalidData)?;
    for (number, event) in head.events.iter().enumerate() {
        let account = accounts.get_mut(event.account as usize).ok_or(ErrorKind::InvalidData)?;
        account.events.push(number as u32);
        let host = hosts.get_mut(event.host as usize).ok_or(ErrorKind::InvalidData)?;
        host.events.push(number as u32);
    }
    Ok(Some(Corpus { spec: head.spec, accounts, hosts, events: head.events }))
}

fn account(stored: FileAccount) -> Option<CorpusAccount> {
    let key = VerifyingKey::from_bytes(&stored.key).ok()?;
    Some(CorpusAccount {
        did: stored.did,
        handle: stored.handle,
        host: stored.host,
        curve: key.curve(),
        key,
        events: Vec::new(),
    })
}
