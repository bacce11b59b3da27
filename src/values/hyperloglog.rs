//! HyperLogLogs: strings that estimate the number of distinct elements added to them, byte for byte compatible with
//! Redis.
//!
//! ```text
//! | "HYLL" | encoding | 0 0 0 | count: 8 bytes, little-endian | registers … |
//! 0        4          5       8                               16
//! ```
//!
//! There are 16,384 registers. 14 bits of an element's hash select a register, which keeps the maximum, over its
//! elements, of one plus the number of zeros that the remaining bits start with. The dense encoding (0) packs the
//! registers into six bits each, lowest bits first; the sparse encoding (1) consists of runs of equal registers
//! (`sparse.rs`). A sketch starts sparse and becomes dense when it exceeds 3,000 bytes or a register exceeds 32.
//!
//! The header caches the last estimate; its highest bit marks the cache as stale.
//!
//! The estimator is Ertl's: "New cardinality estimation algorithms for HyperLogLog sketches", arXiv:1702.01284.

mod sparse;

/// Registers of a sketch.
pub const REGISTERS: usize = 1 << INDEX_BITS;

/// Bits of a hash that select the register.
const INDEX_BITS: u32 = 14;

/// The remaining bits of a hash.
const RANK_BITS: u32 = 64 - INDEX_BITS;

const HEADER_BYTES: usize = 16;
const MAGIC: &[u8] = b"HYLL";
const ENCODING_AT: usize = 4;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;

/// Offset of the cached estimate in the header, the only bytes that [`count`] changes.
pub const COUNT: std::ops::Range<usize> = 8..HEADER_BYTES;

/// Flag in the last byte of the estimate: it is stale.
const COUNT_STALE: u8 = 0x80;

const REGISTER_BITS: usize = 6;
const REGISTER_MASK: u16 = (1 << REGISTER_BITS) - 1;
const DENSE_BYTES: usize = HEADER_BYTES + REGISTERS * REGISTER_BITS / 8;

/// A histogram of register values.
type Histogram = [u32; 1 << REGISTER_BITS];

/// The bytes are not a sketch, or do not describe 16,384 registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupted HyperLogLog")]
pub struct Corrupt;

/// An empty sketch.
pub fn create() -> Vec<u8> {
    let mut sketch = vec![0; HEADER_BYTES];
    sketch[..MAGIC.len()].copy_from_slice(MAGIC);
    sketch[ENCODING_AT] = SPARSE;
    sketch.extend_from_slice(&sparse::EMPTY);
    sketch
}

/// Whether a string has the header of a sketch; if not, commands reply WRONGTYPE. Sparse registers are not checked,
/// since that means reading them all, as the other functions do.
pub fn is_valid(sketch: &[u8]) -> bool {
    sketch.len() >= HEADER_BYTES
        && sketch.starts_with(MAGIC)
        && match sketch[ENCODING_AT] {
            DENSE => sketch.len() == DENSE_BYTES,
            SPARSE => true,
            _ => false,
        }
}

/// Whether a sketch has the dense encoding.
pub fn is_dense(sketch: &[u8]) -> bool {
    is_valid(sketch) && sketch[ENCODING_AT] == DENSE
}

/// Adds an element. Returns whether a register changed, and with it the string.
///
/// On an error, the string is as it was.
pub fn add(sketch: &mut Vec<u8>, element: &[u8]) -> Result<bool, Corrupt> {
    let (index, rank) = place(element);
    set(sketch, index, rank)
}

/// The cached estimate, if it is current: then [`count`] would return it and change nothing.
pub fn cached_count(sketch: &[u8]) -> Option<u64> {
    if !is_valid(sketch) {
        return None;
    }
    let count = u64::from_le_bytes(sketch[COUNT].try_into().expect("eight bytes"));
    (count >> 56 & u64::from(COUNT_STALE) == 0).then_some(count)
}

