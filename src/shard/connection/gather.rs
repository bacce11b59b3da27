//! A reply that is merged from parts: of the keys of one command, or of all shards.

use crate::command::Part;
use crate::command::table::Merge;
use crate::protocol::resp::Writer;
use crate::shard::faults::{self, Fault};

/// The parts that have come of a reply.
#[derive(Debug)]
pub(in crate::shard) struct Gather {
    /// Parts that are still to come.
    left: u32,
    merge: Merge,
    /// The reply is encoded as RESP3.
    resp3: bool,
    /// The reply is suppressed.
    noreply: bool,
    /// The sum of the counts; of arrays, the number of elements.
    count: i64,
    /// Elements, or text.
    bytes: Vec<u8>,
    /// The rank of the string in `bytes`, if one was drawn.
    rank: Option<u64>,
    /// The cursor behind the pages that have come.
    cursor: u64,
    /// The text of the first error: it is the reply, whatever the other parts are.
    error: Option<Vec<u8>>,
}

impl Gather {
    /// Bytes of memory that it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// A reply merged from `parts` parts.
    pub(in crate::shard) fn new(merge: Merge, parts: u32) -> Self {
        debug_assert!(parts > 0, "a reply without parts would never be complete");
        Self {
            left: parts,
            merge,
            resp3: false,
            noreply: false,
            count: 0,
            bytes: Vec::new(),
            rank: None,
            cursor: 0,
            error: None,
        }
    }

    /// The reply for this client.
    pub(in crate::shard) fn answering(self, resp3: bool, noreply: bool) -> Self {
        Self { resp3, noreply, ..self }
    }

    /// True for a command that is executed in slices: the connection's next commands wait for it.
    pub(super) fn is_sliced(&self) -> bool {
        matches!(self.merge, Merge::Array | Merge::Slices)
    }

    /// Takes the bytes that have come, if they need not wait for the rest of the reply.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        if self.merge == Merge::Slices { std::mem::take(&mut self.bytes) } else { Vec::new() }
    }

    /// Merges a part, whose bytes are `bytes`; with `more`, it is a slice of one. True if no other is to come.
    pub(super) fn add(&mut self, part: Part, bytes: &[u8], more: bool) -> bool {
        self.left -= u32::from(!more);
        match part {
            Part::Count(count) if faults::has(Fault::MiscountedPart) => self.count += 2 * count,
            Part::Count(count) => self.count += count,
            Part::Elements(count) => {
                self.count += count as i64;
                self.bytes.extend_from_slice(bytes);
            }
            Part::Text => self.bytes.extend_from_slice(bytes),
            Part::Drawn(rank) if self.rank.is_none_or(|lowest| rank < lowest) => {
                self.rank = Some(rank);
                self.bytes.clear();
                self.bytes.extend_from_slice(bytes);
            }
            Part::Page { elements, next, .. } => {
                self.count += i64::from(elements);
                self.cursor = next;
                self.bytes.extend_from_slice(bytes);
            }
            Part::Error if self.error.is_none() => self.error = Some(bytes.to_vec()),
            Part::Drawn(_) | Part::Nothing | Part::Done | Part::Error => {}
        }
        self.left == 0
    }

    /// So many parts will not come, and the reply is suppressed. True if no other part is still to come.
    pub(super) fn forgo(&mut self, parts: u32) -> bool {
        self.left -= parts;
        self.noreply = true;
        self.left == 0
    }

    /// Writes the reply.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        if self.noreply {
            return;
        }
        if self.merge == Merge::Slices {
            return out.extend_from_slice(&self.bytes);
        }
        if self.merge == Merge::Stats {
            out.extend_from_slice(&self.bytes);
            out.extend_from_slice(b"END\r\n");
            return;
        }
        let mut writer = Writer::new(out, self.resp3);
        if let Some(error) = self.error {
            return writer.error(&error);
        }
        match self.merge {
            Merge::Sum => writer.integer(self.count),
            Merge::Killed if self.count == 0 => writer.error("ERR No such client"),
            Merge::Killed | Merge::Status => writer.simple("OK"),
            Merge::Array | Merge::InOrder => {
                writer.array(self.count as usize);
                out.extend_from_slice(&self.bytes);
            }
            Merge::Text | Merge::Stats | Merge::Slices => writer.verbatim(b"txt", &self.bytes),
            Merge::Drawn if self.rank.is_some() => writer.bulk(&self.bytes),
            Merge::Drawn => writer.null(),
            Merge::Page => {
                writer.array(2);
                writer.bulk(itoa::Buffer::new().format(self.cursor).as_bytes());
                writer.array(self.count as usize);
                out.extend_from_slice(&self.bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(gather: Gather, parts: &[(Part, &str)]) -> String {
        let mut gather = gather;
        for (n, (part, bytes)) in parts.iter().enumerate() {
            assert_eq!(
                gather.add(*part, bytes.as_bytes(), false),
                n + 1 == parts.len(),
                "only the last part completes it"
            );
        }
        let mut out = Vec::new();
        gather.finish(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn parts_become_one_reply() {
        use Part::*;
        let gather = Gather::new;
        assert_eq!(merged(gather(Merge::Sum, 3), &[(Count(1), ""), (Count(0), ""), (Count(40), "")]), ":41\r\n");
        assert_eq!(
            merged(gather(Merge::Array, 2), &[(Elements(1), "$1\r\na\r\n"), (Elements(0), "")]),
            "*1\r\n$1\r\na\r\n"
        );
        let text = gather(Merge::Text, 2).answering(true, false);
        assert_eq!(merged(text, &[(Text, "ab"), (Text, "c")]), "=7\r\ntxt:abc\r\n");
        let drawn = [(Nothing, ""), (Drawn(7), "seven"), (Drawn(3), "k"), (Drawn(5), "five")];
        assert_eq!(merged(gather(Merge::Drawn, 4), &drawn), "$1\r\nk\r\n");
        assert_eq!(merged(gather(Merge::Drawn, 1).answering(true, false), &[(Nothing, "")]), "_\r\n");
        assert_eq!(merged(gather(Merge::Drawn, 1), &[(Drawn(0), "")]), "$0\r\n\r\n", "the empty key exists");
        let page = |elements, next| Page { elements, next, left: 0 };
        let pages = [(page(1, 9), "$1\r\na\r\n"), (page(0, 0), "")];
        assert_eq!(merged(gather(Merge::Page, 2), &pages), "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n");
        assert_eq!(merged(gather(Merge::Status, 1), &[(Done, "")]), "+OK\r\n");
        assert_eq!(merged(gather(Merge::Killed, 2), &[(Count(0), ""), (Count(0), "")]), "-ERR No such client\r\n");
        assert_eq!(merged(gather(Merge::Sum, 1).answering(false, true), &[(Count(1), "")]), "");
    }

    /// Sums were made by parsing encoded replies, where an error counted as 0: DEL of two keys, one of which failed,
    /// replied 1.
    #[test]
    fn an_error_in_any_part_is_the_reply() {
        for merge in [Merge::Sum, Merge::Array, Merge::Text, Merge::Drawn, Merge::Page, Merge::Status, Merge::Killed] {
            let parts = [(Part::Count(1), ""), (Part::Error, "OOM no"), (Part::Error, "ERR later")];
            assert_eq!(merged(Gather::new(merge, 3), &parts), "-OOM no\r\n", "{merge:?}");
        }
    }
}
