//! One client's connection: a state machine without a socket.
//!
//! It is told what happened (`on_receive`, `on_bytes`, `on_receive_ended`, `on_sent`, `on_reply`, `on_part`, …) and
//! says what to do next ([`Connection::next_action`]). Parsing and executing its input is the shard's (`read.rs`,
//! `dispatch.rs`), its socket is in the table of connections (`table.rs`).
//!
//! | file | concept |
//! |---|---|
//! | `phase.rs` | from the first byte to the last: serving, closing, moving; the next action |
//! | `replies.rs`, `gather.rs` | the order of replies; replies that are merged from parts |
//! | `upload.rs`, `download.rs` | long values from and to the client |
//! | `client.rs` | what a client that speaks RESP has told about itself |
//! | `table.rs` | a shard's connections, and which of them need attention |

mod client;
mod download;
mod gather;
mod phase;
mod replies;
mod table;
mod upload;

use super::faults::{self, Fault};
use super::transport::Transport;
use crate::command::{Part, Session};
use crate::engine::Reader;
use crate::execute::LongReply;
use crate::protocol::State;
use crate::reactor::{Errno, Pieces};
pub(super) use client::{Client, Replies};
pub(super) use download::{Download, Fetch, PIECE_BYTES, Source, StreamStart};
pub(super) use gather::Gather;
pub(super) use phase::Action;
use phase::Phase;
use replies::ReplyQueue;
use std::time::{Duration, Instant};
pub(super) use table::{ConnectionId, Connections, Moving};
pub(super) use upload::{UploadSource, UploadStep};

/// A connection with this many bytes of output is not served until most of them are sent. If its client takes nothing
/// for a while, its limit is raised (`limits.rs`).
pub(super) const OUTPUT_BYTES_HIGH: usize = 256 << 10;
/// Of the limit of its output, the part down to which output must be sent before a connection is served again.
const OUTPUT_SHARE_LOW: usize = 4;
/// Then it is served again. More output than this is not held back for replies of siblings either.
pub(super) const OUTPUT_BYTES_LOW: usize = 64 << 10;
/// The expected length of a sibling's reply before any has come: 32 requests may be on their way.
const REPLY_BYTES_FIRST: usize = 8 << 10;
/// The least expected length, however short replies have been: 128 requests may be on their way.
const REPLY_BYTES_LEAST: usize = 2 << 10;
/// Replies that may be outstanding at once.
const REPLIES_MAX: usize = 4096;
/// Capacity that an input or output buffer keeps while it is empty.
pub(super) const BUFFER_BYTES_KEPT: usize = 16 << 10;
/// A connection that waits goes on receiving until it has this much input; then comes only what the kernel had received
/// before the receive ended.
const WAITING_BYTES_MAX: usize = 16 << 10;

/// After a long value, so many receives take one buffer each.
const RECEIVES_ONCE: u8 = 16;

/// A few replies are held back so that those that siblings owe can go out in the same send. They leave when all of
/// those have come, or with the first that comes after this time: a connection that always has a reply outstanding does
/// not hold its output for ever.
const HOLD: Duration = Duration::from_micros(100);

/// Why a connection's input is not used for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Its output must be sent first, and its replies from siblings must come.
    Output,
    /// A batch to a sibling is full; the connection is in the shard's list of those that wait for that.
    Mesh,
    /// It has used up its share of this turn; it is in the shard's list of those that resume in the next.
    Turn,
    /// Its client gave a wrong password: the reply waits for the next tick.
    Tick,
}

/// The receive of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receive {
    Off,
    /// Bytes come until an event says otherwise.
    Armed,
    /// It is being cancelled: bytes may come until its last event.
    Cancelling,
    /// Bytes of a long value come to where they will lie.
    Value,
}

/// A command that is taken apart key by key, while its keys are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// Each key contributes a part to this reply.
    Merged { sequence: u32 },
    /// Each key has a reply of its own, in order.
    InOrder { noreply: bool },
}

/// A send in flight: how many bytes it has, and how many of them had gone out before.
#[derive(Clone, Copy, Debug)]
struct Sending {
    from: usize,
    bytes: usize,
}

