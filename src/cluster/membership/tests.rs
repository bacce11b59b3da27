//! Membership in a simulated network: virtual time, seeded loss, pauses, cuts, and an oracle in the place of Raft and the map.

mod figures;
mod gossiping;
mod joining;
mod net;
mod random;
mod silence;
