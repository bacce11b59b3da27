//! Encodes replies as memcached writes them.

use crate::command::{Failure, Reply, ValueHead};
use crate::eviction::Eviction;
use std::borrow::Cow;

/// The reply to `version`. It begins with the memcached version whose protocol is implemented: clients parse it as
/// numbers, and some (libmemcached) reject a major version of 0.
pub const VERSION_TEXT: &str = concat!("1.6.45-pinion-", env!("CARGO_PKG_VERSION"));

/// Appends a reply to a connection's output.
#[inline]
pub fn encode(reply: &Reply, out: &mut Vec<u8>) {
    match *reply {
        Reply::Value { head, value } => {
            out.reserve(value.len() + head.key.len() + 64);
            encode_head(&head, value.len(), out);
            out.extend_from_slice(value);
            encode_tail(&head, out);
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

/// Appends the header of a value; its bytes follow.
#[inline]
pub fn encode_head(head: &ValueHead, length: usize, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(head.key);
    out.push(b' ');
    out.extend_from_slice(digits.format(head.flags).as_bytes());
    out.push(b' ');
    out.extend_from_slice(digits.format(length).as_bytes());
    if let Some(version) = head.version {
        out.push(b' ');
        out.extend_from_slice(digits.format(version).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a value, behind its bytes.
#[inline]
pub fn encode_tail(head: &ValueHead, out: &mut Vec<u8>) {
    out.extend_from_slice(if head.last { b"\r\nEND\r\n" } else { b"\r\n" });
}

/// memcached's error texts, which clients compare.
fn text(failure: Failure) -> Cow<'static, str> {
    let text = match failure {
        Failure::Unknown => "ERROR",
        Failure::BadFormat => "CLIENT_ERROR bad command line format",
        Failure::BadLine => "CLIENT_ERROR bad command line",
        Failure::DetailUsage => "CLIENT_ERROR usage: stats detail on|off|dump",
        Failure::BadDataChunk => "CLIENT_ERROR bad data chunk",
        Failure::InvalidExpiry => "CLIENT_ERROR invalid exptime argument",
        Failure::InvalidDelta => "CLIENT_ERROR invalid numeric delta argument",
        Failure::NotANumber => "CLIENT_ERROR cannot increment or decrement non-numeric value",
        Failure::DeleteUsage => "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]",
        Failure::InvalidEviction => return format!("CLIENT_ERROR allowed: {}", Eviction::names()).into(),
        Failure::OutOfMemory => "SERVER_ERROR out of memory storing object",
        Failure::WrongType => "CLIENT_ERROR wrong type: the key has no string",
        Failure::TooLarge => "SERVER_ERROR object too large for cache",
        Failure::ShutdownDisabled => "SERVER_ERROR: shutdown not enabled",
    };
    text.into()
}
