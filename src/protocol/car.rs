//! CAR version 1: a header with roots, then blocks, each behind its CID.
//!
//! [`CarReader`] walks the bytes. [`BlockTable`] is the table by which blocks are found: it is
//! owned by whoever handles events and reused for each of them without allocation;
//! [`BlockTable::load`] fills it, checking each block's hash once, and gives a [`BlockMap`]. [`BlockHasher`]
//! does so for many files, with the hashes of all their blocks made before, many at once.

use std::hash::{BuildHasher, RandomState};

use ecdsa::sha256::Hasher;

use crate::{
    cbor::{self, Reader},
    cid::{CID_BYTES, Cid},
    error::{DecodeError, DecodeErrorKind as Kind},
};

/// A commit of 200 operations needs some thousands of blocks at most.
pub const BLOCKS_MAX: usize = 16_384;
const ROOTS_MAX: u32 = 64;
const HEADER_BYTES_MAX: u64 = 4_096;

/// An iterator over the blocks of a CAR file. It does not check hashes.
#[derive(Clone, Debug)]
pub struct CarReader<'a> {
    bytes: &'a [u8],
    at: usize,
    root: Cid,
    failed: bool,
}

/// A block, with its place in the CAR file.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    pub cid: Cid,
    pub data: &'a [u8],
    /// Offset of `data` in the CAR file.
    pub offset: usize,
}

impl<'a> CarReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (length, start) = varint(bytes, 0)?;
        if length > HEADER_BYTES_MAX {
            return Err(DecodeError::new(Kind::Car, 0));
        }
        let end = start + length as usize;
        let header = bytes.get(start..end).ok_or(DecodeError::new(Kind::Truncated, bytes.len()))?;
        let root = read_header(header).map_err(|error| error.shifted(start))?;
        Ok(Self { bytes, at: end, root, failed: false })
    }

    /// The first root: for an event, the commit.
    pub fn root(&self) -> Cid {
        self.root
    }

    fn read_block(&mut self) -> Result<Block<'a>, DecodeError> {
        let (length, start) = varint(self.bytes, self.at)?;
        let rest = &self.bytes[start..];
        if length > rest.len() as u64 {
            return Err(DecodeError::new(Kind::Truncated, start));
        }
        let (cid, data) = rest[..length as usize]
            .split_at_checked(CID_BYTES)
            .ok_or(DecodeError::new(Kind::Cid, start))?;
        let cid = Cid::parse(cid).map_err(|error| error.shifted(start))?;
        self.at = start + length as usize;
        Ok(Block { cid, data, offset: start + CID_BYTES })
    }
}

impl<'a> Iterator for CarReader<'a> {
    type Item = Result<Block<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.at == self.bytes.len() {
            return None;
        }
        let block = self.read_block();
        self.failed = block.is_err();
        Some(block)
    }
}

/// `{roots: [link, …], version: 1}`; gives the first root.
fn read_header(header: &[u8]) -> Result<Cid, DecodeError> {
    let mut reader = Reader::new(header);
    let mut keys = reader.map()?;
    let (mut root, mut version) = (None, None);
    while let Some(key) = keys.next(&mut reader)? {
        match key {
            "roots" => {
                let count = reader.array()?;
                if count > ROOTS_MAX {
                    return Err(reader.error(Kind::Length));
                }
                for _ in 0..count {
                    let link = reader.link()?;
                    root.get_or_insert(link);
                }
            }
            "version" => version = Some(reader.integer()?),
            _ => reader.skip()?,
        }
    }
    reader.finish()?;
    match (root, version) {
        // The root is a commit, which is DAG-CBOR.
        (Some(root), Some(1)) if root.is_dag_cbor() => Ok(root),
        _ => Err(DecodeError::new(Kind::Car, 0)),
    }
}

/// An unsigned LEB128 number in its shortest form, and the offset behind it.
#[inline]
fn varint(bytes: &[u8], at: usize) -> Result<(u64, usize), DecodeError> {
    let mut value = 0u64;
    for (index, byte) in bytes[at..].iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let minimal = *byte != 0 || index == 0;
            let end = at + index + 1;
            return if minimal { Ok((value, end)) } else { Err(DecodeError::new(Kind::Car, at)) };
        }
    }
    let kind = if bytes.len() - at < 9 { Kind::Truncated } else { Kind::Car };
    Err(DecodeError::new(kind, at))
}

/// Appends the CAR header with one root.
pub fn write_header(out: &mut Vec<u8>, root: &Cid) {
    let mut header = Vec::with_capacity(64);
    cbor::write::map(&mut header, 2);
    cbor::write::text(&mut header, "roots");
    cbor::write::array(&mut header, 1);
    cbor::write::link(&mut header, root);
    cbor::write::text(&mut header, "version");
    cbor::write::unsigned(&mut header, 1);
    write_varint(out, header.len() as u64);
    out.extend_from_slice(&header);
}

