//! How a segment is written.
//!
//! ```text
//!   "RTSPOOL3" | shards 2 | for each: records 8, flows 8 before this segment | checksum 4
//!   length 4 | checksum 4 | shard 2 | count 2 | first number 8 | records of 124 bytes or more   a frame, and so on
//! ```
//!
//! In segments that begin with "RTSPOOL2" records have 122 bytes, and say nothing of applications. They are read, and not gone on
//! with.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::record::{Body, Record};

const MAGIC: &[u8; 8] = b"RTSPOOL3";
const OLDER: &[u8; 8] = b"RTSPOOL2";
/// What it begins with in every version.
const ANY_MAGIC: &[u8; 7] = b"RTSPOOL";
const ANOTHER: &str = "the spool is of another version of ringtap: let that one deliver what is in it, or name another directory";
/// Before a frame's payload, and what its payload begins with.
const HEAD: usize = 8;
const PREFIX: usize = 12;
/// No frame is longer: shards hand over up to 256 records together, of at most some 7 KiB.
const MOST: usize = 16 << 20;

/// What was appended for a shard, ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// Records: the next one's number.
    pub(crate) records: u64,
    pub(crate) flows: u64,
}

/// A segment that can be gone on with.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: File,
    pub(super) totals: Vec<Totals>,
    pub(super) version: Version,
}

/// How records are written in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Older,
    Current,
}

impl Version {
    /// Reads it off a segment's first bytes; `None` if they are not there, or say something else.
    pub(super) fn read(file: &mut impl Read) -> io::Result<Option<Self>> {
        let mut magic = [0; 8];
        if !fill(file, &mut magic)? {
            return Ok(None);
        }
        Ok(match &magic {
            MAGIC => Some(Self::Current),
            OLDER => Some(Self::Older),
            other if other.starts_with(ANY_MAGIC) => return Err(io::Error::other(ANOTHER)),
            _ => None,
        })
    }
}

pub(super) fn header(totals: &[Totals]) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend((totals.len() as u16).to_be_bytes());
    for Totals { records, flows } in totals {
        header.extend(records.to_be_bytes());
        header.extend(flows.to_be_bytes());
    }
    header.extend(crc32fast::hash(&header).to_be_bytes());
    header
}

/// The version of a segment, and the totals before it.
fn read_header(file: &mut impl Read) -> io::Result<Option<(Version, Vec<Totals>)>> {
    let Some(version) = Version::read(file)? else { return Ok(None) };
    let mut shards = [0; 2];
    if !fill(file, &mut shards)? {
        return Ok(None);
    }
    let magic = if version == Version::Current { MAGIC } else { OLDER };
    let start = [&magic[..], &shards].concat();
    let count = usize::from(u16::from_be_bytes(shards));
    let mut rest = vec![0; count * 16 + 4];
    if !fill(file, &mut rest)? {
        return Ok(None);
    }
    let (rest, sum) = rest.split_at(count * 16);
    if crc32fast::hash(&[&start[..], rest].concat()).to_be_bytes() != sum {
        return Ok(None);
    }
    let number = |bytes: &[u8]| u64::from_be_bytes(*bytes.first_chunk().expect("of eight"));
    let totals =
        rest.chunks(16).map(|pair| Totals { records: number(pair), flows: number(&pair[8..]) });
    Ok(Some((version, totals.collect())))
}

/// How long a segment's header is, and all of it.
pub(super) fn lengths(path: &Path) -> io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let totals = read_header(&mut file)?;
    // One that is damaged has nothing to be read.
    Ok((totals.map_or(len, |(_, totals)| header_len(totals.len())), len))
}

fn header_len(shards: usize) -> u64 {
    14 + 16 * shards as u64
}

pub(super) fn encode(out: &mut Vec<u8>, shard: u16, first: u64, bodies: &[Body]) {
    out.clear();
    out.extend([0; HEAD]);
    out.extend(shard.to_be_bytes());
    out.extend((bodies.len() as u16).to_be_bytes());
    out.extend(first.to_be_bytes());
    bodies.iter().for_each(|body| body.encode(out));
    let sum = crc32fast::hash(&out[HEAD..]);
    let len = (out.len() - HEAD) as u32;
    out[..4].copy_from_slice(&len.to_be_bytes());
    out[4..8].copy_from_slice(&sum.to_be_bytes());
}

/// The next frame's records, and its bytes; `None` where there is no whole one.
pub(super) fn read(
    file: &mut impl Read,
    version: Version,
) -> io::Result<Option<(Vec<Record>, u64)>> {
    let mut head = [0; HEAD];
    if !fill(file, &mut head)? {
        return Ok(None);
    }
    let number = |at: usize| u32::from_be_bytes(*head[at..].first_chunk().expect("of eight"));
    let len = number(0) as usize;
    if !(PREFIX..=MOST).contains(&len) {
        return Ok(None);
    }
    let mut payload = vec![0; len];
    if !fill(file, &mut payload)? || crc32fast::hash(&payload) != number(4) {
        return Ok(None);
    }
    let shard = u16::from_be_bytes([payload[0], payload[1]]);
    let count = u16::from_be_bytes([payload[2], payload[3]]);
    let first = u64::from_be_bytes(*payload[4..].first_chunk().expect("a prefix has twelve"));
    let mut rest = &payload[PREFIX..];
    let mut records = Vec::with_capacity(count.into());
    for sequence in (first..).take(count.into()) {
        let decoded = match version {
            Version::Current => Body::decode(rest),
            Version::Older => Body::decode_older(rest),
        };
        let Some((body, behind)) = decoded else { return Ok(None) };
        records.push(Record { shard, sequence, body });
        rest = behind;
    }
    Ok(rest.is_empty().then_some((records, (HEAD + len) as u64)))
}

/// Opens a segment to go on with: what is behind its last whole frame is cut off. `None` for one without a header.
pub(super) fn recover(path: &Path) -> io::Result<Option<Found>> {
    let mut file = super::options().append(true).open(path)?;
    let mut input = io::BufReader::new(&mut file);
    let Some((version, mut totals)) = read_header(&mut input)? else { return Ok(None) };
    let mut len = header_len(totals.len());
    while let Some((records, bytes)) = read(&mut input, version)? {
        len += bytes;
        for record in records {
            let shard = usize::from(record.shard);
            totals.resize(totals.len().max(shard + 1), Totals::default());
            totals[shard].records = record.sequence + 1;
            totals[shard].flows += u64::from(matches!(record.body, Body::Flow(_)));
        }
    }
    file.set_len(len)?;
    Ok(Some(Found { file, totals, version }))
}

/// Reads as many bytes as that; false at the end.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
