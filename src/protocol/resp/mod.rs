//! RESP, the protocol of Redis, versions 2 and 3. Requests are the same in both, replies are not.

mod write;

pub use write::{Deferred, Writer};
