//! Replies in request order, whatever order siblings answer in.
//!
//! While a connection waits for no sibling, its replies go straight to its output and none of this is used. From the
//! first request that is sent away on, every reply has a slot: awaited, or ready and held here until all before it are.

use super::gather::Gather;
use std::collections::VecDeque;

/// Held bytes in front of the first that is still wanted, before they are cut off.
const DEAD_BYTES_MAX: usize = 64 << 10;

/// Room that is kept for replies that are put together.
const GATHERED_BYTES_KEPT: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Awaited,
    /// A range of `held`, counted from the first byte ever held.
    Ready {
        from: u64,
        to: u64,
    },
    /// One reply made of several parts, which are in `gathers`.
    Gathered,
}

/// The replies of one connection that cannot go out yet.
#[derive(Debug, Default)]
pub(in crate::shard) struct Order {
    slots: VecDeque<Slot>,
    /// Sequence number of the first slot.
    first: u32,
    awaited: usize,
    /// Replies whose parts are still to come, oldest first.
    gathers: VecDeque<(u32, Gather)>,
    /// Where such a reply is put together.
    gathered: Vec<u8>,
    held: Vec<u8>,
    /// How many bytes were held before `held[0]`.
    held_before: u64,
    /// Length of `held` at which it is worth looking for bytes to cut off: each look is paid for by the growth before it.
    look_at: usize,
}

impl Order {
    /// True if replies can go straight to the output.
    #[inline]
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Slots in use.
    pub(in crate::shard) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Replies that siblings owe.
    #[inline]
    pub(in crate::shard) fn awaited(&self) -> usize {
        self.awaited
    }

    /// Those of them that could be of any length: not what is added up of parts. A connection must not wait for those
    /// parts before it has asked for them.
    pub(in crate::shard) fn awaited_whole(&self) -> usize {
        self.awaited - self.gathers.len()
    }

    /// Bytes held back.
    pub(in crate::shard) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// A slot for a reply that will come; returns its sequence number.
    #[inline]
    pub(in crate::shard) fn await_reply(&mut self) -> u32 {
        let sequence = self.first.wrapping_add(self.slots.len() as u32);
        self.slots.push_back(Slot::Awaited);
        self.awaited += 1;
        sequence
    }

    /// A slot for a reply that is made of parts; returns its sequence number, which each part tells.
    pub(in crate::shard) fn await_parts(&mut self, gather: Gather) -> u32 {
        let sequence = self.await_reply();
        *self.slots.back_mut().expect("it was added") = Slot::Gathered;
        self.gathers.push_back((sequence, gather));
        sequence
    }

    /// How many replies come before one that is awaited.
    pub(in crate::shard) fn place(&self, sequence: u32) -> u32 {
        sequence.wrapping_sub(self.first)
    }

    /// True if an awaited reply is the next to go out.
    pub(in crate::shard) fn is_front(&self, sequence: u32) -> bool {
        !self.slots.is_empty() && self.place(sequence) == 0
    }

    /// Writes a reply that is ready now but has to wait for those before it.
    #[inline]
    pub(in crate::shard) fn hold(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.held_end();
        write(&mut self.held);
        let to = self.held_end();
        match self.slots.back_mut() {
            Some(Slot::Ready { to: end, .. }) if *end == from => *end = to,
            _ => self.slots.push_back(Slot::Ready { from, to }),
        }
    }

    /// Takes an awaited reply. What is ready at the front moves to `output`.
    #[inline]
    pub(in crate::shard) fn fulfil(&mut self, sequence: u32, reply: &[u8], output: &mut Vec<u8>) {
        let index = sequence.wrapping_sub(self.first) as usize;
        if self.slots.get(index) == Some(&Slot::Gathered) {
            let place = self.gathers.iter().position(|(own, _)| *own == sequence).expect("a gathered reply");
            if self.gathers[place].1.add(reply) {
                let (_, gather) = self.gathers.remove(place).expect("it is there");
                self.slots[index] = Slot::Awaited;
                let mut whole = std::mem::take(&mut self.gathered);
                gather.finish(&mut whole);
                self.fulfil(sequence, &whole, output);
                whole.clear();
                whole.shrink_to(GATHERED_BYTES_KEPT);
                self.gathered = whole;
            }
            return;
        }
        assert_eq!(self.slots.get(index), Some(&Slot::Awaited), "a reply that nobody awaits");
        self.awaited -= 1;
        if index > 0 {
            let from = self.held_end();
            self.held.extend_from_slice(reply);
            self.slots[index] = Slot::Ready { from, to: self.held_end() };
            return;
        }
        output.extend_from_slice(reply);
        self.pop();
        while let Some(&Slot::Ready { from, to }) = self.slots.front() {
            let range = (from - self.held_before) as usize..(to - self.held_before) as usize;
            output.extend_from_slice(&self.held[range]);
            self.pop();
        }
        self.cut();
    }

