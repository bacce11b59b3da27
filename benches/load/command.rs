//! One command over RESP, as redis-benchmark takes it: `__rand_int__` in a word stands for a random number.

use crate::driver::Load;
use crate::{below, seed};
use std::fmt::Write as _;

const PLACEHOLDER: &str = "__rand_int__";

/// The encoded command, with the places where numbers go.
pub struct Command {
    bytes: Vec<u8>,
    places: Vec<usize>,
    random: u64,
    numbers: u32,
    unsent: u64,
    /// First byte of the first reply that was not null
    kind: Option<u8>,
}

impl Command {
    /// `requests` times these words, with `numbers` different random numbers.
    pub fn new(words: &[String], numbers: u32, requests: u64) -> Self {
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            write!(text, "${}\r\n{word}\r\n", word.len()).expect("a String takes everything");
        }
        let places = text.match_indices(PLACEHOLDER).map(|(at, _)| at).collect();
        Self { bytes: text.into_bytes(), places, random: seed(), numbers, unsent: requests, kind: None }
    }
}

impl Load for Command {
    type Expected = ();

    fn push(&mut self, out: &mut Vec<u8>) -> Option<()> {
        self.unsent = self.unsent.checked_sub(1)?;
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for place in &self.places {
            let mut number = below(&mut self.random, self.numbers);
            for digit in out[start + place..][..PLACEHOLDER.len()].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        Some(())
    }

    /// Errors are wrong, and so is a reply of another type than the first; null is of every type.
    fn check(&mut self, bytes: &[u8], (): ()) -> Result<Option<usize>, String> {
        let Some(length) = reply_length(bytes)? else { return Ok(None) };
        let first = bytes[0];
        let is_kind = bytes.starts_with(b"$-1") || *self.kind.get_or_insert(first) == first;
        if first == b'-' || !is_kind {
            return Err(format!("unexpected reply {:?}", String::from_utf8_lossy(&bytes[..length])));
        }
        Ok(Some(length))
    }
}

/// Length of the reply at the start of `bytes` if it is complete: a line, a bulk string, or an array of replies.
fn reply_length(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(newline) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
    let line = newline + 1;
    let number = || -> Result<i64, String> {
        let digits = bytes.get(1..line - 2).and_then(|digits| str::from_utf8(digits).ok());
        let number = digits.and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| format!("not a length: {:?}", String::from_utf8_lossy(&bytes[..line])))
    };
    match bytes[0] {
        b'$' => {
            let end = line + usize::try_from(number()?).map_or(0, |length| length + 2);
            Ok((bytes.len() >= end).then_some(end))
        }
        b'*' => {
            let mut at = line;
            for _ in 0..number()? {
                match reply_length(&bytes[at..])? {
                    Some(length) => at += length,
                    None => return Ok(None),
                }
            }
            Ok(Some(at))
        }
        _ => Ok(Some(line)),
    }
}