/// Appends a block.
pub fn write_block(out: &mut Vec<u8>, cid: &Cid, data: &[u8]) {
    write_varint(out, (CID_BYTES + data.len()) as u64);
    out.extend_from_slice(cid.as_bytes());
    out.extend_from_slice(data);
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u32,
    length: u32,
}

/// A hash table from a block's digest to its place, kept from event to event.
///
/// Digests are the sender's to choose, so slots are picked by a secret multiplier: a sender cannot
/// make blocks collide on purpose.
#[derive(Debug)]
pub struct BlockTable {
    /// Index into `places` plus one; zero is free. The length is a power of two.
    slots: Vec<u32>,
    places: Vec<Place>,
    secret: [u64; 2],
}

impl Default for BlockTable {
    fn default() -> Self {
        let state = RandomState::new();
        let secret = [state.hash_one(1) | 1, state.hash_one(2) | 1];
        Self { slots: Vec::new(), places: Vec::new(), secret }
    }
}

/// The blocks of one CAR file, found by CID. Each block's bytes have been checked against its CID.
#[derive(Clone, Copy, Debug)]
pub struct BlockMap<'a> {
    table: &'a BlockTable,
    bytes: &'a [u8],
    root: Cid,
}

/// Splits CAR files into blocks and hashes the blocks of many files together. Its room is used again.
#[derive(Debug, Default)]
pub struct BlockHasher {
    cars: Vec<Car<'static>>,
    blocks: Vec<Place>,
    /// For each block, the number of its file.
    owners: Vec<u32>,
    digests: Vec<[u8; 32]>,
    hasher: Hasher,
}

/// Several CAR files, the blocks of which have been hashed.
#[derive(Debug)]
pub struct Cars<'a> {
    cars: Vec<Car<'a>>,
    room: &'a mut BlockHasher,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Car<'a> {
    bytes: &'a [u8],
    root: Result<Cid, DecodeError>,
    /// The number of its first block, and of the one behind its last.
    blocks: (u32, u32),
    /// Why there is no block behind these, if that is not the end.
    broken: Option<DecodeError>,
}

impl BlockHasher {
    /// Splits the files and hashes their blocks. What is wrong with a file is told when it is loaded.
    pub fn hash<'a>(&'a mut self, files: impl Iterator<Item = &'a [u8]>) -> Cars<'a> {
        let mut cars: Vec<Car<'a>> = std::mem::take(&mut self.cars);
        self.blocks.clear();
        self.owners.clear();
        cars.extend(files.map(|bytes| self.split(bytes)));
        for (number, car) in cars.iter().enumerate() {
            self.owners.resize(car.blocks.1 as usize, number as u32);
        }
        let Self { blocks, owners, digests, hasher, .. } = self;
        let block = |at: usize| blocks[at].data(cars[owners[at] as usize].bytes);
        hasher.hash(blocks.len(), block, digests);
        Cars { cars, room: self }
    }

    fn split<'a>(&mut self, bytes: &'a [u8]) -> Car<'a> {
        let first = self.blocks.len() as u32;
        let mut car = Car { bytes, root: Err(TOO_LONG), blocks: (first, first), broken: None };
        if u32::try_from(bytes.len()).is_ok() {
            match CarReader::new(bytes) {
                Ok(reader) => {
                    car.root = Ok(reader.root());
                    car.broken = self.read_blocks(reader).err();
                }
                Err(error) => car.root = Err(error),
            }
        }
        car.blocks.1 = self.blocks.len() as u32;
        car
    }

    fn read_blocks(&mut self, reader: CarReader<'_>) -> Result<(), DecodeError> {
        for block in reader {
            self.blocks.push(Place::of(&block?));
        }
        Ok(())
    }
}

impl Cars<'_> {
    /// The blocks of one of the files, in their order of [`BlockHasher::hash`]. As
    /// [`BlockTable::load`].
    ///
    /// # Panics
    /// If there are not as many files.
    pub fn load<'t>(
        &'t self,
        number: usize,
        table: &'t mut BlockTable,
    ) -> Result<BlockMap<'t>, DecodeError> {
        let car = &self.cars[number];
        let root = car.root?;
        table.clear();
        let blocks = car.blocks.0 as usize..car.blocks.1 as usize;
        let digests = &self.room.digests[blocks.clone()];
        for (place, digest) in self.room.blocks[blocks].iter().zip(digests) {
            table.insert(car.bytes, *place, || place.digest(car.bytes) == digest)?;
        }
        match car.broken {
            Some(error) => Err(error),
            None => Ok(BlockMap { table, bytes: car.bytes, root }),
        }
    }
}

impl Drop for Cars<'_> {
    fn drop(&mut self) {
        self.room.cars = emptied(std::mem::take(&mut self.cars));
    }
}