    /// Forgets everything, replies that are still to come included.
    pub(in crate::shard) fn clear(&mut self) {
        *self = Self::default();
    }

    fn pop(&mut self) {
        self.slots.pop_front();
        self.first = self.first.wrapping_add(1);
    }

    fn held_end(&self) -> u64 {
        self.held_before + self.held.len() as u64
    }

    /// Lets go of held bytes that have gone out.
    fn cut(&mut self) {
        if self.slots.is_empty() {
            self.held_before += self.held.len() as u64;
            self.held.clear();
            self.held.shrink_to(DEAD_BYTES_MAX);
            self.look_at = 0;
            return;
        }
        if self.held.len() < self.look_at.max(2 * DEAD_BYTES_MAX) {
            return;
        }
        let wanted =
            self.slots.iter().filter_map(|s| if let Slot::Ready { from, .. } = s { Some(*from) } else { None });
        let dead = (wanted.min().unwrap_or(self.held_end()) - self.held_before) as usize;
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
    use proptest::prelude::*;

    /// A DEL of two keys was counted as one reply as long as those before it. After a long one, that was more than a
    /// connection may be owed: it waited for the DEL before it had asked for the parts, for ever.
    #[test]
    fn a_sum_is_not_expected_to_be_long() {
        let (mut order, mut output) = (Order::default(), Vec::new());
        let sum = order.await_parts(Gather::sum(2));
        assert_eq!((order.awaited(), order.awaited_whole()), (1, 0));
        let whole = order.await_reply();
        assert_eq!((order.awaited(), order.awaited_whole()), (2, 1));
        order.fulfil(sum, b":1\r\n", &mut output);
        order.fulfil(sum, b":1\r\n", &mut output);
        assert_eq!((order.awaited(), order.awaited_whole()), (1, 1));
        order.fulfil(whole, b"+OK\r\n", &mut output);
        assert_eq!((order.awaited(), order.awaited_whole(), &output[..]), (0, 0, &b":2\r\n+OK\r\n"[..]));
    }

    proptest! {
        /// Random interleavings of local replies, requests to siblings and their answers: the output is in request order.
        #[test]
        fn replies_come_out_in_request_order(steps in prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), 0..3000_usize), 1..400)) {
            let mut order = Order::default();
            let (mut output, mut expected) = (Vec::new(), Vec::new());
            let mut awaited: Vec<(u32, Vec<u8>)> = Vec::new();
            for (n, (kind, which, bytes)) in steps.into_iter().enumerate() {
                let reply = vec![n as u8; bytes];
                match kind {
                    0 if order.is_empty() => { output.extend_from_slice(&reply); expected.extend_from_slice(&reply); }
                    0 => { order.hold(|held| held.extend_from_slice(&reply)); expected.extend_from_slice(&reply); }
                    1 => { awaited.push((order.await_reply(), reply.clone())); expected.extend_from_slice(&reply); }
                    _ if awaited.is_empty() => {}
                    _ => {
                        let (sequence, reply) = awaited.remove(which.index(awaited.len()));
                        order.fulfil(sequence, &reply, &mut output);
                    }
                }
                prop_assert_eq!(order.awaited(), awaited.len());
                prop_assert!(expected.starts_with(&output));
            }
            while let Some((sequence, reply)) = awaited.pop() {
                order.fulfil(sequence, &reply, &mut output);
            }
            prop_assert!(order.is_empty() && order.held_bytes() == 0);
            prop_assert_eq!(output, expected);
        }
    }
}
