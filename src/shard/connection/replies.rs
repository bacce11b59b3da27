//! Replies in request order, whatever order siblings answer in.
//!
//! While no reply is outstanding, replies go straight to the output and the queue is empty. From the first request that
//! is sent away on, every reply has an entry: pending, merged from parts, streamed, or ready and held here until all
//! before it have gone out.

use super::download::{Download, Source};
use super::gather::Gather;
use crate::command::Part;
use crate::command::table::Merge;
use crate::shard::faults::{self, Fault};
use std::collections::VecDeque;

/// Held bytes that have gone out, before they are cut off.
const DEAD_BYTES_MAX: usize = 64 << 10;

/// Room that is kept for merged replies.
const MERGED_BYTES_KEPT: usize = 4 << 10;

/// One reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplyEntry {
    /// A sibling owes it.
    Pending,
    /// A range of `held`, counted from the first byte ever held.
    Ready { from: u64, to: u64 },
    /// Merged from parts: see `gathers`.
    Gather,
    /// A long value: see `downloads`.
    Stream,
}

/// The replies of one connection that cannot go out yet.
#[derive(Debug, Default)]
pub(in crate::shard) struct ReplyQueue {
    entries: VecDeque<ReplyEntry>,
    /// Sequence number of the first entry.
    first: u32,
    /// Entries that siblings owe something to.
    awaited: usize,
    /// Replies that wait for parts.
    gathers: VecDeque<(u32, Gather)>,
    /// Long values, in the order of replies.
    downloads: VecDeque<(u32, Download)>,
    /// Where a merged reply is written.
    merged: Vec<u8>,
    held: Vec<u8>,
    /// Bytes of `held` that have not gone out. Only these count as output: counting the others, a connection could wait
    /// for its output to be sent that had been sent.
    live_bytes: usize,
    /// How many bytes were held before `held[0]`.
    held_before: u64,
    /// Length of `held` at which to look for bytes to cut off: each look is paid for by the growth before it.
    look_at: usize,
}

impl ReplyQueue {
    /// True if replies can go straight to the output.
    #[inline]
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of entries.
    pub(in crate::shard) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Replies that siblings owe, in whole or in part.
    #[inline]
    pub(in crate::shard) fn awaited(&self) -> usize {
        self.awaited
    }

    /// Those of them that may be of any length: not merged ones. A connection must not wait for parts before it has
    /// asked for all of them.
    pub(in crate::shard) fn awaited_whole(&self) -> usize {
        self.awaited - self.gathers.len()
    }

    /// Bytes of replies that are held back.
    pub(in crate::shard) fn held_bytes(&self) -> usize {
        self.live_bytes
    }

    /// True if a long value is among the replies.
    #[inline]
    pub(in crate::shard) fn has_downloads(&self) -> bool {
        !self.downloads.is_empty()
    }

    /// Adds an entry for a reply that a sibling will send; returns its sequence number.
    #[inline]
    pub(in crate::shard) fn expect_reply(&mut self) -> u32 {
        let sequence = self.next_sequence();
        self.entries.push_back(ReplyEntry::Pending);
        self.awaited += 1;
        sequence
    }

    /// Adds an entry for a reply that is merged from parts; returns the sequence number that each part names.
    pub(in crate::shard) fn expect_parts(&mut self, gather: Gather) -> u32 {
        let sequence = self.next_sequence();
        self.entries.push_back(ReplyEntry::Gather);
        self.awaited += 1;
        self.gathers.push_back((sequence, gather));
        sequence
    }

    /// The reply that was expected comes in slices, as parts of a merged one do.
    pub(in crate::shard) fn resolve_to_slices(&mut self, sequence: u32) {
        let index = self.index(sequence);
        assert_eq!(self.entries.get(index), Some(&ReplyEntry::Pending), "a reply that is not expected");
        self.entries[index] = ReplyEntry::Gather;
        self.gathers.push_back((sequence, Gather::new(Merge::Slices, 1)));
    }

    /// Adds a long value of this shard.
    pub(in crate::shard) fn push_download(&mut self, download: Download) {
        self.downloads.push_back((self.next_sequence(), download));
        self.entries.push_back(ReplyEntry::Stream);
    }

