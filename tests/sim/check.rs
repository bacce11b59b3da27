//! Checks clients' histories against the guarantees of their consistency levels.

use crate::store::Item;
use crate::world::{Us, World};
use pinion::replication::Key;
use pinion::slots::Group;
use std::collections::{BTreeMap, BTreeSet};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as Ordered};
use todc_utils::specifications::Specification;

/// An operation on a strong key, with its result.
#[derive(Clone, Debug)]
pub enum What {
    Get(Vec<u32>),
    Put(u32),
    Delete,
    Append(u32, Option<bool>),
    Add(u32, Option<bool>),
    /// A value with a time to live has expired.
    Expire(u32),
    /// The key was evicted, or its group lost: a cache may miss.
    Vanish,
}

#[derive(Clone, Debug)]
struct Operation {
    called: Us,
    /// None if it is unknown whether the operation took effect.
    ended: Option<Us>,
    what: What,
}

/// The histories of all clients.
#[derive(Default)]
pub struct History {
    strong: BTreeMap<Key, Vec<Operation>>,
    vanished: BTreeMap<Key, Vec<Us>>,
    lost: Vec<(Group, Us)>,
    /// Values that eventual writes may have left.
    pub eventual: BTreeSet<u32>,
}

impl History {
    pub fn add(&mut self, key: &Key, called: Us, ended: Option<Us>, what: What) {
        self.strong.entry(key.clone()).or_default().push(Operation { called, ended, what });
    }

    pub fn vanish(&mut self, key: &Key, at: Us) {
        self.vanished.entry(key.clone()).or_default().push(at);
    }

    /// The map opened a group empty because all its in-sync holders were gone.
    pub fn lose(&mut self, group: Group, at: Us) {
        self.lost.push((group, at));
    }

    pub fn may_have_vanished(&self, key: &Key) -> bool {
        self.vanished.contains_key(key)
    }

    /// The strong keys whose histories are not linearizable.
    pub fn not_linearizable(&self) -> Vec<Key> {
        let is_bad = |key: &&Key| !self.is_linearizable(key);
        self.strong.keys().filter(is_bad).cloned().collect()
    }

    fn is_linearizable(&self, key: &Key) -> bool {
        let mut operations = self.strong[key].clone();
        let evictions = self.vanished.get(key).into_iter().flatten();
        let losses = self.lost.iter().filter(|(group, _)| *group == Group::of(key)).map(|(_, at)| at);
        for &at in evictions.chain(losses) {
            operations.push(Operation { called: at, ended: None, what: What::Vanish });
        }
        // At equal times calls come before responses, so that operations that touch in a point overlap.
        let end = Us::MAX;
        let mut moments: Vec<(Us, bool, usize)> = Vec::new();
        for (number, operation) in operations.iter().enumerate() {
            moments.push((operation.called, false, number));
            moments.push((operation.ended.unwrap_or(end), true, number));
        }
        moments.sort_unstable();
        let action = |&(_, is_end, number): &(Us, bool, usize)| {
            let what = operations[number].what.clone();
            (number, if is_end { Action::Response(what) } else { Action::Call(what) })
        };
        WGLChecker::<CachedKey>::is_linearizable(Ordered::from_actions(moments.iter().map(action).collect()))
    }

    pub fn print(&self, key: &Key) {
        let mut operations = self.strong[key].clone();
        operations.sort_by_key(|operation| operation.called);
        for Operation { called, ended, what } in operations {
            let ended = ended.map_or("?".to_string(), |ended| format!("{:.3}", ended as f64 / 1000.0));
            println!("  {:>10.3} .. {ended:>10}  {what:?}", called as f64 / 1000.0);
        }
    }
}

/// A key of a cache: the values that were put and appended, empty if the key is missing.
struct CachedKey;

impl Specification for CachedKey {
    type State = Vec<u32>;
    type Operation = What;

    fn init() -> Vec<u32> {
        Vec::new()
    }

    fn apply(what: &What, state: &Vec<u32>) -> (bool, Vec<u32>) {
        let is_there = !state.is_empty();
        match what {
            What::Get(values) => (values == state, state.clone()),
            What::Put(value) => (true, vec![*value]),
            What::Delete | What::Vanish => (true, Vec::new()),
            What::Append(value, done) => {
                let appended = state.iter().copied().chain(is_there.then_some(*value)).collect();
                (done.is_none_or(|done| done == is_there), appended)
            }
            What::Add(value, done) => {
                let state = if is_there { state.clone() } else { vec![*value] };
                (done.is_none_or(|done| done != is_there), state)
            }
            What::Expire(value) => {
                let expires = state.first() == Some(value);
                (true, if expires { Vec::new() } else { state.clone() })
            }
        }
    }
}

/// Why the cluster has not converged, if so: maps differ, copies are missing, or their contents differ.
pub fn divergence(world: &World) -> Option<String> {
    let nodes: Vec<_> =
        world.hosts.iter().filter_map(|host| host.node.as_ref().map(|node| (node, &host.store))).collect();
    let wanted = nodes.len().min(usize::from(world.options.replicas));
    let (first, _) = nodes.first()?;
    for &group in &world.options.groups {
        let assignment = first.map().assignment(group);
        if nodes.iter().any(|(node, _)| node.map().assignment(group) != assignment) {
            return Some(format!("maps differ about group {}", group.index()));
        }
        if assignment.in_sync.len() != wanted || !assignment.learners.is_empty() {
            return Some(format!("group {} does not have the wanted copies: {assignment:?}", group.index()));
        }
        let holds = |identity| nodes.iter().find(|(node, _)| node.identity() == identity);
        let mut contents: Vec<BTreeMap<Key, Item>> = Vec::new();
        for &identity in &assignment.in_sync {
            let Some((_, store)) = holds(identity) else {
                return Some(format!("group {} is held by {identity}, which is not running", group.index()));
            };
            contents.push(store.contents(group, world.true_wall_ms()));
        }
        let keys: BTreeSet<&Key> = contents.iter().flat_map(BTreeMap::keys).collect();
        for key in keys {
            let items = || contents.iter().map(|content| content.get(key));
            let mut held = items().flatten();
            let first = held.next();
            let differ = held.any(|item| Some(item) != first);
            // A replica may have evicted it on its own.
            let is_missing = items().any(|item| item.is_none()) && !world.history.may_have_vanished(key);
            if differ || is_missing {
                let name = String::from_utf8_lossy(key);
                return Some(format!("copies of {name} differ: {:?}", items().collect::<Vec<_>>()));
            }
        }
    }
    None
}
