//! Replies as memcached writes them.

use crate::command::{Failure, Reply};

/// What `version` answers. The first part is the memcached whose protocol this is: clients parse it as numbers and some
/// (libmemcached) refuse a major version of 0.
pub const VERSION_TEXT: &str = concat!("1.6.45-pinion-", env!("CARGO_PKG_VERSION"));

/// Appends a reply to a connection's output.
#[inline]
pub fn encode(reply: &Reply, out: &mut Vec<u8>) {
    match *reply {
        Reply::Value { key, flags, version, value, last } => {
            let mut digits = itoa::Buffer::new();
            out.reserve(value.len() + key.len() + 64);
            out.extend_from_slice(b"VALUE ");
            out.extend_from_slice(key);
            out.push(b' ');
            out.extend_from_slice(digits.format(flags).as_bytes());
            out.push(b' ');
            out.extend_from_slice(digits.format(value.len()).as_bytes());
            if let Some(version) = version {
                out.push(b' ');
                out.extend_from_slice(digits.format(version).as_bytes());
            }
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(value);
            out.extend_from_slice(if last { b"\r\nEND\r\n" } else { b"\r\n" });
        }
        Reply::Miss { last: true } => out.extend_from_slice(b"END\r\n"),
        Reply::Miss { last: false } => {}
        Reply::Stored => out.extend_from_slice(b"STORED\r\n"),
        Reply::NotStored => out.extend_from_slice(b"NOT_STORED\r\n"),
        Reply::Exists => out.extend_from_slice(b"EXISTS\r\n"),
        Reply::NotFound => out.extend_from_slice(b"NOT_FOUND\r\n"),
        Reply::Deleted => out.extend_from_slice(b"DELETED\r\n"),
        Reply::Touched => out.extend_from_slice(b"TOUCHED\r\n"),
        Reply::Number(n) => {
            out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Reply::Ok => out.extend_from_slice(b"OK\r\n"),
        Reply::Version => {
            out.extend_from_slice(b"VERSION ");
            out.extend_from_slice(VERSION_TEXT.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Reply::Failed(failure) => {
            out.extend_from_slice(text(failure).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// memcached's words, which clients compare.
fn text(failure: Failure) -> &'static str {
    match failure {
        Failure::Unknown => "ERROR",
        Failure::BadFormat => "CLIENT_ERROR bad command line format",
        Failure::BadDataChunk => "CLIENT_ERROR bad data chunk",
        Failure::InvalidExpiry => "CLIENT_ERROR invalid exptime argument",
        Failure::InvalidDelta => "CLIENT_ERROR invalid numeric delta argument",
        Failure::NotANumber => "CLIENT_ERROR cannot increment or decrement non-numeric value",
        Failure::DeleteUsage => "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]",
        Failure::TooLarge => "SERVER_ERROR object too large for cache",
        Failure::ShutdownDisabled => "ERROR: shutdown not enabled",
    }
}