    /// A pending reply turned out to be a long value.
    pub(in crate::shard) fn resolve_to_download(&mut self, sequence: u32, download: Download) {
        if download.owner().is_none() {
            // Nothing is awaited from a sibling.
            self.awaited -= 1;
        }
        let index = self.index(sequence);
        assert_eq!(self.entries.get(index), Some(&ReplyEntry::Pending), "a reply that is not expected");
        self.entries[index] = ReplyEntry::Stream;
        // Siblings do not keep the order of replies.
        let before = |other: &(u32, Download)| self.index(other.0) < index;
        let at = self.downloads.iter().take_while(|other| before(other)).count();
        self.downloads.insert(at, (sequence, download));
    }

    /// Writes a reply that is ready behind all before it: to `output`, if it can go out now.
    #[inline]
    pub(in crate::shard) fn write(&mut self, output: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        if self.entries.is_empty() || faults::has(Fault::SwappedOrder) {
            return write(output);
        }
        let from = self.held_end();
        write(&mut self.held);
        let to = self.held_end();
        self.live_bytes += (to - from) as usize;
        match self.entries.back_mut() {
            Some(ReplyEntry::Ready { to: end, .. }) if *end == from => *end = to,
            _ => self.entries.push_back(ReplyEntry::Ready { from, to }),
        }
    }

    /// Takes a reply that was expected. Replies that can go out now move to `output`.
    #[inline]
    pub(in crate::shard) fn resolve(&mut self, sequence: u32, reply: &[u8], output: &mut Vec<u8>) {
        let index = self.index(sequence);
        assert_eq!(self.entries.get(index), Some(&ReplyEntry::Pending), "a reply that is not expected");
        self.resolve_at(index, reply, output);
    }

    #[inline]
    fn resolve_at(&mut self, index: usize, reply: &[u8], output: &mut Vec<u8>) {
        self.awaited -= 1;
        if index > 0 {
            let from = self.held_end();
            self.held.extend_from_slice(reply);
            self.live_bytes += reply.len();
            self.entries[index] = ReplyEntry::Ready { from, to: self.held_end() };
            return;
        }
        output.extend_from_slice(reply);
        self.pop();
        self.release(output);
    }

    /// True while a command in slices is being executed.
    #[inline]
    pub(in crate::shard) fn has_sliced(&self) -> bool {
        !self.gathers.is_empty() && self.gathers.iter().any(|(_, gather)| gather.is_sliced())
    }

    /// Takes a part of a merged reply, or with `more` a slice of one. With the last part, the reply is ready.
    pub(in crate::shard) fn resolve_part(
        &mut self,
        sequence: u32,
        part: Part,
        bytes: &[u8],
        more: bool,
        output: &mut Vec<u8>,
    ) {
        let gather = self.gathers.iter().position(|(own, _)| *own == sequence).expect("a part that is not expected");
        let is_next = self.index(sequence) == 0;
        if !self.gathers[gather].1.add(part, bytes, more) {
            if is_next {
                output.append(&mut self.gathers[gather].1.take_bytes());
            }
            return;
        }
        let (_, gather) = self.gathers.remove(gather).expect("it was found");
        let mut merged = std::mem::take(&mut self.merged);
        gather.finish(&mut merged);
        self.resolve_at(self.index(sequence), &merged, output);
        merged.clear();
        merged.shrink_to(MERGED_BYTES_KEPT);
        self.merged = merged;
    }

    /// Some parts of a merged reply will not come: the others complete it, and it is suppressed.
    pub(in crate::shard) fn forgo_parts(&mut self, sequence: u32, parts: u32, output: &mut Vec<u8>) {
        let Some(index) = self.gathers.iter().position(|(own, _)| *own == sequence) else { return };
        if self.gathers[index].1.forgo(parts) {
            self.gathers.remove(index);
            self.resolve_at(self.index(sequence), b"", output);
        }
    }

    /// The long value that is the next reply to go out, if it is one.
    #[inline]
    pub(in crate::shard) fn front_download(&mut self) -> Option<&mut Download> {
        match self.entries.front() {
            Some(ReplyEntry::Stream) => self.downloads.front_mut().map(|(_, download)| download),
            _ => None,
        }
    }

