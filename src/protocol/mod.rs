//! Bytes to requests and replies to bytes, per protocol. Pure: no sockets, no clock.

#![forbid(unsafe_code)]

pub mod memcached;
pub mod resp;

/// Where in its protocol a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its first byte tells: `*` begins a command of RESP.
    Unknown,
    /// memcached's text protocol.
    Memcached(memcached::State),
    /// RESP.
    Resp(resp::State),
}

impl State {
    /// True at the start of a command.
    pub fn is_at_start(self) -> bool {
        match self {
            Self::Unknown => true,
            Self::Memcached(state) => state == memcached::State::Command,
            Self::Resp(state) => state == resp::State::Command,
        }
    }
}
