//! Logs and replica states against naive models, under random operations.
//!
//! The model of a replica is its primary: all entries ever written, and the group's contents after each. The primary's
//! frames reach the replica late, twice, or never; the primary is replaced by one with less of the log; and snapshots
//! are received alongside all that.

use super::super::log::{History, Log};
use super::super::replica_state::{Mismatch, ReplicaState};
use super::store::NaiveStore;
use super::*;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

/// The model's keys, each of one letter.
const LETTERS: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum LogOperation {
    /// Appends `count` entries in an epoch that is `epochs` later than the last.
    Append { epochs: u32, count: usize },
    /// Truncates at some entry that is kept.
    Truncate(Index),
    /// Trims some of the entries that are kept.
    Trim { bytes: usize, through: Index },
}

fn log_operations() -> impl Strategy<Value = Vec<LogOperation>> {
    let operation = prop_oneof![
        (0..3_u32, 1..5_usize).prop_map(|(epochs, count)| LogOperation::Append { epochs, count }),
        any::<Index>().prop_map(LogOperation::Truncate),
        (0..800_usize, any::<Index>()).prop_map(|(bytes, through)| LogOperation::Trim { bytes, through }),
    ];
    prop::collection::vec(operation, 1..50)
}

/// Compares a log with `epochs`, which holds the epoch of the position before the first entry and of each entry.
fn check_log(log: &Log, epochs: &[Epoch]) -> Result<(), TestCaseError> {
    let last = epochs.len() as Seq - 1;
    prop_assert_eq!(log.last(), Position { epoch: epochs[last as usize], seq: last });
    for seq in 0..=last + 1 {
        for epoch in (1..=epochs[last as usize].0 + 1).map(Epoch) {
            let position = Position { epoch, seq };
            prop_assert_eq!(log.holds(position), epochs.get(seq as usize) == Some(&epoch));
            let common = (0..=seq.min(last)).rev().find(|&seq| epochs[seq as usize] <= epoch);
            prop_assert_eq!(log.common_end(position), common);
        }
        if let Some(entries) = log.entries_from(seq) {
            let kept: Vec<Position> = entries.map(|entry| entry.at).collect();
            let all = (seq..=last).map(|seq| Position { epoch: epochs[seq as usize], seq });
            prop_assert_eq!(kept, all.collect::<Vec<_>>());
        }
    }
    Ok(())
}

/// The primary of the replica, which remembers everything.
struct Primary {
    identity: Identity,
    epoch: Epoch,
    /// From number 1 on.
    entries: Vec<Entry>,
    /// The contents before the first entry, and after each entry.
    states: Vec<NaiveStore>,
    committed: Seq,
}

#[derive(Clone, Debug)]
enum Operation {
    Put {
        letter: usize,
    },
    Remove {
        letter: usize,
    },
    Change {
        letter: usize,
    },
    Commit(Index),
    /// Sends some of the log to the replica.
    Send {
        after: Index,
        count: usize,
    },
    /// Another node becomes primary, with the log up to some entry only.
    Replace(Index),
    BeginSnapshot,
    /// Makes the next chunk, or delivers the one that was made.
    Chunk,
    /// The replica's store evicts a key on its own.
    Evict {
        letter: usize,
    },
    Fetch,
    Trim(Index),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let letter = 0..LETTERS.len();
    let operation = prop_oneof![
        3 => letter.clone().prop_map(|letter| Operation::Put { letter }),
        2 => letter.clone().prop_map(|letter| Operation::Remove { letter }),
        3 => letter.clone().prop_map(|letter| Operation::Change { letter }),
        3 => any::<Index>().prop_map(Operation::Commit),
        6 => (any::<Index>(), 0..12_usize).prop_map(|(after, count)| Operation::Send { after, count }),
        1 => any::<Index>().prop_map(Operation::Replace),
        1 => Just(Operation::BeginSnapshot),
        3 => Just(Operation::Chunk),
        1 => letter.prop_map(|letter| Operation::Evict { letter }),
        2 => Just(Operation::Fetch),
        1 => any::<Index>().prop_map(Operation::Trim),
    ];
    prop::collection::vec(operation, 1..120)
}

impl Primary {
    fn new() -> Self {
        let (identity, states) = (Identity { node: NodeId(1), incarnation: 1 }, vec![NaiveStore::default()]);
        Self { identity, epoch: Epoch(1), entries: Vec::new(), states, committed: 0 }
    }

    fn last(&self) -> Seq {
        self.entries.len() as Seq
    }