/// The same room for files of another time. (Collecting into a vector of the same type is done in
/// place.)
fn emptied(mut cars: Vec<Car<'_>>) -> Vec<Car<'static>> {
    cars.clear();
    cars.into_iter().map_while(|_| None).collect()
}

const TOO_LONG: DecodeError = DecodeError { kind: Kind::Length, offset: 0 };

impl BlockTable {
    /// Reads a CAR file, checks the hash of each block, and forgets what was loaded before.
    pub fn load<'a>(&'a mut self, car: &'a [u8]) -> Result<BlockMap<'a>, DecodeError> {
        if u32::try_from(car.len()).is_err() {
            return Err(TOO_LONG);
        }
        let reader = CarReader::new(car)?;
        let root = reader.root();
        self.clear();
        for block in reader {
            let block = block?;
            self.insert(car, Place::of(&block), || block.cid.matches(block.data))?;
        }
        Ok(BlockMap { table: self, bytes: car, root })
    }

    /// Frees what a large event took, so that one such event does not hold memory forever.
    fn clear(&mut self) {
        const SLOTS_KEPT: usize = 1_024;
        if self.slots.len() > SLOTS_KEPT {
            self.slots = Vec::new();
            self.places = Vec::new();
        }
        self.places.clear();
        self.slots.fill(0);
    }

    #[inline]
    fn slot(&self, digest: &[u8]) -> usize {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&digest[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let mixed = (word(0) ^ self.secret[1])
            .wrapping_mul(self.secret[0])
            .wrapping_add(word(8).wrapping_mul(self.secret[1]));
        (mixed >> 32) as usize & (self.slots.len() - 1)
    }

    /// `is_right`: whether the block's bytes have the hash that stands before them.
    #[inline]
    fn insert(
        &mut self,
        car: &[u8],
        block: Place,
        is_right: impl FnOnce() -> bool,
    ) -> Result<(), DecodeError> {
        let broken = DecodeError::new(Kind::BlockHash, block.offset as usize);
        if (self.places.len() + 1) * 2 > self.slots.len() {
            self.grow(car);
        }
        let digest = block.digest(car);
        let mut slot = self.slot(digest);
        while let Some(index) = self.slots[slot].checked_sub(1) {
            let place = self.places[index as usize];
            if place.digest(car) == digest {
                // The same block again: equal bytes need no second hash.
                return if place.data(car) == block.data(car) { Ok(()) } else { Err(broken) };
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        if !is_right() {
            return Err(broken);
        }
        if self.places.len() == BLOCKS_MAX {
            return Err(DecodeError::new(Kind::BlocksTooMany, block.offset as usize));
        }
        self.places.push(block);
        self.slots[slot] = self.places.len() as u32;
        Ok(())
    }

    fn grow(&mut self, car: &[u8]) {
        let slots = (self.slots.len() * 2).max(64);
        self.slots.clear();
        self.slots.resize(slots, 0);
        for index in 0..self.places.len() {
            let mut slot = self.slot(self.places[index].digest(car));
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (slots - 1);
            }
            self.slots[slot] = index as u32 + 1;
        }
    }

    #[inline]
    fn find(&self, car: &[u8], digest: &[u8]) -> Option<Place> {
        if self.slots.is_empty() {
            return None;
        }
        let mut slot = self.slot(digest);
        while let Some(index) = self.slots[slot].checked_sub(1) {
            let place = self.places[index as usize];
            if place.digest(car) == digest {
                return Some(place);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        None
    }
}

impl Place {
    fn of(block: &Block<'_>) -> Self {
        Self { offset: block.offset as u32, length: block.data.len() as u32 }
    }

    #[inline]
    fn data(self, car: &[u8]) -> &[u8] {
        &car[self.offset as usize..][..self.length as usize]
    }

    /// The digest stands in the CID, right in front of the block's bytes.
    #[inline]
    fn digest(self, car: &[u8]) -> &[u8] {
        &car[self.offset as usize - 32..self.offset as usize]
    }
}

impl<'a> BlockMap<'a> {
    /// The first root of the CAR file.
    pub fn root(&self) -> Cid {
        self.root
    }

    /// The bytes of a block. The codec plays no part: it says how to read, not what is there.
    #[inline]
    pub fn get(&self, cid: &Cid) -> Option<&'a [u8]> {
        let place = self.table.find(self.bytes, &cid.as_bytes()[4..])?;
        Some(place.data(self.bytes))
    }

    /// The bytes of a DAG-CBOR block.
    #[inline]
    pub fn get_dag_cbor(&self, cid: &Cid) -> Option<&'a [u8]> {
        if cid.is_dag_cbor() { self.get(cid) } else { None }
    }

    /// How many different blocks there are.
    pub fn len(&self) -> usize {
        self.table.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.places.is_empty()
    }
}