/// The estimated number of distinct elements, which is also cached in the header.
///
/// On an error, the string is as it was.
pub fn count(sketch: &mut [u8]) -> Result<u64, Corrupt> {
    if let Some(count) = cached_count(sketch) {
        return Ok(count);
    }
    let count = estimate_of(&histogram(sketch)?);
    sketch[COUNT].copy_from_slice(&count.to_le_bytes());
    Ok(count)
}

/// Merges the registers of a sketch into `registers`, keeping the maxima: the union, for PFMERGE and PFCOUNT of several
/// keys.
///
/// On an error, some of the registers may have been raised.
pub fn merge(registers: &mut [u8; REGISTERS], sketch: &[u8]) -> Result<(), Corrupt> {
    if !is_valid(sketch) {
        return Err(Corrupt);
    }
    let body = &sketch[HEADER_BYTES..];
    if sketch[ENCODING_AT] == DENSE {
        for (index, register) in registers.iter_mut().enumerate() {
            *register = dense_register(body, index).max(*register);
        }
        return Ok(());
    }
    let mut first = 0;
    for run in sparse::runs(body) {
        let run = run?;
        let covered = registers.get_mut(first..first + run.length).ok_or(Corrupt)?;
        if run.value > 0 {
            covered.iter_mut().for_each(|register| *register = run.value.max(*register));
        }
        first += run.length;
    }
    if first == REGISTERS { Ok(()) } else { Err(Corrupt) }
}

/// The estimated number of distinct elements of merged registers.
pub fn estimate(registers: &[u8; REGISTERS]) -> u64 {
    let mut histogram: Histogram = [0; 1 << REGISTER_BITS];
    for &register in registers {
        histogram[usize::from(register) & usize::from(REGISTER_MASK)] += 1;
    }
    estimate_of(&histogram)
}

/// Raises the registers of a sketch to merged ones and marks its estimate as stale: the last step of PFMERGE. As in
/// Redis, the sketch becomes dense if one of the merged ones was.
///
/// On an error, some of the registers may have been raised. No register can be larger than 63.
pub fn store(sketch: &mut Vec<u8>, registers: &[u8; REGISTERS], dense: bool) -> Result<(), Corrupt> {
    if !is_valid(sketch) {
        return Err(Corrupt);
    }
    if dense {
        make_dense(sketch)?;
    }
    for (index, &register) in registers.iter().enumerate().filter(|(_, register)| **register > 0) {
        set(sketch, index, register)?;
    }
    sketch[COUNT.end - 1] |= COUNT_STALE;
    Ok(())
}

/// Raises a register, if the value is larger. Returns whether it was.
fn set(sketch: &mut Vec<u8>, index: usize, value: u8) -> Result<bool, Corrupt> {
    if !is_valid(sketch) {
        return Err(Corrupt);
    }
    let changed = if sketch[ENCODING_AT] == DENSE {
        dense_set(&mut sketch[HEADER_BYTES..], index, value)
    } else {
        match sparse::set(sketch, HEADER_BYTES, index, value)? {
            sparse::Outcome::Same => false,
            sparse::Outcome::Changed => true,
            sparse::Outcome::Full => {
                make_dense(sketch)?;
                dense_set(&mut sketch[HEADER_BYTES..], index, value)
            }
        }
    };
    if changed {
        sketch[COUNT.end - 1] |= COUNT_STALE;
    }
    Ok(changed)
}

/// Converts the sketch to the dense encoding; on an error, it is unchanged.
fn make_dense(sketch: &mut Vec<u8>) -> Result<(), Corrupt> {
    if sketch[ENCODING_AT] == DENSE {
        return Ok(());
    }
    let mut dense = vec![0; DENSE_BYTES];
    dense[..HEADER_BYTES].copy_from_slice(&sketch[..HEADER_BYTES]);
    dense[ENCODING_AT] = DENSE;
    let mut first = 0;
    for run in sparse::runs(&sketch[HEADER_BYTES..]) {
        let run = run?;
        let end = first + run.length;
        if end > REGISTERS {
            return Err(Corrupt);
        }
        if run.value > 0 {
            for index in first..end {
                dense_set(&mut dense[HEADER_BYTES..], index, run.value);
            }
        }
        first = end;
    }
    if first != REGISTERS {
        return Err(Corrupt);
    }
    *sketch = dense;
    Ok(())
}