/// What to do with bytes that were received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Nothing: they were kept, or discarded.
    Used,
    /// Parse them where they lie.
    Parse,
    /// Parse what is kept, to which they were added.
    ParseKept,
    /// They were kept, and the receive should be cancelled: the connection waits, and has enough.
    StopReceiving,
}

/// One client.
pub(super) struct Connection {
    pub(super) transport: Transport,
    /// Where in the protocol the next input byte is.
    pub(super) state: State,
    /// What is known of a client that speaks RESP.
    pub(super) client: Option<Box<Client>>,
    /// The command whose keys are being executed.
    pub(super) split: Option<Split>,
    /// Input that could not be used yet.
    pub(super) input: Vec<u8>,
    /// Length of `input` below which it is pointless to parse it again.
    pub(super) needed: usize,
    /// Requests in the turn's pending list.
    pub(super) queued: u32,
    /// Siblings were asked to publish their counters for the next command, which reports them.
    pub(super) asked_for_counters: bool,
    /// Why `input` may hold a whole command.
    wait: Option<Wait>,
    phase: Phase,
    /// The peer has closed its direction.
    peer_closed: bool,
    pub(super) replies: ReplyQueue,
    /// Replies that go out with the next send.
    pub(super) output: Vec<u8>,
    sending: Option<Sending>,
    /// Since when output is held for the replies that siblings owe.
    held_since: Option<Instant>,
    receive: Receive,
    /// The shard ran out of receive buffers: receives take one buffer each, so that every connection gets its turn.
    frugal: bool,
    /// Its last receive found no buffer: bytes are waiting for the next one.
    found_no_buffer: bool,
    /// Receives that take one buffer each because of a long value before them: another one probably follows, and could
    /// not be received where it will lie while a receive is armed.
    receives_once: u8,
    /// Keeps the long value in memory whose pieces are being sent.
    pub(super) sent_value: Option<Reader>,
    /// It waits for the turn in which it may move bytes of a long value.
    pub(super) waits_to_move_value: bool,
    /// The long value that is being received is to be given up as soon as the receive has ended.
    pub(super) upload_is_dropped: bool,
    /// The shard that it is on its way to.
    leaving: Option<usize>,
    /// Belongs to this shard's own port and never moves.
    pub(super) pinned: bool,
    /// The long value that the client is sending.
    pub(super) upload: Option<Box<UploadSource>>,
    /// When the client last took some output, or sent some of a long value.
    progress: Instant,
    /// The output, in bytes, at which the connection is not served any more.
    output_bytes_max: usize,
    /// Bytes of the buffers, beside the value's pages, of pieces that are in flight.
    pub(super) piece_buffer_bytes: usize,
    /// Bytes of long requests that are kept elsewhere, while replies are awaited.
    request_bytes: usize,
    /// The bytes that it was last counted with in its shard's client memory.
    pub(super) counted_bytes: usize,
    /// The expected length of a sibling's reply: the longest of late.
    reply_bytes_estimate: usize,
}

impl Connection {
    pub(super) fn new(state: State, client: Option<Box<Client>>, pinned: bool, now: Instant) -> Self {
        Self {
            transport: Transport::default(),
            state,
            client,
            split: None,
            input: Vec::new(),
            needed: 0,
            queued: 0,
            asked_for_counters: false,
            wait: None,
            phase: Phase::Open,
            peer_closed: false,
            replies: ReplyQueue::default(),
            output: Vec::new(),
            sending: None,
            held_since: None,
            receive: Receive::Off,
            frugal: false,
            found_no_buffer: false,
            receives_once: 0,
            sent_value: None,
            waits_to_move_value: false,
            upload_is_dropped: false,
            leaving: None,
            pinned,
            upload: None,
            progress: now,
            output_bytes_max: OUTPUT_BYTES_HIGH,
            piece_buffer_bytes: 0,
            request_bytes: 0,
            counted_bytes: 0,
            reply_bytes_estimate: REPLY_BYTES_FIRST,
        }
    }

    /// The session of the client's next request, as far as it is known when the request is parsed.
    #[inline]
    pub(super) fn session(&self) -> Session {
        match &self.client {
            Some(client) => Session { database: client.database, resp3: client.resp3, noreply: false },
            None => Session::default(),
        }
    }

