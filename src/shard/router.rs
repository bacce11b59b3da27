//! The router: which shard owns a key, and per sibling a batch that is being filled and at most one that is under way.

use super::batch::{Batch, TaskKind};
use crate::command::Part;
use crate::execute::resp::keyspace::CURSOR_SHARD_BITS;
use crate::reactor::Token;
use std::ops::Range;

/// The way to one sibling.
struct Route<S> {
    filling: Box<Batch<S>>,
    /// The other batch, while it is not under way.
    spare: Option<Box<Batch<S>>>,
}

/// One shard's ways to all others.
pub(super) struct Router<S> {
    /// This shard.
    id: usize,
    /// One per shard; this shard's own is never used.
    routes: Vec<Route<S>>,
}

impl<S> Router<S> {
    pub(super) fn new(id: usize, shards: usize) -> Self {
        let route = |to| Route { filling: Box::new(Batch::new(id, to)), spare: Some(Box::new(Batch::new(id, to))) };
        Self { id, routes: (0..shards).map(route).collect() }
    }

    /// The number of shards, this one included.
    #[inline]
    pub(super) fn shards(&self) -> usize {
        self.routes.len()
    }

    /// All other shards.
    pub(super) fn siblings(&self) -> impl Iterator<Item = usize> + use<S> {
        let id = self.id;
        (0..self.routes.len()).filter(move |&to| to != id)
    }

    /// The batch that is being filled for a sibling.
    #[inline]
    pub(super) fn batch(&mut self, to: usize) -> &mut Batch<S> {
        &mut self.routes[to].filling
    }

    /// True if the batches to all of these shards, this one left out, take another task.
    #[inline]
    pub(super) fn has_room(&self, mut shards: Range<usize>) -> bool {
        !shards.any(|to| to != self.id && self.routes[to].filling.is_full())
    }

    /// The shard at which a SCAN goes on whose page is not full, if that shard's batch takes another task. If not, the
    /// client goes on with the page's cursor.
    pub(super) fn next_of_scan(&self, part: Part) -> Option<usize> {
        let Part::Page { next, left, .. } = part else { return None };
        let begins = next != 0 && next >> CURSOR_SHARD_BITS == 0;
        let shard = next as usize;
        (left > 0 && begins && self.has_room(shard..shard + 1)).then_some(shard)
    }

    /// Has the owner close the reader of a long value.
    pub(super) fn close_stream(&mut self, owner: usize, stream: u64, token: Token) {
        self.routes[owner].filling.push_task(token, TaskKind::CloseStream { stream });
    }

    /// The batch to send to a sibling now, if there is something to send and nothing is under way.
    pub(super) fn take(&mut self, to: usize) -> Option<Box<Batch<S>>> {
        let route = &mut self.routes[to];
        if route.filling.is_empty() {
            return None;
        }
        let spare = route.spare.take()?;
        Some(std::mem::replace(&mut route.filling, spare))
    }

    /// A batch has come back and all of it is done. True if the next one is full already: then connections wait for it
    /// to be sent.
    pub(super) fn came_back(&mut self, mut batch: Box<Batch<S>>) -> bool {
        let route = &mut self.routes[batch.to];
        batch.clear();
        route.spare = Some(batch);
        route.filling.is_full()
    }

    /// Changes how many tasks and bytes a batch takes.
    #[cfg(feature = "sim")]
    pub(super) fn set_batch_limits(&mut self, limits: (usize, usize)) {
        for route in &mut self.routes {
            route.filling.limits = limits;
            route.spare.iter_mut().for_each(|batch| batch.limits = limits);
        }
    }

    /// True if nothing is being filled or under way. For the simulator's accounting.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn is_idle(&self) -> bool {
        self.routes.iter().all(|route| route.filling.is_empty() && route.spare.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Administration;

    #[test]
    fn one_batch_is_under_way_at_a_time() {
        let mut router: Router<()> = Router::new(0, 2);
        let token = Token { slot: 0, generation: 0 };
        assert!(router.take(1).is_none() && router.is_idle());
        router.batch(1).push_administration(token, 0, Administration::SetMemory(1));
        let sent = router.take(1).expect("a task to send");
        router.batch(1).push_administration(token, 1, Administration::SetMemory(2));
        assert!(router.take(1).is_none(), "the first is under way");
        assert!(!router.came_back(sent));
        assert_eq!(router.take(1).expect("the next").tasks[0].sequence, 1);
    }

    /// SCAN 0 COUNT 100 of a node with one key replied a cursor that led nowhere, once per shard.
    #[test]
    fn a_scan_goes_on_at_the_next_shard_while_its_page_is_not_full() {
        let router: Router<()> = Router::new(0, 3);
        let page = |next, left| Part::Page { elements: 0, next, left };
        assert_eq!(router.next_of_scan(page(1, 5)), Some(1), "the first shard is at its end");
        assert_eq!(router.next_of_scan(page(1, 0)), None, "the page is full");
        assert_eq!(router.next_of_scan(page(1 << CURSOR_SHARD_BITS | 1, 5)), None, "it is not at its end");
        assert_eq!(router.next_of_scan(page(0, 5)), None, "all shards are");
        assert_eq!(router.next_of_scan(Part::Done), None);
    }

    #[test]
    fn a_full_batch_has_no_room() {
        let mut router: Router<()> = Router::new(1, 3);
        let token = Token { slot: 0, generation: 0 };
        while router.has_room(2..3) {
            router.batch(2).push_piece(token, &[0; 1 << 10]);
        }
        assert!(router.has_room(0..2) && !router.has_room(0..3));
        let sent = router.take(2).expect("a full batch");
        assert!(router.has_room(0..3), "the other one is empty");
        while router.has_room(0..3) {
            router.batch(2).push_piece(token, &[0; 1 << 10]);
        }
        assert!(router.came_back(sent), "connections wait for the next to be sent");
        assert_eq!(router.siblings().collect::<Vec<_>>(), [0, 2]);
    }
}