    fn position(&self, seq: Seq) -> Position {
        if seq == 0 { Position { epoch: Epoch(1), seq: 0 } } else { self.entries[seq as usize - 1].at }
    }

    fn state(&self) -> &NaiveStore {
        self.states.last().expect("the first at least")
    }

    fn write(&mut self, effect: Effect) {
        let at = Position { epoch: self.epoch, seq: self.last() + 1 };
        let mut state = NaiveStore(self.state().0.clone());
        state.apply(group(), &effect, at);
        self.states.push(state);
        self.entries.push(Entry { at, effect });
    }

    fn replace(&mut self, last: Seq) {
        self.entries.truncate(last as usize);
        self.states.truncate(last as usize + 1);
        self.epoch.0 += 1;
        self.identity.node.0 += 1;
    }

    fn history(&self) -> History {
        let mut history = vec![(Epoch(1), 0)];
        for Entry { at, .. } in &self.entries {
            if history.last().is_some_and(|&(epoch, _)| epoch < at.epoch) {
                history.push((at.epoch, at.seq));
            }
        }
        history
    }
}

/// A replica, and what its primary knows of it.
struct Replica {
    state: ReplicaState,
    store: NaiveStore,
    matched: Seq,
    /// The snapshot being received: the next letter, and a chunk that was made.
    incoming: Option<(usize, Option<Vec<Image>>)>,
    snapshots: u64,
    chunks: u64,
    evicted: BTreeSet<Key>,
}

impl Replica {
    /// The replica of a group that was just opened.
    fn new(rules: Rules) -> Self {
        let (mut state, mut store) = (ReplicaState::empty(group(), rules), NaiveStore::default());
        state.open(Epoch(1), &mut store);
        Self { state, store, matched: 0, incoming: None, snapshots: 0, chunks: 0, evicted: BTreeSet::new() }
    }

    fn step(&mut self, primary: &mut Primary, operation: &Operation) {
        let last = primary.last();
        match operation {
            Operation::Put { letter } => {
                let value = (last + 1).to_string().into_bytes().into();
                primary.write(Effect::Put { key: key(LETTERS[*letter]), value, expires: None });
            }
            Operation::Remove { letter } => primary.write(Effect::Remove { key: key(LETTERS[*letter]) }),
            Operation::Change { letter } => {
                let (key, change) = (key(LETTERS[*letter]), b"+".as_slice().into());
                if let Some(before) = primary.state().version(group(), &key) {
                    primary.write(Effect::Change { key, before, change });
                }
            }
            Operation::Commit(index) => {
                primary.committed += index.index((last - primary.committed) as usize + 1) as Seq
            }
            Operation::Send { after, count } => _ = self.take(primary, after.index(last as usize + 1) as Seq, *count),
            Operation::Replace(index) => {
                primary.replace(primary.committed + index.index((last - primary.committed) as usize + 1) as Seq);
                (self.matched, self.incoming) = (0, None);
            }
            Operation::BeginSnapshot if self.incoming.is_some() => {}
            Operation::BeginSnapshot => self.begin_snapshot(primary),
            Operation::Chunk => self.chunk(primary),
            Operation::Evict { letter } => {
                self.store.remove(group(), &key(LETTERS[*letter]));
                self.evicted.insert(key(LETTERS[*letter]));
            }
            Operation::Fetch => self.fetch(primary),
            Operation::Trim(index) => self.state.trim(0, index.index(last as usize + 1) as Seq),
        }
    }

    fn take(&mut self, primary: &Primary, after: Seq, count: usize) -> Result<(), Mismatch> {
        let entries = primary.entries.iter().skip(after as usize).take(count).cloned().collect();
        let matched = self.state.accept(primary.identity, primary.position(after), entries, &mut self.store)?;
        self.matched = self.matched.max(matched);
        self.state.commit(primary.committed, self.matched, usize::MAX, &mut self.store);
        Ok(())
    }

    fn begin_snapshot(&mut self, primary: &Primary) {
        self.snapshots += 1;
        let (from, last) = (primary.identity, primary.last());
        self.state.begin_snapshot(from, self.snapshots, primary.history(), last, &mut self.store);
        (self.matched, self.incoming, self.chunks) = (last, Some((0, None)), 0);
        self.evicted.clear();
    }

