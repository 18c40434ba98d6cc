//! Writes CAR v1: a header with one root, then blocks.

use protocol::cid::Cid;

use super::cbor;

/// A CAR under construction.
#[derive(Clone, Debug)]
pub struct CarWriter {
    bytes: Vec<u8>,
}

impl CarWriter {
    pub fn new(root: &Cid) -> Self {
        let mut header = Vec::with_capacity(58);
        cbor::map(2, &mut header);
        cbor::text("roots", &mut header);
        cbor::array(1, &mut header);
        cbor::link(root, &mut header);
        cbor::text("version", &mut header);
        cbor::unsigned(1, &mut header);
        let mut bytes = Vec::with_capacity(4096);
        varint(header.len() as u64, &mut bytes);
        bytes.extend(&header);
        Self { bytes }
    }

    pub fn block(&mut self, cid: &Cid, data: &[u8]) {
        varint((cid.as_bytes().len() + data.len()) as u64, &mut self.bytes);
        self.bytes.extend(cid.as_bytes());
        self.bytes.extend(data);
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
