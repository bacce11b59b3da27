//! Leases: what lets a primary believe for a while that nobody else is one.
//!
//! ```text
//! primary  ──request, 100──►  holder               its clock    a clock
//!          ◄─grant of 100──   (remembers when)
//!          valid until 100 + 600                   nobody else serves before (when) + 800
//! ```
//!
//! A lease is between two nodes, whatever groups they share, so the cost is that of the nodes and not of the groups. It means: *I
//! have not heard of a map, later than yours, in which you are not what you are; if I do, I wait before I take your place.* So
//! a grant counts only if the granter's map is none that the receiver does not have yet, and who becomes primary waits
//! until no grant that it gave to the last one can be valid.
//!
//! Times are of clocks that go on while a machine sleeps (CLOCK_BOOTTIME). Two of them may run apart by
//! `GRACE / LEASE`: a third.

use super::Ms;
use crate::cluster::Identity;
use std::collections::BTreeMap;

/// How long a lease is valid, from when it was asked for.
pub const LEASE_MS: u64 = 600;
/// How long a granter waits, from when it gave the last one.
pub const GRACE_MS: u64 = 800;
/// How often leases are asked for.
pub(super) const REQUEST_INTERVAL_MS: u64 = 100;

const _: () = assert!(GRACE_MS >= LEASE_MS + LEASE_MS / 4);

/// The leases that a node has given and been given.
#[derive(Debug, Default)]
pub(super) struct Leases {
    granted: BTreeMap<Identity, Ms>,
    /// Until when, by this node's clock.
    held: BTreeMap<Identity, Ms>,
}

impl Leases {
    /// Notes that one is given.
    pub(super) fn grant(&mut self, to: Identity, now: Ms) {
        self.granted.insert(to, now);
    }

    /// Notes one that was given, for a request of that time.
    pub(super) fn receive(&mut self, from: Identity, requested_at: Ms, now: Ms) {
        let until = requested_at.saturating_add(LEASE_MS);
        if requested_at <= now {
            let held = self.held.entry(from).or_default();
            *held = until.max(*held);
        }
    }

    /// True if that node has promised to wait.
    pub(super) fn holds(&self, from: Identity, now: Ms) -> bool {
        self.held.get(&from).is_some_and(|&until| now < until)
    }

    /// Until when it has, or had.
    pub(super) fn held_until(&self, from: Identity) -> Ms {
        self.held.get(&from).copied().unwrap_or(0)
    }

    /// When whatever was granted to a node has ended.
    pub(super) fn ended_for(&self, to: Identity) -> Ms {
        self.granted.get(&to).map_or(0, |&granted| granted + GRACE_MS)
    }

    /// Forgets who is not a member any more. What was granted is kept until it has ended.
    pub(super) fn retain(&mut self, is_live: impl Fn(Identity) -> bool, now: Ms) {
        self.held.retain(|&identity, _| is_live(identity));
        self.granted.retain(|&identity, &mut granted| is_live(identity) || granted + GRACE_MS > now);
    }
}
