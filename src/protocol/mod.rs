//! Bytes to requests and replies to bytes, per protocol. Pure: no sockets, no clock.

#![forbid(unsafe_code)]

pub mod memcached;
pub mod resp;
