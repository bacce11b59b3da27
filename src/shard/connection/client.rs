//! What a shard knows of a client that speaks RESP: its identity, and how it wants to be answered.

use crate::command::UnixMs;
use crate::command::table::Row;
use crate::protocol::resp::Limits;

/// Which replies a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) enum Replies {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// All but that to the next command.
    Skip,
}

/// A client that speaks RESP.
#[derive(Debug)]
pub(in crate::shard) struct Client {
    /// Unique in the node, increasing.
    pub(in crate::shard) id: u64,
    /// It has switched to RESP3.
    pub(in crate::shard) resp3: bool,
    /// It has given the password, or none is needed.
    pub(in crate::shard) authenticated: bool,
    /// It has given a wrong password, and waits for the reply.
    pub(in crate::shard) is_delayed: bool,
    /// It was refused MULTI: what follows, up to EXEC or DISCARD, is refused too.
    pub(in crate::shard) in_refused_transaction: bool,
    /// Number of the database that it has selected.
    pub(in crate::shard) database: u8,
    pub(in crate::shard) replies: Replies,
    pub(in crate::shard) name: Vec<u8>,
    pub(in crate::shard) library: Vec<u8>,
    pub(in crate::shard) library_version: Vec<u8>,
    pub(in crate::shard) address: String,
    pub(in crate::shard) local_address: String,
    pub(in crate::shard) connected: UnixMs,
    /// When it last sent a command, and which.
    pub(in crate::shard) active: UnixMs,
    pub(in crate::shard) last_command: Option<&'static Row>,
    /// Its commands do not count as uses of keys; it is not disconnected to save memory.
    pub(in crate::shard) no_touch: bool,
    pub(in crate::shard) no_evict: bool,
}

impl Client {
    pub(in crate::shard) fn new(
        id: u64,
        authenticated: bool,
        address: String,
        local_address: String,
        now: UnixMs,
    ) -> Self {
        Self {
            id,
            resp3: false,
            authenticated,
            is_delayed: false,
            in_refused_transaction: false,
            database: 0,
            replies: Replies::On,
            name: Vec::new(),
            library: Vec::new(),
            library_version: Vec::new(),
            address,
            local_address,
            connected: now,
            active: now,
            last_command: None,
            no_touch: false,
            no_evict: false,
        }
    }

    /// True if its commands are executed rather than refused one and all.
    #[inline]
    pub(in crate::shard) fn is_admitted(&self) -> bool {
        self.authenticated & !self.in_refused_transaction
    }

    /// The limits on a command of this client, whose strings have at most `bulk_bytes_max` bytes.
    #[inline]
    pub(in crate::shard) fn limits(&self, bulk_bytes_max: usize) -> Limits {
        match self {
            _ if self.is_admitted() => Limits::authenticated(bulk_bytes_max),
            Self { authenticated: true, .. } => Limits::refused(bulk_bytes_max),
            _ => Limits::UNAUTHENTICATED,
        }
    }

    /// Notes the client's latest command.
    pub(in crate::shard) fn sent(&mut self, command: &'static Row, now: UnixMs) {
        (self.active, self.last_command) = (now, Some(command));
    }

    /// True if the reply to this command is suppressed. Ends a SKIP.
    pub(in crate::shard) fn take_noreply(&mut self) -> bool {
        match self.replies {
            Replies::On => false,
            Replies::Off => true,
            Replies::Skip => {
                self.replies = Replies::On;
                true
            }
        }
    }

    /// Returns to the state of a new connection, for RESET. `authenticated`: no password is needed.
    pub(in crate::shard) fn reset(&mut self, authenticated: bool) {
        self.resp3 = false;
        self.authenticated = authenticated;
        self.in_refused_transaction = false;
        self.database = 0;
        self.replies = Replies::On;
        self.name.clear();
        self.no_touch = false;
        self.no_evict = false;
    }
}
