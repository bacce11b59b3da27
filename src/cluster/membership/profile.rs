//! A node's description of itself, for joining and for discovery.

use crate::cluster::{Identity, Member, NodeId};
use serde::{Deserialize, Serialize};

/// Longest address, in bytes: a DNS name and a port.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// Longest zone name, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;

/// Longest encoded profile, in bytes: four numbers of up to ten bytes, and two texts with their lengths.
pub(super) const PROFILE_BYTES_MAX: usize = 4 * 10 + (1 + ZONE_BYTES_MAX) + (2 + ADDRESS_BYTES_MAX);

/// An incarnation of a node as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its properties for placement.
    pub member: Member,
    /// Larger with each start of the node.
    pub incarnation: u64,
    /// Its Raft id, which changes if the node loses its disk.
    pub raft_id: u64,
    /// Its address for other nodes.
    pub address: String,
}

/// Whether a decoded address is within its bounds.
pub(super) fn is_address(address: &str) -> bool {
    !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX
}

/// Why a profile is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The address is empty or too long.
    #[error("an address has 1 to {ADDRESS_BYTES_MAX} bytes")]
    Address,
    /// The zone name is too long.
    #[error("a zone's name has at most {ZONE_BYTES_MAX} bytes")]
    Zone,
}

impl Profile {
    /// The incarnation described.
    pub fn identity(&self) -> Identity {
        Identity { node: self.node(), incarnation: self.incarnation }
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.member.id
    }

    /// Checks that the texts of a decoded profile are within their bounds.
    pub fn check(&self) -> Result<(), ProfileError> {
        if !is_address(&self.address) {
            return Err(ProfileError::Address);
        }
        if self.member.zone.len() > ZONE_BYTES_MAX {
            return Err(ProfileError::Zone);
        }
        Ok(())
    }
}
