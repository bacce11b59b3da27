//! RESP, the protocol of Redis, versions 2 and 3. Requests are encoded alike in both versions, replies are not.

mod inline;
mod parse;
mod write;

pub use inline::INLINE_BYTES_MAX;
pub use parse::{Limits, Parsed, ProtocolError, State, UPLOAD_BYTES_MIN, UPLOAD_KEY_BYTES_MAX, parse, parse_rest};
pub use write::{Deferred, Writer};
