//! The connection balancer: how many connections each shard has, and where the next one goes. Behind a lock, as it is
//! used only when a connection comes, goes or moves.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Connections per shard, those on their way included.
pub(super) struct ConnectionBalancer {
    counts: Mutex<Vec<u32>>,
    most: u32,
}

/// Where a new connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It stays.
    Here,
    /// To this shard, which has fewer.
    There(usize),
    /// There are too many.
    Nowhere,
}

impl ConnectionBalancer {
    pub(super) fn new(shards: usize, most: u32) -> Self {
        Self { counts: Mutex::new(vec![0; shards]), most }
    }

    fn counts(&self) -> MutexGuard<'_, Vec<u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections of all shards.
    #[cfg(feature = "sim")]
    pub(super) fn total(&self) -> u32 {
        self.counts().iter().sum()
    }

    /// Places a connection that shard `here` accepted, and counts it.
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

    /// A connection that was counted for `shard` is gone.
    pub(super) fn closed(&self, shard: usize) {
        self.counts()[shard] -= 1;
    }

    /// The shard that a connection of `from` should move to, if any has at least two fewer; the move is counted.
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

    /// A connection that was counted for `from` is at `to`.
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
