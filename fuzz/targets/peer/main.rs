//! A node of a small cluster, and what a peer of it may send: replication, membership and Raft with whatever numbers, between
//! ticks, requests of clients and honest answers. Nothing panics; what the node sends is sound and bounded; and each parked
//! request is answered once at most.

#![no_main]

mod cluster;
mod membership;
mod number;
mod raft;
mod replication;

use arbitrary::Arbitrary;
use cluster::{Cluster, Part, Sender};
use libfuzzer_sys::fuzz_target;
use number::{Name, Number};

/// Bound the time that one input takes.
const STEPS_MAX: usize = 128;
const ENTRIES_MAX: usize = 8_192;

#[derive(Arbitrary, Debug)]
struct Input {
    part: Part,
    steps: Vec<Step>,
}

/// `Answer`: as a sound peer does, to all that it was sent.
#[derive(Arbitrary, Debug)]
enum Step {
    Tick { ten_ms: u8 },
    Later { ms: u32 },
    Answer { node: Name },
    Replication { from: Sender, message: replication::Message },
    Membership { from: Sender, message: membership::Message },
    Raft { from: Sender, message: raft::Message },
    Body { from: Sender, kind: u8, body: Vec<u8> },
    Request { group: u8, key: u8, level: u8, effect: Option<replication::Effect>, token: Option<(u8, Number)> },
    Leave,
}

fuzz_target!(|input: Input| {
    let mut cluster = Cluster::new(input.part);
    let mut entries = 0;
    for step in input.steps.iter().take(STEPS_MAX) {
        match step {
            Step::Tick { ten_ms } => cluster.pass(10 * u64::from(*ten_ms) + 1),
            Step::Later { ms } => cluster.pass(u64::from(*ms)),
            Step::Answer { node } => cluster.answer(*node),
            Step::Replication { from, message } => {
                entries += message.entries();
                if entries <= ENTRIES_MAX {
                    cluster.receive_replication(*from, message);
                }
            }
            Step::Membership { from, message } => cluster.receive_membership(*from, message),
            Step::Raft { from, message } => cluster.receive_raft(*from, message),
            Step::Body { from, kind, body } => cluster.receive_body(*from, *kind, body),
            Step::Request { group, key, level, effect, token } => {
                cluster.request(*group, *key, *level, effect.as_ref(), *token);
            }
            Step::Leave => cluster.leave(),
        }
    }
    cluster.pass(20);
});