    /// True if the reply to the client's next command is suppressed by CLIENT REPLY. Advances SKIP.
    #[inline]
    pub(super) fn take_noreply(&mut self) -> bool {
        self.client.as_mut().is_some_and(|client| client.take_noreply()) && !faults::has(Fault::UnwantedReply)
    }

    // Input.

    /// The receive goes on, or has ended with the bytes that just came.
    #[inline]
    pub(super) fn on_receive(&mut self, armed: bool) {
        if !armed {
            self.receive = Receive::Off;
            self.receives_once = self.receives_once.saturating_sub(1);
        }
    }

    /// A long value begins: those after it will be received where they will lie, too.
    pub(super) fn expect_long_values(&mut self) {
        self.receives_once = RECEIVES_ONCE;
    }

    /// True if receives take one buffer each.
    pub(super) fn receives_once(&self) -> bool {
        self.frugal || self.receives_once > 0
    }

    /// The rest of a long value cannot be received where it will lie for now: it is received into a buffer.
    pub(super) fn receive_value_by_buffer(&mut self) {
        self.receive = Receive::Armed;
    }

    /// The rest of a long value cannot be received where it will lie in this turn: in the next it is tried again.
    pub(super) fn wait_to_receive_value(&mut self) {
        self.receive = Receive::Off;
    }

    /// True if bytes of a long value are being received where they will lie.
    pub(super) fn is_receiving_value(&self) -> bool {
        self.receive == Receive::Value
    }

    /// True if a send is in flight.
    #[inline]
    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Notes that pieces are being sent.
    pub(super) fn on_sending_pieces(&mut self, pieces: &Pieces, now: Instant) {
        self.piece_buffer_bytes += pieces.bytes_in_buffers();
        self.progress = now;
        debug_assert!(self.sending.is_none(), "one send at a time");
        self.held_since = None;
        self.sending = Some(Sending { from: 0, bytes: pieces.bytes() });
    }

    /// Bytes of the protocol arrived.
    #[inline]
    pub(super) fn on_bytes(&mut self, bytes: &[u8]) -> Input {
        if !self.is_read() {
            return Input::Used;
        }
        if self.wait.is_none() && self.input.is_empty() {
            return Input::Parse;
        }
        if self.wait.is_some() {
            self.input.reserve_exact(bytes.len());
        }
        self.input.extend_from_slice(bytes);
        match self.wait {
            Some(_) if self.input.len() > WAITING_BYTES_MAX => Input::StopReceiving,
            Some(_) => Input::Used,
            None if self.input.len() >= self.needed => Input::ParseKept,
            None => Input::Used,
        }
    }

    /// The receive ended without bytes: the peer closed its direction (no errno), or it failed, was cancelled or ran
    /// out of buffers. True if the peer is gone.
    pub(super) fn on_receive_ended(&mut self, errno: Option<Errno>) -> bool {
        self.receive = Receive::Off;
        match errno {
            Some(Errno::NO_BUFFERS) => (self.frugal, self.found_no_buffer) = (true, true),
            Some(Errno::CANCELLED) => {}
            None => self.peer_closed = true,
            Some(_) => return true,
        }
        false
    }

    /// True if a receive was armed and is to end.
    pub(super) fn is_cancelling(&self) -> bool {
        self.receive == Receive::Cancelling
    }

    /// True if the last receive found no buffer; the next one is about to be armed.
    pub(super) fn take_found_no_buffer(&mut self) -> bool {
        std::mem::take(&mut self.found_no_buffer)
    }

    /// Lets the connection use multishot receives again.
    pub(super) fn end_frugality(&mut self) {
        self.frugal = false;
    }

    /// True if a receive is armed and should be cancelled now; it is noted as cancelled.
    pub(super) fn cancel_receive(&mut self) -> bool {
        let was_armed = self.receive == Receive::Armed;
        if was_armed {
            self.receive = Receive::Cancelling;
        }
        was_armed
    }

    /// Sets the input back to a request that cannot be executed yet: `rest` starts with it, in the given state.
    pub(super) fn set_back(&mut self, wait: Wait, rest: &[u8], state: State) {
        self.wait = Some(wait);
        self.state = state;
        self.needed = 0;
        self.input.clear();
        let rest = if faults::has(Fault::LostInput) { &rest[1..] } else { rest };
        self.input.extend_from_slice(rest);
        if self.phase == Phase::Quitting {
            // The QUIT comes after the request and will be parsed again.
            self.phase = Phase::Open;
        }
    }

