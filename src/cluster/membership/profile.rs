//! What a node tells others of itself, to join them and to be found by them.

use crate::cluster::{Identity, Member, NodeId};
use serde::{Deserialize, Serialize};

/// Bytes of an address, at most: a DNS name and a port.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// Bytes of a zone's name, at most.
pub const ZONE_BYTES_MAX: usize = 64;

/// Bytes of an encoded profile, at most: four numbers of up to ten bytes, two texts with their lengths.
pub(super) const PROFILE_BYTES_MAX: usize = 4 * 10 + (1 + ZONE_BYTES_MAX) + (2 + ADDRESS_BYTES_MAX);

/// One life of a node, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// What placement has to know of it.
    pub member: Member,
    /// Larger with each start of the node.
    pub incarnation: u64,
    /// Its name in Raft: another one if it has lost its disk.
    pub raft_id: u64,
    /// Where it listens for other nodes.
    pub address: String,
}

/// Whether somebody might be at an address: a decoded one may be anything.
pub(super) fn is_address(address: &str) -> bool {
    !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX
}

/// Why a profile is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Nobody could reach the node, or its address is absurdly long.
    #[error("an address has 1 to {ADDRESS_BYTES_MAX} bytes")]
    Address,
    /// The zone's name is too long.
    #[error("a zone's name has at most {ZONE_BYTES_MAX} bytes")]
    Zone,
}

impl Profile {
    /// Whose profile it is.
    pub fn identity(&self) -> Identity {
        Identity { node: self.node(), incarnation: self.incarnation }
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.member.id
    }

    /// Whether its texts are within their bounds: a decoded profile may have any.
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
