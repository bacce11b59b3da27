//! Traces: requests as columns in memory, parsed from files.
//!
//! [`parse`] takes the bytes of a file, which may be compressed by zstd. The formats:
//!
//! - CTR1, a columnar binary format ([`ctr`] draws it);
//! - text, `time,key,size[,ttl[,op]]` ([`csv`]).
//!
//! No input makes it panic, or allocate more than a small multiple of the file's length and of [`TRACE_BYTES_MAX`].

mod csv;
mod ctr;

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::io::Read;

/// Most bytes of a trace, decompressed: some fifty million requests.
pub const TRACE_BYTES_MAX: u64 = 1 << 30;

/// Interval between requests if a trace has no times, or if its time never changes.
const STEP_MS: u64 = 1;

/// Bound of times in a trace, ten thousand years from zero, so that no sum of times and TTLs overflows.
const SECONDS_MAX: i64 = 315_576_000_000;

/// Magic number of a zstd frame.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];

/// Why a file cannot be parsed as a trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// The compressed file cannot be read.
    #[error("zstd: {0}")]
    Zstd(String),
    /// The trace is longer than [`TRACE_BYTES_MAX`].
    #[error("more than {} MiB of trace; allowed: up to that", TRACE_BYTES_MAX >> 20)]
    TooLong,
    /// A CTR1 file is malformed.
    #[error("CTR1: {0}")]
    Ctr(String),
    /// A line of text cannot be parsed as a request.
    #[error("line {line}: {what}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// The mistake, and the values allowed.
        what: String,
    },
    /// The trace has no requests.
    #[error("no requests")]
    Empty,
}

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Looks a key up; in a simulation, a miss is followed by a fill.
    Get,
    /// Stores.
    Set,
    /// Removes.
    Delete,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Number of its key, below [`Trace::distinct`].
    pub key: u32,
    /// Milliseconds since the first request; never decreases.
    pub at_ms: u64,
    /// Bytes of key and value, as recorded.
    pub size_bytes: u32,
    /// TTL of what it stores; 0 for none.
    pub ttl_seconds: u32,
    /// Its operation.
    pub op: Op,
}

/// A column of numbers: one for all requests, one per key, or one per request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    Constant(u32),
    PerKey(Vec<u32>),
    PerRequest(Vec<u32>),
}

impl Column {
    fn at(&self, request: usize, key: u32) -> u32 {
        match self {
            Self::Constant(number) => *number,
            Self::PerKey(numbers) => numbers[key as usize],
            Self::PerRequest(numbers) => numbers[request],
        }
    }
}

/// The keys: their numbers alone, or texts, each with the offset of its end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Keys {
    Numbers { distinct: u32 },
    Texts { bytes: Vec<u8>, ends: Vec<u32> },
}

/// A trace of at least one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    keys: Keys,
    /// The key number of each request.
    requests: Vec<u32>,
    /// The time of each request; None if the time never changes.
    times_ms: Option<Vec<u64>>,
    sizes: Column,
    ttls: Column,
    /// None if all are gets.
    ops: Option<Vec<Op>>,
}

/// Reads a trace from the bytes of a file.
///
/// # Errors
/// The first mistake found, as one line.
pub fn parse(bytes: &[u8]) -> Result<Trace, TraceError> {
    let content;
    let bytes = if bytes.starts_with(ZSTD_MAGIC) {
        content = decompress(bytes, TRACE_BYTES_MAX)?;
        &content
    } else {
        bytes
    };
    if bytes.len() as u64 > TRACE_BYTES_MAX {
        return Err(TraceError::TooLong);
    }
    if bytes.starts_with(ctr::MAGIC) { ctr::parse(bytes) } else { csv::parse(bytes) }
}

/// Decompresses all frames, to `bytes_max` at most.
fn decompress(mut frames: &[u8], bytes_max: u64) -> Result<Vec<u8>, TraceError> {
    let mut content = Vec::new();
    let mut decoder = FrameDecoder::new();
    while !frames.is_empty() {
        let mut frame = StreamingDecoder::new_with_decoder(&mut frames, &mut decoder)
            .map_err(|e| TraceError::Zstd(e.to_string()))?;
        let room = bytes_max - content.len() as u64;
        frame.by_ref().take(room + 1).read_to_end(&mut content).map_err(|e| TraceError::Zstd(e.to_string()))?;
        if content.len() as u64 > bytes_max {
            return Err(TraceError::TooLong);
        }
        let checksum = decoder.get_checksum_from_data();
        if checksum.is_some() && checksum != decoder.get_calculated_checksum() {
            return Err(TraceError::Zstd("the checksum is not that of the content".into()));
        }
    }
    Ok(content)
}

impl Trace {
    /// Number of requests.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Always false: a trace has at least one request.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Number of distinct keys.
    pub fn distinct(&self) -> u32 {
        match &self.keys {
            Keys::Numbers { distinct } => *distinct,
            Keys::Texts { ends, .. } => ends.len() as u32,
        }
    }

    /// The requests, in order.
    pub fn requests(&self) -> impl Iterator<Item = Request> + '_ {
        let mut now = 0;
        self.requests.iter().enumerate().map(move |(i, &key)| {
            let at_ms = self.times_ms.as_ref().map_or(i as u64 * STEP_MS, |times| times[i]);
            // Recorded clocks sometimes step back; the engine's time must not.
            now = at_ms.max(now);
            Request {
                key,
                at_ms: now,
                size_bytes: self.sizes.at(i, key),
                ttl_seconds: self.ttls.at(i, key),
                op: self.ops.as_ref().map_or(Op::Get, |ops| ops[i]),
            }
        })
    }

    /// The bytes of a key: its text, or its number in eight bytes.
    pub fn key<'a>(&'a self, key: u32, number: &'a mut [u8; 8]) -> &'a [u8] {
        match &self.keys {
            Keys::Numbers { .. } => {
                *number = u64::from(key).to_le_bytes();
                number
            }
            Keys::Texts { bytes, ends } => {
                let start = (key as usize).checked_sub(1).map_or(0, |before| ends[before] as usize);
                &bytes[start..ends[key as usize] as usize]
            }
        }
    }

    /// Bytes of key and value as a cache stores them if sizes are divided by `scale`; the key is never shortened.
    pub fn user_bytes(&self, request: &Request, scale: u32) -> u64 {
        let key_bytes = self.key(request.key, &mut [0; 8]).len() as u64;
        u64::from(request.size_bytes / scale).max(key_bytes)
    }

    /// Bytes of the longest item.
    pub fn user_bytes_max(&self, scale: u32) -> u64 {
        self.requests().map(|r| self.user_bytes(&r, scale)).max().unwrap_or(0)
    }

    /// Bytes of all distinct items, each at the size at which it is first stored. A key that is only deleted has none.
    pub fn footprint_bytes(&self, scale: u32) -> u64 {
        let mut seen = vec![false; self.distinct() as usize];
        let mut sum = 0;
        for request in self.requests().filter(|r| r.op != Op::Delete) {
            if !std::mem::replace(&mut seen[request.key as usize], true) {
                sum += self.user_bytes(&request, scale);
            }
        }
        sum
    }
}

/// Times since the first request; None if they never change.
fn times_since_first(times_ms: Vec<i64>) -> Option<Vec<u64>> {
    let first = *times_ms.first()?;
    let changes = times_ms.iter().any(|&t| t > first);
    changes.then(|| times_ms.into_iter().map(|t| t.saturating_sub(first).max(0) as u64).collect())
}

#[cfg(test)]
mod tests;