    /// All of the front long value has been written to `output`: what comes after it follows. Returns where it was
    /// read.
    pub(in crate::shard) fn finish_download(&mut self, output: &mut Vec<u8>) -> Option<Source> {
        let (_, download) = self.downloads.pop_front()?;
        let (tail, source) = download.finish();
        if let Source::Remote { .. } = source {
            self.awaited -= 1;
        }
        output.extend_from_slice(&tail);
        self.pop();
        self.release(output);
        Some(source)
    }

    /// The owner of the long value that is sent next, if there is one: a sibling, or none for this shard.
    pub(in crate::shard) fn download_owner(&self) -> Option<Option<usize>> {
        self.downloads.front().map(|(_, download)| download.owner())
    }

    /// Bytes of memory that the queue holds.
    pub(in crate::shard) fn memory_bytes(&self) -> usize {
        let gathers: usize = self.gathers.iter().map(|(_, gather)| gather.memory_bytes()).sum();
        self.held.capacity() + self.merged.capacity() + gathers
    }

    /// Forgets everything, replies that are still to come included. Returns the long values, whose readers are open.
    pub(in crate::shard) fn clear(&mut self) -> impl Iterator<Item = Source> + use<> {
        let Self { downloads, .. } = std::mem::take(self);
        downloads.into_iter().map(|(_, download)| download.source)
    }

    /// Moves the ready replies at the front to `output`.
    fn release(&mut self, output: &mut Vec<u8>) {
        while let Some(&ReplyEntry::Ready { from, to }) = self.entries.front() {
            let range = (from - self.held_before) as usize..(to - self.held_before) as usize;
            self.live_bytes -= range.len();
            output.extend_from_slice(&self.held[range]);
            self.pop();
        }
        self.cut();
    }

    fn next_sequence(&self) -> u32 {
        self.first.wrapping_add(self.entries.len() as u32)
    }

    fn index(&self, sequence: u32) -> usize {
        sequence.wrapping_sub(self.first) as usize
    }

    fn pop(&mut self) {
        self.entries.pop_front();
        self.first = self.first.wrapping_add(1);
    }

    fn held_end(&self) -> u64 {
        self.held_before + self.held.len() as u64
    }

