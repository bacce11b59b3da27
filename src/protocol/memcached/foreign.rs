//! Protocols that clients try on memcached's port, and that are not served.

/// A protocol that is not served, which clients try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// memcached's binary protocol.
    Binary,
    /// HTTP, from a browser, or from a script that makes one send requests.
    Http,
    /// TLS.
    Tls,
}

impl Foreign {
    /// Its name, for the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "memcached's binary protocol",
            Self::Http => "HTTP",
            Self::Tls => "TLS",
        }
    }

    /// The protocol that input at the start of a command belongs to, if its first bytes tell.
    #[inline]
    pub(super) fn starting(input: &[u8]) -> Option<Self> {
        match *input {
            // A binary request's magic byte.
            [0x80, ..] => Some(Self::Binary),
            // A handshake record of TLS 1.0 to 1.3.
            [0x16, 3, ..] => Some(Self::Tls),
            _ => None,
        }
    }

    /// True if a line is HTTP's first: its last word is the version. memcached tells it in this way, too.
    pub(super) fn is_http(line: &[u8]) -> bool {
        let line = line.trim_ascii_end();
        line.rsplit(|&b| b == b' ').next().is_some_and(|word| word.starts_with(b"HTTP/"))
    }
}
