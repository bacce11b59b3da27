//! The transport: between a socket's bytes and those of the protocol spoken over it.
//!
//! Plain TCP passes bytes through. TLS will decrypt in [`Transport::opened`] and encrypt in [`Transport::sealed`], and
//! nothing above this file will change: a connection sees the protocol's bytes alone.

/// How a connection's bytes travel.
#[derive(Debug, Default)]
pub(super) enum Transport {
    /// As they are.
    #[default]
    Plain,
}

impl Transport {
    /// The protocol's bytes in what the socket delivered.
    #[inline]
    pub(super) fn opened<'a>(&mut self, received: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Plain => received,
        }
    }

    /// The socket's bytes for a piece of output.
    #[inline]
    pub(super) fn sealed(&mut self, output: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Plain => output,
        }
    }
}