    /// Frees held bytes that have gone out.
    fn cut(&mut self) {
        if self.entries.is_empty() {
            self.held_before += self.held.len() as u64;
            self.held.clear();
            self.held.shrink_to(DEAD_BYTES_MAX);
            self.look_at = 0;
            return;
        }
        if self.held.len() < self.look_at.max(2 * DEAD_BYTES_MAX) {
            return;
        }
        let ready = |entry: &ReplyEntry| if let ReplyEntry::Ready { from, .. } = entry { Some(*from) } else { None };
        let wanted = self.entries.iter().filter_map(ready).min();
        let dead = (wanted.unwrap_or(self.held_end()) - self.held_before) as usize;
        if dead > DEAD_BYTES_MAX && dead > self.held.len() / 2 {
            self.held.drain(..dead);
            self.held_before += dead as u64;
        }
        self.look_at = 2 * self.held.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::connection::download::{Fetch, StreamStart};
    use proptest::prelude::*;

    /// A DEL of two keys was counted as one reply as long as those before it. After a long one, that exceeded the
    /// output that a connection may be owed: it waited for the DEL before it had asked for the parts, and never went
    /// on.
    #[test]
    fn a_sum_is_not_expected_to_be_long() {
        let (mut replies, mut output) = (ReplyQueue::default(), Vec::new());
        let sum = replies.expect_parts(Gather::new(Merge::Sum, 2));
        assert_eq!((replies.awaited(), replies.awaited_whole()), (1, 0));
        let whole = replies.expect_reply();
        assert_eq!((replies.awaited(), replies.awaited_whole()), (2, 1));
        replies.resolve_part(sum, Part::Count(1), b"", false, &mut output);
        replies.resolve_part(sum, Part::Count(1), b"", false, &mut output);
        assert_eq!((replies.awaited(), replies.awaited_whole()), (1, 1));
        replies.resolve(whole, b"+OK\r\n", &mut output);
        assert_eq!((replies.awaited(), replies.awaited_whole(), &output[..]), (0, 0, &b":2\r\n+OK\r\n"[..]));
    }

    proptest! {
        /// Random interleavings of local replies, requests to siblings and their answers: the output is in request
        /// replies.
        #[test]
        fn replies_come_out_in_request_order(steps in prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), 0..3000_usize), 1..400)) {
            let mut replies = ReplyQueue::default();
            let (mut output, mut expected) = (Vec::new(), Vec::new());
            let mut owed: Vec<(u32, Vec<u8>)> = Vec::new();
            for (n, (kind, which, bytes)) in steps.into_iter().enumerate() {
                let reply = vec![n as u8; bytes];
                match kind {
                    0 => {
                        replies.write(&mut output, |out| out.extend_from_slice(&reply));
                        expected.extend_from_slice(&reply);
                    }
                    1 => { owed.push((replies.expect_reply(), reply.clone())); expected.extend_from_slice(&reply); }
                    _ if owed.is_empty() => {}
                    _ => {
                        let (sequence, reply) = owed.remove(which.index(owed.len()));
                        replies.resolve(sequence, &reply, &mut output);
                    }
                }
                prop_assert_eq!(replies.awaited(), owed.len());
                prop_assert!(expected.starts_with(&output));
            }
            while let Some((sequence, reply)) = owed.pop() {
                replies.resolve(sequence, &reply, &mut output);
            }
            prop_assert!(replies.is_empty() && replies.held_bytes() == 0);
            prop_assert_eq!(output, expected);
        }
    }

    /// A download of two bytes, at a sibling.
    fn remote(value: &str) -> Download {
        let start = StreamStart { head_bytes: 1, stream: 7, length: value.len() };
        Download::remote(1, &start, b"<>")
    }

    /// What came behind a long value in the order of replies used to be written straight to the output when the value
    /// was this shard's own: a protocol error overtook it.
    #[test]
    fn replies_wait_behind_a_long_value() {
        let (mut replies, mut output) = (ReplyQueue::default(), Vec::new());
        let first = replies.expect_reply();
        let second = replies.expect_reply();
        replies.resolve_to_download(second, remote("second"));
        replies.resolve_to_download(first, remote("first"));
        replies.write(&mut output, |out| out.extend_from_slice(b"error"));
        assert!(output.is_empty() && replies.awaited() == 2);
        for value in ["first", "second"] {
            let download = replies.front_download().expect("a long value is next");
            let fetch = download.next_fetch(&mut output);
            assert!(matches!(fetch, Some(Fetch::Remote { owner: 1, stream: 7 })));
            assert!(download.next_fetch(&mut output).is_none(), "one piece at a time");
            output.extend_from_slice(value.as_bytes());
            assert!(download.piece_written(value.len()));
            assert!(matches!(replies.finish_download(&mut output), Some(Source::Remote { .. })));
        }
        assert_eq!(String::from_utf8_lossy(&output), "<first><second>error");
        assert!(replies.is_empty() && replies.awaited() == 0 && !replies.has_downloads());
    }

    /// Held bytes that had gone out still counted as output while the queue was not empty. A connection that had to
    /// parse the keys of a merged reply waited for them to be sent, and so for ever; found by the simulator (seed
    /// 15104).
    #[test]
    fn bytes_that_have_gone_out_are_not_held() {
        let (mut replies, mut output) = (ReplyQueue::default(), Vec::new());
        let first = replies.expect_reply();
        replies.write(&mut output, |out| out.extend_from_slice(&[b'v'; 100 << 10]));
        replies.expect_parts(Gather::new(Merge::Sum, 2));
        assert_eq!(replies.held_bytes(), 100 << 10);
        replies.resolve(first, b"x", &mut output);
        assert_eq!((replies.held_bytes(), output.len()), (0, (100 << 10) + 1));
    }

    #[test]
    fn what_is_forgotten_hands_its_readers_back() {
        let mut replies = ReplyQueue::default();
        let sequence = replies.expect_reply();
        replies.resolve_to_download(sequence, remote("v"));
        replies.expect_parts(Gather::new(Merge::Sum, 2));
        assert_eq!(replies.clear().count(), 1);
        assert!(replies.is_empty() && replies.awaited() == 0);
    }
}
