//! memcached's classic text protocol, per protocol.txt of memcached 1.6; where that is silent, as memcached 1.6
//! behaves.

mod foreign;
mod parse;
mod reply;

pub use foreign::Foreign;
pub use parse::{LINE_BYTES_MAX, LINE_END, Parsed, State, parse};
pub use reply::{VERSION_TEXT, encode, encode_head, encode_tail};