    /// Has the connection wait before what it has kept is parsed.
    pub(super) fn wait_with_input(&mut self, wait: Wait) {
        self.wait = Some(wait);
        self.needed = 0;
    }

    /// What the connection waits for.
    pub(super) fn wait(&self) -> Option<Wait> {
        self.wait
    }

    /// Resumes, if what it waited for is there: true if its input should be parsed. A connection that had its turn but
    /// has too much output now waits for that instead.
    pub(super) fn try_resume(&mut self) -> bool {
        if self.wait.is_none() {
            return false;
        }
        if !self.may_go_on() {
            self.wait = Some(Wait::Output);
            return false;
        }
        self.wait = None;
        self.input.len() >= self.needed
    }

    // Limits.

    /// The client sent some of a long value.
    pub(super) fn on_upload_progress(&mut self, now: Instant) {
        self.progress = now;
    }

    /// Bytes of memory that are held for the client outside of the arena, beyond those that each connection may keep.
    /// None for one that was given up: what it still holds is freed as soon as the kernel has returned it.
    pub(super) fn memory_bytes(&self) -> usize {
        if self.phase == Phase::Abandoned {
            return 0;
        }
        let sending = self.sending.map_or(0, |s| s.bytes - s.from);
        let sending = if self.sent_value.is_some() { 0 } else { sending } + self.piece_buffer_bytes;
        let upload = self.upload.as_ref().map_or(0, |upload| upload.memory_bytes());
        let requests = if self.replies.awaited() > 0 { self.request_bytes } else { 0 };
        let buffers = self.input.capacity() + self.output.capacity() + sending;
        let bytes = buffers + self.replies.memory_bytes() + upload + requests;
        bytes.saturating_sub(BUFFER_BYTES_KEPT)
    }

    /// How long the client has taken nothing of what it is being sent, or sent nothing of its long value.
    pub(super) fn stalled_for(&self, now: Instant) -> Option<Duration> {
        let is_busy = self.sending.is_some() || self.upload.is_some() || self.replies.has_downloads();
        let stalled_for = now.saturating_duration_since(self.progress);
        (is_busy && self.phase != Phase::Abandoned).then_some(stalled_for)
    }

    /// A client that waits for nobody to take its output, and takes none: `output_bytes_max` is raised, so that what it
    /// has sent is executed first. False if that is not what it waits for.
    pub(super) fn raise_output_limit(&mut self, times: usize, most: usize) -> bool {
        let is_blocked = self.wait == Some(Wait::Output) && self.sending.is_some();
        if !is_blocked || self.replies.has_downloads() || self.replies.awaited() > 0 {
            return false;
        }
        self.output_bytes_max = (self.output_bytes_max * times).min(most).max(self.output_bytes_max);
        true
    }

    /// The owners of the long values that the client sends and is sent next: a sibling, or none for this shard.
    pub(super) fn long_value_owners(&self) -> [Option<Option<usize>>; 2] {
        [self.upload.as_ref().map(|upload| upload.owner()), self.replies.download_owner()]
    }

    // Replies.

    /// Replies that are ready, and those that siblings owe, in bytes.
    fn output_bytes(&self) -> usize {
        let sending = self.sending.map_or(0, |s| s.bytes - s.from);
        let owed = self.replies.awaited_whole() * self.reply_bytes_estimate;
        self.output.len() + sending + self.replies.held_bytes() + owed
    }

    /// True if no more requests should be executed for the moment.
    #[inline]
    pub(super) fn must_wait(&self) -> bool {
        self.replies.has_downloads()
            || self.replies.has_sliced()
            || self.output_bytes() >= self.output_bytes_max
            || self.replies.len() >= REPLIES_MAX
    }

    /// True if a connection that waits may go on. Whatever prevents that comes to an end: a send completes, or a
    /// sibling answers.
    fn may_go_on(&self) -> bool {
        !self.replies.has_downloads()
            && !self.replies.has_sliced()
            && self.output_bytes() <= self.output_bytes_max / OUTPUT_SHARE_LOW
            && self.replies.len() <= REPLIES_MAX / 2
    }

