//! Commands that take long, executed in slices: a few of them per turn, so that other clients are served in
//! between. The connection that sent one waits for its end before its next command; each slice goes to it as a part of
//! the reply, in a batch if the connection is a sibling's.

use super::remote::{Origin, Sliced};
use super::{Io, Shard};
use crate::command::{Call, Operation, Part};
use crate::engine::KeyHash;

/// Slices that are executed in a turn: however many clients send such commands, the turn stays below a millisecond or
/// so.
const SLICES_PER_TURN: usize = 8;

impl<I: Io> Shard<I> {
    /// Keeps a command for its next slice, in the next turn.
    pub(super) fn slice(&mut self, origin: Origin, sequence: u32, hash: KeyHash, call: &Call<&[u8]>, from: u64) {
        let Call { command, count, args } = *call;
        let call = Call { command, count, args: () };
        self.sliced.push_back(Sliced { origin, sequence, hash, call, args: args.into(), from });
    }

    /// Executes the next slices, first come, first served.
    pub(super) fn execute_slices(&mut self) {
        for _ in 0..self.sliced.len().min(SLICES_PER_TURN) {
            let Some(mut sliced) = self.sliced.pop_front() else { return };
            let Sliced { origin, sequence, hash, .. } = sliced;
            let is_here = origin.shard == self.id;
            if is_here && self.connections.get(origin.token).is_none_or(|connection| connection.is_abandoned()) {
                continue;
            }
            // The batch is the credit: without room, the command waits.
            if !is_here && !self.router.has_room(origin.shard..origin.shard + 1) {
                self.sliced.push_back(sliced);
                continue;
            }
            let mut bytes = std::mem::take(&mut self.part);
            bytes.clear();
            let Call { command, count, .. } = sliced.call;
            let call = Call { command, count, args: &sliced.args[..] };
            let (part, next) = self.executor.part(&call, &[], hash, sliced.from, &mut bytes);
            self.apply_effects(is_here.then_some(origin.token.slot), &Operation::Call(call));
            self.deliver(origin, sequence, part, &bytes, next.is_some());
            self.part = bytes;
            if let Some(next) = next {
                sliced.from = next;
                self.sliced.push_back(sliced);
            }
        }
    }

    /// Gives a slice to the connection that waits for it.
    fn deliver(&mut self, origin: Origin, sequence: u32, part: Part, bytes: &[u8], more: bool) {
        if origin.shard == self.id {
            self.take_part(origin.token, sequence, part, bytes, more);
        } else {
            self.router.batch(origin.shard).push_slice(origin.token, sequence, part, bytes, more);
        }
    }

    /// A part, or a slice of one, has come for a connection of this shard.
    pub(super) fn take_part(
        &mut self,
        token: crate::reactor::Token,
        sequence: u32,
        part: Part,
        bytes: &[u8],
        more: bool,
    ) {
        if let Some(connection) = self.connections.get_answering(token) {
            connection.on_part(sequence, part, bytes, more);
            self.connections.output_has_room(token.slot);
            self.connections.touch(token.slot);
        }
    }
}
