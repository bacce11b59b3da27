//! The sparse encoding of registers: runs of equal registers, in one or two bytes each.
//!
//! ```text
//! 00llllll           zero, 1–64 registers
//! 01llllll llllllll  zero, 1–16,384 registers
//! 1vvvvvll           a value of 1–32, 1–4 registers
//! ```
//!
//! Lengths and values are stored minus one. Registers can be encoded in several ways; this module produces Redis's, so
//! that servers with equal elements have equal bytes.

use super::{Corrupt, REGISTERS};

/// All registers zero.
pub(super) const EMPTY: [u8; 2] = long_zero(REGISTERS);

/// A sketch that would exceed this many bytes, header included, becomes dense (`hll-sparse-max-bytes`).
const SKETCH_BYTES_MAX: usize = 3_000;

const VALUE_MAX: u8 = 32;
const VALUE_LENGTH_MAX: usize = 4;
const ZERO_LENGTH_MAX: usize = 64;

/// Number of runs after a change that are searched for neighbours to merge.
const JOIN_RUNS_MAX: usize = 5;

/// A run of equal registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub value: u8,
    /// Number of registers.
    pub length: usize,
    /// Bytes of its encoding.
    pub bytes: usize,
}

/// The outcome of raising a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The register is not lower than the value.
    Same,
    Changed,
    /// This encoding cannot represent the result; nothing has changed.
    Full,
}

/// The runs of a body.
pub(super) fn runs(mut body: &[u8]) -> impl Iterator<Item = Result<Run, Corrupt>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let run = first(body);
        body = run.map_or(&[], |run| &body[run.bytes..]);
        Some(run)
    })
}

/// The first run of a body.
#[inline]
fn first(body: &[u8]) -> Result<Run, Corrupt> {
    match *body {
        [byte, ..] if byte & 0x80 != 0 => {
            Ok(Run { value: (byte >> 2 & 31) + 1, length: usize::from(byte & 3) + 1, bytes: 1 })
        }
        [byte, ..] if byte & 0x40 == 0 => Ok(Run { value: 0, length: usize::from(byte) + 1, bytes: 1 }),
        [high, low, ..] => {
            let length = usize::from(u16::from_be_bytes([high & 0x3f, low])) + 1;
            Ok(Run { value: 0, length, bytes: 2 })
        }
        _ => Err(Corrupt),
    }
}

const fn value(value: u8, length: usize) -> u8 {
    0x80 | (value - 1) << 2 | (length as u8 - 1)
}

const fn long_zero(length: usize) -> [u8; 2] {
    let [high, low] = ((length - 1) as u16).to_be_bytes();
    [high | 0x40, low]
}

/// Raises a register if it is lower. The runs start at `start`.
pub(super) fn set(sketch: &mut Vec<u8>, start: usize, index: usize, raised: u8) -> Result<Outcome, Corrupt> {
    if raised > VALUE_MAX {
        return Ok(Outcome::Full);
    }
    let (mut before, mut at, mut from) = (None, start, 0);
    let run = loop {
        let run = first(&sketch[at..])?;
        if index < from + run.length {
            break run;
        }
        before = Some(at);
        at += run.bytes;
        from += run.length;
    };
    if run.value >= raised {
        return Ok(Outcome::Same);
    }
    if run.length == 1 && run.bytes == 1 {
        sketch[at] = value(raised, 1);
    } else {
        let split = Split::around(run, index - from, raised);
        let length = sketch.len() - run.bytes + split.length;
        if split.length > run.bytes && length > SKETCH_BYTES_MAX {
            return Ok(Outcome::Full);
        }
        sketch.splice(at..at + run.bytes, split.bytes[..split.length].iter().copied());
    }
    join(sketch, before.unwrap_or(start));
    Ok(Outcome::Changed)
}

/// The up to three runs that a run becomes when one of its registers is raised.
struct Split {
    bytes: [u8; 5],
    length: usize,
}

impl Split {
    fn around(run: Run, index: usize, raised: u8) -> Self {
        let mut split = Self { bytes: [0; 5], length: 0 };
        split.push(run.value, index);
        split.push(raised, 1);
        split.push(run.value, run.length - index - 1);
        split
    }

    fn push(&mut self, of: u8, length: usize) {
        let bytes: &[u8] = match (of, length) {
            (_, 0) => return,
            (0, ..=ZERO_LENGTH_MAX) => &[length as u8 - 1],
            (0, _) => &long_zero(length),
            _ => &[value(of, length)],
        };
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}

/// Merges neighbouring runs of equal value, among the first few from `at` on.
fn join(sketch: &mut Vec<u8>, mut at: usize) {
    for _ in 0..JOIN_RUNS_MAX {
        let Some(Ok(run)) = sketch.get(at..).map(first) else { return };
        if run.value > 0
            && let Ok(next) = first(&sketch[at + 1..])
            && next.value == run.value
            && run.length + next.length <= VALUE_LENGTH_MAX
        {
            sketch[at] = value(run.value, run.length + next.length);
            sketch.remove(at + 1);
        } else {
            at += run.bytes;
        }
    }
}