    fn chunk(&mut self, primary: &mut Primary) {
        let Some((letter, chunk)) = &mut self.incoming else { return };
        let Some(images) = chunk.take() else {
            *chunk = Some(primary.state().image(group(), &key(LETTERS[*letter])).into_iter().collect());
            // A chunk is held back until everything it shows is committed.
            primary.committed = primary.last();
            return;
        };
        *letter += 1;
        self.chunks += 1;
        let is_last = *letter == LETTERS.len();
        assert_eq!(self.state.next_chunk(primary.identity, self.snapshots), Some(self.chunks));
        self.state.apply_chunk(images, is_last, &mut self.store);
        if is_last {
            self.incoming = None;
        }
    }

    fn fetch(&mut self, primary: &Primary) {
        if primary.committed == primary.last() {
            let keys: Vec<Key> = self.state.incomplete().cloned().collect();
            let images = keys.iter().filter_map(|key| primary.state().image(group(), key));
            images.for_each(|image| self.state.take_image(image, &mut self.store));
        }
    }

    /// The store's answer for each key is what the log had made of it at some time since the last applied entry.
    fn check(&self, primary: &Primary) -> Result<(), TestCaseError> {
        let applied = self.state.applied();
        prop_assert!(applied.seq <= self.state.committed() && self.state.committed() <= self.state.last().seq);
        if !self.state.is_complete() {
            return Ok(());
        }
        prop_assert_eq!(applied, primary.position(applied.seq));
        for key in LETTERS.map(key) {
            let held = self.store.0.get(&key);
            let mut possible = primary.states[applied.seq as usize..].iter().map(|state| state.0.get(&key));
            let may_lack = self.evicted.contains(&key) || !self.state.can_read(&key);
            prop_assert!(possible.any(|image| image == held) || held.is_none() && may_lack, "{:?} of {:?}", held, key);
        }
        Ok(())
    }

    /// Everything is committed and delivered.
    fn catch_up(&mut self, primary: &mut Primary) {
        primary.committed = primary.last();
        for _ in 0..2 {
            let after = (0..=primary.last()).rev().find(|&seq| self.state.log().holds(primary.position(seq)));
            if self.incoming.is_none()
                && self.take(primary, after.unwrap_or(0), usize::MAX) == Err(Mismatch::NeedsSnapshot)
            {
                self.begin_snapshot(primary);
            }
            while self.incoming.is_some() {
                self.chunk(primary);
            }
        }
        self.fetch(primary);
    }
}

proptest! {
    #[test]
    fn a_log_matches_its_model(operations in log_operations()) {
        let (mut log, mut epochs, mut base) = (Log::new(Epoch(1)), vec![Epoch(1)], 0);
        for operation in operations {
            let last = epochs.len() - 1;
            match operation {
                LogOperation::Append { epochs: later, count } => {
                    let epoch = Epoch(epochs[last].0 + later);
                    for _ in 0..count {
                        log.append(epoch, Effect::Remove { key: key("a") });
                        epochs.push(epoch);
                    }
                }
                LogOperation::Truncate(index) => {
                    let to = base + index.index(last - base + 1);
                    log.truncate_after(to as Seq);
                    epochs.truncate(to + 1);
                }
                LogOperation::Trim { bytes, through } => {
                    let through = base + through.index(last - base + 1);
                    log.trim(bytes, through as Seq);
                    base = (base..=through).find(|&base| log.entries_from(base as Seq + 1).is_some()).expect("it keeps the end");
                }
            }
            check_log(&log, &epochs)?;
        }
    }

    #[test]
    fn a_replica_has_what_its_primary_had(operations in operations()) {
        check_replica(operations, Rules::default())?;
    }
}

fn check_replica(operations: Vec<Operation>, rules: Rules) -> Result<(), TestCaseError> {
    let (mut primary, mut replica) = (Primary::new(), Replica::new(rules));
    for operation in operations {
        replica.step(&mut primary, &operation);
        replica.check(&primary)?;
    }
    replica.catch_up(&mut primary);
    replica.check(&primary)?;
    prop_assert!(replica.state.is_complete() && replica.state.applied().seq == primary.last());
    prop_assert_eq!(replica.state.incomplete().count(), 0);
    Ok(())
}

/// Checks that the model notices broken rules.
#[test]
fn a_replica_that_breaks_a_rule_is_found() {
    let rules = [Rule::Truncation, Rule::ChangedVersion, Rule::Tombstones, Rule::NewerWins, Rule::CommittedApplied];
    for rule in rules {
        let (cases, max_shrink_iters, failure_persistence) = (10_000, 0, None);
        let config = ProptestConfig { cases, max_shrink_iters, failure_persistence, ..ProptestConfig::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let run = runner.run(&operations(), |operations| check_replica(operations, Rules::without(rule)));
        assert!(run.is_err(), "the state is right without {rule:?}");
    }
}
