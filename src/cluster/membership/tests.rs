//! Membership in a simulated network: virtual time, seeded loss, pauses and cuts, and an oracle in place of Raft and
//! the map.

mod figures;
mod gossiping;
mod joining;
mod net;
mod random;
mod silence;
