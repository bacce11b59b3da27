//! A node of a small cluster, and arbitrary messages of a peer: replication, membership and Raft, interleaved with
//! ticks, client requests and correct answers. Nothing panics, what the node sends is valid and bounded, and each
//! parked request is answered at most once.

#![no_main]

mod cluster;
mod membership;
mod number;
mod raft;
mod replication;

use arbitrary::{Arbitrary, Unstructured};
use cluster::{Cluster, Part, Sender};
use libfuzzer_sys::fuzz_target;
use number::{Name, Number};

/// Bounds of the time per input.
const STEPS_MAX: usize = 512;
const ENTRIES_MAX: usize = 16_384;
/// Bytes that a step of a storm is drawn from, and the number of its steps.
const DRAWN_BYTES: usize = 96;
const STORM_STEPS_MAX: u8 = 128;

#[derive(Arbitrary, Debug)]
struct Input {
    part: Part,
    first: Storm,
    steps: Vec<Step>,
    last: Storm,
}

/// Steps drawn at random from a seed. Starting a node costs more than many steps, and random steps reach states that
/// single mutations of an input hardly do.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Storm {
    seed: u64,
    steps: u8,
    is_replication: bool,
}

/// `Answer`: a peer answers everything it was sent, as a correct one does.
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
    let mut run = Run { cluster: Cluster::new(input.part), steps: 0, entries: 0 };
    run.storm(input.first);
    input.steps.iter().for_each(|step| run.step(step));
    run.storm(input.last);
    run.cluster.pass(20);
});

struct Run {
    cluster: Cluster,
    steps: usize,
    entries: usize,
}

impl Run {
    fn step(&mut self, step: &Step) {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return;
        }
        let cluster = &mut self.cluster;
        match step {
            Step::Tick { ten_ms } => cluster.pass(10 * u64::from(*ten_ms) + 1),
            Step::Later { ms } => cluster.pass(u64::from(*ms)),
            Step::Answer { node } => cluster.answer(*node),
            Step::Replication { from, message } => {
                self.entries += message.entries();
                if self.entries <= ENTRIES_MAX {
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

    fn storm(&mut self, storm: Storm) {
        let mut seed = storm.seed;
        for _ in 0..storm.steps % STORM_STEPS_MAX {
            let bytes: Vec<u8> = std::iter::repeat_with(|| draw(&mut seed)).take(DRAWN_BYTES).collect();
            let mut bytes = Unstructured::new(&bytes);
            let step = match draw(&mut seed) % 4 {
                0..=2 if storm.is_replication => message(&mut bytes),
                _ => bytes.arbitrary(),
            };
            // Steps that need more bytes than drawn are skipped.
            if let Ok(step) = step {
                self.step(&step);
            }
        }
    }
}

fn message(bytes: &mut Unstructured) -> arbitrary::Result<Step> {
    Ok(Step::Replication { from: bytes.arbitrary()?, message: bytes.arbitrary()? })
}

/// A byte of splitmix64, which decorrelates consecutive seeds.
fn draw(seed: &mut u64) -> u8 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 56) as u8
}
