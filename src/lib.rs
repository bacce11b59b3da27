//! Pinion: a distributed in-memory cache.
//!
//! One process is a *node*; a node runs one *shard* per pinned core; a shard owns a disjoint part of the keyspace with
//! its own memory, index, io_uring and connections. Nothing on the request path is shared: cores talk by messages.
//! ARCHITECTURE.md tells how the modules fit; `tests/tidy.rs` holds them to it.

pub mod cli;
pub mod cluster;
pub mod command;
pub mod config;
pub mod engine;
pub mod eviction;
pub mod execute;
pub mod log;
pub mod mesh;
pub mod metrics;
pub mod node;
pub mod protocol;
pub mod reactor;
pub mod replay;
pub mod replication;
pub mod server;
pub mod shard;
pub mod slots;
pub mod sys;
pub mod values;
