//! The connection balancer: counts each shard's connections, and places new ones. A mutex suffices, as it is locked
//! only when a connection opens, closes or moves.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Connections per shard, including those that are moving to it.
pub(super) struct ConnectionBalancer {
    counts: Mutex<Vec<u32>>,
    most: u32,
}

/// The shard on which a new connection is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// The shard that accepted it.
    Here,
    /// This shard, which has fewer connections.
    There(usize),
    /// None: the node has reached its limit of connections.
    Nowhere,
}

impl ConnectionBalancer {
    pub(super) fn new(shards: usize, most: u32) -> Self {
        Self { counts: Mutex::new(vec![0; shards]), most }
    }

    fn counts(&self) -> MutexGuard<'_, Vec<u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of connections of all shards.
    #[cfg(feature = "sim")]
    pub(super) fn total(&self) -> u32 {
        self.counts().iter().sum()
    }

    /// Places and counts a connection that shard `here` accepted; a `pinned` one stays there.
    pub(super) fn place(&self, here: usize, pinned: bool) -> Placed {
        let mut counts = self.counts();
        if counts.iter().sum::<u32>() >= self.most {
            return Placed::Nowhere;
        }
        let least = lightest(&counts);
        let to = if pinned || counts[here] <= counts[least] { here } else { least };
        counts[to] += 1;
        if to == here { Placed::Here } else { Placed::There(to) }
    }

    /// Uncounts a connection of `shard`, which has closed.
    pub(super) fn closed(&self, shard: usize) {
        self.counts()[shard] -= 1;
    }

    /// The shard to which a connection of `from` should move: the one with the fewest, if it has at least two fewer.
    /// The move is counted.
    pub(super) fn lighter(&self, from: usize) -> Option<usize> {
        let mut counts = self.counts();
        let to = lightest(&counts);
        if counts[from] < counts[to] + 2 {
            return None;
        }
        counts[from] -= 1;
        counts[to] += 1;
        Some(to)
    }

    /// Counts that a connection of `from` has moved to `to`.
    pub(super) fn moved(&self, from: usize, to: usize) {
        let mut counts = self.counts();
        counts[from] -= 1;
        counts[to] += 1;
    }
}

fn lightest(counts: &[u32]) -> usize {
    let least = counts.iter().enumerate().min_by_key(|(_, count)| **count);
    least.expect("a node has at least one shard").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_differ_by_one_at_most_whoever_accepts() {
        let balancer = ConnectionBalancer::new(3, 100);
        for _ in 0..50 {
            balancer.place(1, false);
        }
        let counts = balancer.counts().clone();
        assert_eq!(counts.iter().sum::<u32>(), 50);
        assert!(counts.iter().all(|c| (16..=17).contains(c)), "{counts:?}");
    }

    #[test]
    fn what_closing_leaves_uneven_is_moved() {
        let balancer = ConnectionBalancer::new(2, 100);
        (0..20).for_each(|_| _ = balancer.place(0, false));
        (0..8).for_each(|_| balancer.closed(0));
        let moves = std::iter::from_fn(|| balancer.lighter(1)).count();
        assert_eq!((moves, balancer.lighter(0)), (4, None));
        assert_eq!(*balancer.counts(), [6, 6]);
    }

    #[test]
    fn pinned_connections_stay_and_too_many_are_refused() {
        let balancer = ConnectionBalancer::new(2, 3);
        for _ in 0..3 {
            assert_eq!(balancer.place(1, true), Placed::Here);
        }
        assert_eq!(balancer.place(0, false), Placed::Nowhere);
        balancer.closed(1);
        assert_eq!(balancer.place(1, false), Placed::There(0));
    }
}
