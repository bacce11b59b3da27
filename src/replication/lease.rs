//! Leases, which let a primary assume for a while that no other node is primary.
//!
//! ```text
//! primary  ──request, 100──►  holder                primary's clock    holder's clock
//!          ◄─grant of 100──   (notes its time t)
//!          valid until 100 + 600                    does not serve as primary before t + 800
//! ```
//!
//! A lease is between two nodes, for all groups they share, so its cost depends on the number of nodes only. It means:
//! *I know of no newer map that changes your role; if I learn of one, I wait before I take your place.* A grant
//! therefore counts only if the granter's map is not newer than the receiver's, and a new primary waits until every
//! lease it granted to its predecessor has expired.
//!
//! Times are read from clocks that advance while the machine sleeps (CLOCK_BOOTTIME). Two of them may differ in rate by
//! a factor of `GRACE / LEASE`, that is, by a third.

use super::Ms;
use crate::cluster::Identity;
use std::collections::BTreeMap;

/// Validity of a lease, from when it was requested, by the receiver's clock.
pub const LEASE_MS: u64 = 600;
/// How long a granter waits from its last grant, by its own clock, before it serves as primary itself.
pub const GRACE_MS: u64 = 800;
/// Period of lease requests.
pub(super) const REQUEST_INTERVAL_MS: u64 = 100;

const _: () = assert!(GRACE_MS >= LEASE_MS + LEASE_MS / 4);

/// The leases that a node has granted and holds.
#[derive(Debug, Default)]
pub(super) struct Leases {
    granted: BTreeMap<Identity, Ms>,
    /// Expiry of the leases held, by this node's clock.
    held: BTreeMap<Identity, Ms>,
}

impl Leases {
    /// Notes a lease granted to `to`.
    pub(super) fn grant(&mut self, to: Identity, now: Ms) {
        self.granted.insert(to, now);
    }

    /// Notes a lease granted by `from` in answer to the request of time `requested_at`.
    pub(super) fn receive(&mut self, from: Identity, requested_at: Ms, now: Ms) {
        let until = requested_at.saturating_add(LEASE_MS);
        if requested_at <= now {
            let held = self.held.entry(from).or_default();
            *held = until.max(*held);
        }
    }

    /// True if this node holds a valid lease of `from`.
    pub(super) fn holds(&self, from: Identity, now: Ms) -> bool {
        self.held.get(&from).is_some_and(|&until| now < until)
    }

    /// Expiry of the last lease of `from`; 0 if there was none.
    pub(super) fn held_until(&self, from: Identity) -> Ms {
        self.held.get(&from).copied().unwrap_or(0)
    }

    /// When the last lease granted to `to` has certainly expired; 0 if there was none.
    pub(super) fn ended_for(&self, to: Identity) -> Ms {
        self.granted.get(&to).map_or(0, |&granted| granted + GRACE_MS)
    }

    /// Drops the leases of nodes that are no longer live members. Granted leases are kept until they have expired.
    pub(super) fn retain(&mut self, is_live: impl Fn(Identity) -> bool, now: Ms) {
        self.held.retain(|&identity, _| is_live(identity));
        self.granted.retain(|&identity, &mut granted| is_live(identity) || granted + GRACE_MS > now);
    }
}
