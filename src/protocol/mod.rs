//! Parses requests from bytes and encodes replies as bytes, per protocol. Pure: no sockets, no clock.

#![forbid(unsafe_code)]

pub mod memcached;
pub mod resp;

/// A connection's protocol, and its position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not known before the first byte: `*` begins a command of RESP.
    Unknown,
    /// memcached's text protocol.
    Memcached(memcached::State),
    /// RESP.
    Resp(resp::State),
}

impl State {
    /// True if the next byte starts a command.
    pub fn is_at_start(self) -> bool {
        match self {
            Self::Unknown => true,
            Self::Memcached(state) => state == memcached::State::Command,
            Self::Resp(state) => state == resp::State::Command,
        }
    }
}
