//! A reply of RESP that is made of several parts: of the keys of one command, or of all shards.

use crate::command::Args;
use crate::protocol::resp::Writer;

/// What has come of a reply so far.
#[derive(Debug)]
pub(in crate::shard) struct Gather {
    /// Parts that are still to come.
    left: u32,
    /// The client understands RESP3.
    resp3: bool,
    /// It wants no reply.
    noreply: bool,
    parts: Parts,
}

#[derive(Debug)]
enum Parts {
    /// Numbers, to be added up.
    Sum(i64),
    /// Arrays of strings, to be one.
    Array { count: u64, bytes: Vec<u8> },
    /// Strings, to be one.
    Text(Vec<u8>),
    /// Strings or nothing: the first string.
    Any(Option<Vec<u8>>),
    /// How many clients were disconnected: OK, if there was one.
    Killed(i64),
    /// Nothing is told.
    Nothing,
    /// Only errors are told.
    Done(Option<Vec<u8>>),
}

impl Gather {
    /// So many numbers, added up.
    pub(in crate::shard) fn sum(left: u32) -> Self {
        Self::new(left, false, Parts::Sum(0))
    }

    /// So many arrays, joined.
    pub(in crate::shard) fn array(left: u32) -> Self {
        Self::new(left, false, Parts::Array { count: 0, bytes: Vec::new() })
    }

    /// So many strings, joined.
    pub(in crate::shard) fn text(left: u32, resp3: bool) -> Self {
        Self::new(left, resp3, Parts::Text(Vec::new()))
    }

    /// The first of so many strings, which may be nothing.
    pub(in crate::shard) fn any(left: u32, resp3: bool) -> Self {
        Self::new(left, resp3, Parts::Any(None))
    }

    /// OK from so many shards.
    pub(in crate::shard) fn done(left: u32) -> Self {
        Self::new(left, false, Parts::Done(None))
    }

    /// Clients that so many shards have disconnected.
    pub(in crate::shard) fn killed(left: u32) -> Self {
        Self::new(left, false, Parts::Killed(0))
    }

    /// So many replies, of which none is told.
    pub(in crate::shard) fn nothing(left: u32) -> Self {
        Self::new(left, false, Parts::Nothing)
    }

    fn new(left: u32, resp3: bool, parts: Parts) -> Self {
        Self { left, resp3, noreply: false, parts }
    }

    /// The same, of which nothing is told if `quiet`.
    pub(in crate::shard) fn noreply(self, noreply: bool) -> Self {
        Self { noreply, ..self }
    }

    /// Takes a part, as it is encoded. True if it was the last.
    pub(super) fn add(&mut self, part: &[u8]) -> bool {
        self.left -= 1;
        match &mut self.parts {
            Parts::Sum(sum) | Parts::Killed(sum) => *sum += number(part).0,
            Parts::Array { count, bytes } => {
                let (more, body) = number(part);
                *count += more as u64;
                bytes.extend_from_slice(body);
            }
            Parts::Text(text) => text.extend_from_slice(string(part).unwrap_or_default()),
            Parts::Any(found) if found.is_none() => *found = string(part).map(<[u8]>::to_vec),
            Parts::Done(error) if part.starts_with(b"-") => *error = Some(part.to_vec()),
            Parts::Any(_) | Parts::Done(_) | Parts::Nothing => {}
        }
        self.left == 0
    }

    /// Writes the reply.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        if self.noreply {
            return;
        }
        let mut writer = Writer::new(out, self.resp3);
        match self.parts {
            Parts::Sum(sum) => writer.integer(sum),
            Parts::Killed(0) => writer.error("ERR No such client"),
            Parts::Killed(_) => writer.simple("OK"),
            Parts::Array { count, bytes } => {
                writer.array(count as usize);
                out.extend_from_slice(&bytes);
            }
            Parts::Text(text) => writer.verbatim(b"txt", &text),
            Parts::Any(Some(found)) => writer.bulk(&found),
            Parts::Any(None) => writer.null(),
            Parts::Done(Some(error)) => out.extend_from_slice(&error),
            Parts::Done(None) => writer.simple("OK"),
            Parts::Nothing => {}
        }
    }
}

/// The number in the first line of a reply, and what follows that line.
fn number(reply: &[u8]) -> (i64, &[u8]) {
    let end = reply.iter().position(|&b| b == b'\r').unwrap_or(reply.len());
    let digits = reply.get(1..end).and_then(|digits| std::str::from_utf8(digits).ok());
    (digits.and_then(|digits| digits.parse().ok()).unwrap_or(0), reply.get(end + 2..).unwrap_or_default())
}

/// The string of a reply, if it is one.
fn string(reply: &[u8]) -> Option<&[u8]> {
    reply.starts_with(b"$").then(|| Args::new(reply, 1).iter().next()).flatten().filter(|_| !reply.starts_with(b"$-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(mut gather: Gather, parts: &[&str]) -> String {
        let last = parts.iter().map(|part| gather.add(part.as_bytes())).collect::<Vec<_>>();
        assert_eq!(last.iter().filter(|&&last| last).count(), 1);
        assert_eq!(last.last(), Some(&true));
        let mut out = Vec::new();
        gather.finish(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn parts_become_one_reply() {
        assert_eq!(gathered(Gather::sum(3), &[":1\r\n", ":0\r\n", ":40\r\n"]), ":41\r\n");
        assert_eq!(gathered(Gather::array(2), &["*1\r\n$1\r\na\r\n", "*0\r\n"]), "*1\r\n$1\r\na\r\n");
        assert_eq!(gathered(Gather::text(2, false), &["$2\r\nab\r\n", "$1\r\nc\r\n"]), "$3\r\nabc\r\n");
        assert_eq!(gathered(Gather::any(2, false), &["$-1\r\n", "$1\r\nk\r\n"]), "$1\r\nk\r\n");
        assert_eq!(gathered(Gather::any(1, true), &["_\r\n"]), "_\r\n");
        assert_eq!(gathered(Gather::done(2), &["+OK\r\n", "-ERR no\r\n"]), "-ERR no\r\n");
        assert_eq!(gathered(Gather::done(1), &["+OK\r\n"]), "+OK\r\n");
    }
}