/// A register of the dense encoding. The last one lies within the last byte.
#[inline]
fn dense_register(body: &[u8], index: usize) -> u8 {
    let bit = index * REGISTER_BITS;
    let (low, high) = (body[bit / 8], body.get(bit / 8 + 1).copied().unwrap_or(0));
    (u16::from_le_bytes([low, high]) >> (bit % 8) & REGISTER_MASK) as u8
}

/// Raises a register of the dense encoding. Returns whether it was lower before.
#[inline]
fn dense_set(body: &mut [u8], index: usize, value: u8) -> bool {
    if dense_register(body, index) >= value {
        return false;
    }
    assert!(u16::from(value) <= REGISTER_MASK, "six bits");
    let bit = index * REGISTER_BITS;
    let at = bit / 8;
    let [low_mask, high_mask] = (REGISTER_MASK << (bit % 8)).to_le_bytes();
    let [low, high] = (u16::from(value) << (bit % 8)).to_le_bytes();
    body[at] = body[at] & !low_mask | low;
    if high_mask != 0 {
        body[at + 1] = body[at + 1] & !high_mask | high;
    }
    true
}

fn histogram(sketch: &[u8]) -> Result<Histogram, Corrupt> {
    if !is_valid(sketch) {
        return Err(Corrupt);
    }
    let mut histogram: Histogram = [0; 1 << REGISTER_BITS];
    let body = &sketch[HEADER_BYTES..];
    if sketch[ENCODING_AT] == DENSE {
        // Three bytes are four registers.
        for bytes in body.chunks_exact(3) {
            let four = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
            for register in 0..4 {
                histogram[(four >> (register * REGISTER_BITS)) as usize & usize::from(REGISTER_MASK)] += 1;
            }
        }
        return Ok(histogram);
    }
    let mut registers = 0;
    for run in sparse::runs(body) {
        let run = run?;
        histogram[usize::from(run.value)] += run.length as u32;
        registers += run.length;
        if registers > REGISTERS {
            return Err(Corrupt);
        }
    }
    if registers == REGISTERS { Ok(histogram) } else { Err(Corrupt) }
}

/// Algorithm 6 of Ertl's paper.
fn estimate_of(histogram: &Histogram) -> u64 {
    /// 1 / (2 ln 2): the bias for infinitely many registers.
    const ALPHA: f64 = 0.721_347_520_444_481_7;

    let m = REGISTERS as f64;
    let largest = RANK_BITS as usize + 1;
    let mut z = m * tau((m - f64::from(histogram[largest])) / m);
    for &registers in histogram[1..largest].iter().rev() {
        z += f64::from(registers);
        z *= 0.5;
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    (ALPHA * m * m / z).round() as u64
}

/// Ertl's sigma: corrects for registers that are still zero, for small counts.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let mut y = 1.0;
    let mut z = x;
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// Ertl's tau: corrects for registers that are full, for large counts.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let mut y = 1.0;
    let mut z = 1.0 - x;
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// The register of an element, and the value to raise it to, from 1 to 51.
#[inline]
fn place(element: &[u8]) -> (usize, u8) {
    /// The seed that Redis uses for all sketches.
    const SEED: u64 = 0xadc8_3b19;

    let hash = murmur(element, SEED);
    // A sentinel bit above the counted ones, so that the count ends.
    let rest = hash >> INDEX_BITS | 1 << RANK_BITS;
    (hash as usize & (REGISTERS - 1), rest.trailing_zeros() as u8 + 1)
}

/// MurmurHash64A, by Austin Appleby (public domain).
#[inline]
fn murmur(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;

    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> R;
        hash = (hash ^ word.wrapping_mul(M)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(M);
    }
    hash ^= hash >> R;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> R
}

#[cfg(test)]
mod tests;