    /// Writes a reply behind all that came before it.
    #[inline]
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.replies.write(&mut self.output, write);
    }

    /// Adds a long value of this shard's engine to the replies.
    pub(super) fn write_stream(&mut self, reply: LongReply, now: Instant) {
        self.progress = now;
        self.replies.push_download(Download::local(reply));
    }

    /// A sibling's reply came.
    #[inline]
    pub(super) fn on_reply(&mut self, sequence: u32, reply: &[u8]) {
        if self.phase == Phase::Abandoned {
            return;
        }
        let fading = self.reply_bytes_estimate - self.reply_bytes_estimate / 8;
        self.reply_bytes_estimate = fading.max(reply.len()).max(REPLY_BYTES_LEAST);
        self.replies.resolve(sequence, reply, &mut self.output);
    }

    /// A part of a merged reply came, or with `more` a slice of one.
    pub(super) fn on_part(&mut self, sequence: u32, part: Part, bytes: &[u8], more: bool) {
        if self.phase != Phase::Abandoned {
            self.replies.resolve_part(sequence, part, bytes, more, &mut self.output);
        }
    }

    /// A reply that was expected comes in slices, of which this is the first.
    pub(super) fn on_slices(&mut self, sequence: u32, bytes: &[u8]) {
        if self.phase != Phase::Abandoned {
            self.replies.resolve_to_slices(sequence);
            self.replies.resolve_part(sequence, Part::Text, bytes, true, &mut self.output);
        }
    }

    /// A reply that was expected turned out to be a long value of this shard. Returns it if nobody wants it any more.
    pub(super) fn on_own_stream(&mut self, sequence: u32, reply: LongReply, now: Instant) -> Option<LongReply> {
        if self.phase == Phase::Abandoned {
            return Some(reply);
        }
        self.progress = now;
        self.replies.resolve_to_download(sequence, Download::local(reply));
        None
    }

    /// Notes the bytes of a request that is kept elsewhere until it is answered.
    pub(super) fn on_kept_request(&mut self, bytes: usize) {
        let before = if self.replies.awaited() > 0 { self.request_bytes } else { 0 };
        self.request_bytes = before + bytes;
    }

    /// A sibling's reply turned out to be a long value, to be read piece by piece. False if nobody wants it any more.
    pub(super) fn on_stream(
        &mut self,
        sequence: u32,
        owner: usize,
        start: &StreamStart,
        reply: &[u8],
        now: Instant,
    ) -> bool {
        if self.phase == Phase::Abandoned {
            return false;
        }
        self.progress = now;
        self.replies.resolve_to_download(sequence, Download::remote(owner, start, reply));
        true
    }

    /// The next piece of a long value to fetch, if one is the next reply and the output has room.
    #[inline]
    pub(super) fn next_fetch(&mut self) -> Option<Fetch<'_>> {
        if self.output.len() >= OUTPUT_BYTES_LOW {
            return None;
        }
        self.replies.front_download()?.next_fetch(&mut self.output)
    }

    /// `bytes` bytes of the front long value have been added to the output. After the last, returns where it was read:
    /// a local reader is to be closed.
    pub(super) fn on_fetched(&mut self, bytes: usize) -> Option<Source> {
        if !self.replies.front_download()?.piece_written(bytes) {
            return None;
        }
        self.replies.finish_download(&mut self.output)
    }

    /// A sibling sent a piece of the front long value. True if it was the last.
    pub(super) fn on_piece(&mut self, piece: &[u8]) -> bool {
        if self.replies.front_download().is_none() {
            return false;
        }
        self.output.extend_from_slice(piece);
        self.on_fetched(piece.len()).is_some()
    }

    /// A send ended: `count` bytes went out, or it failed. Returns the offset from which on the rest is to be sent.
    pub(super) fn on_sent(&mut self, count: Option<usize>, now: Instant) -> Option<usize> {
        let Sending { from, bytes } = self.sending.take()?;
        self.progress = now;
        if self.output.len() < OUTPUT_BYTES_HIGH {
            self.output_bytes_max = OUTPUT_BYTES_HIGH;
        }
        let from = from + count?;
        if from >= bytes || faults::has(Fault::ShortSend) {
            return None;
        }
        self.sending = Some(Sending { from, bytes });
        Some(from)
    }
}
