//! From pending requests to replies: executed here if this shard owns the key, sent to the owner otherwise.
//!
//! Requests of many connections are collected first, and the index lines that they need prefetched; then the items;
//! then they are executed. So the cache misses of a batch overlap instead of following one another.

use super::batch::NO_KEY;
use super::commands::ShardPart;
use super::connection::{Client, ConnectionId, Gather, OUTPUT_BYTES_HIGH, Split, Wait};
use super::holds::Waiting;
use super::pending::{PREFETCH, Pending, Work};
use super::tunables::{SlowArgs, SlowCommand};
use super::{Io, Shard};
use crate::command::table::Merge;
use crate::command::{
    Administration, Args, Call, Command, Control, Operation, Reply, Request, Session, StatsTopic, UnixMs,
};
use crate::engine::{KeyHash, Next};
use crate::execute::{Effects, Outcome};
use crate::metrics::Counter;
use crate::protocol::memcached::encode;
use crate::protocol::resp::Writer;
use std::ops::Range;

/// What the log of slow commands keeps of one, without passwords. `client` is known to its own shard only.
pub(super) fn describe(client: Option<&Client>, call: &Call<&[u8]>, now: UnixMs) -> SlowCommand {
    let mut args = SlowArgs::new(1 + call.count as usize);
    args.push(call.command.name().as_bytes());
    let mut is_secret = false;
    for arg in Args::new(call.args, call.count as usize) {
        if args.is_complete() {
            break;
        }
        is_secret |= matches!(call.command, Command::Auth | Command::Hello);
        args.push(if is_secret { b"(redacted)" } else { arg });
        is_secret = call.command == Command::Config && arg.eq_ignore_ascii_case(b"requirepass");
    }
    let args = args.finish();
    let (client_address, client_name) = match client {
        Some(client) => (client.address.clone(), client.name.clone()),
        None => Default::default(),
    };
    SlowCommand { id: 0, seconds: now / 1000, micros: 0, args, client_address, client_name }
}

impl<I: Io> Shard<I> {
    /// Executes what is pending, in order, and empties the list.
    pub(super) fn execute(&mut self, pending: &mut Vec<Pending>) {
        for chunk in pending.chunks(PREFETCH) {
            for request in chunk {
                if usize::from(request.owner) == self.id {
                    self.executor.engine.prefetch_item(request.hash);
                }
            }
            for request in chunk {
                self.dispatch(request);
            }
            self.continue_work();
        }
        pending.clear();
    }

    /// Lets the engine go on with its background work, if it has some left: in a long turn more than in a short one.
    pub(super) fn continue_work(&mut self) {
        if self.next_work == Next::Now {
            self.next_work = self.executor.work();
        }
    }

    #[inline]
    fn dispatch(&mut self, pending: &Pending) {
        let Some(connection) = self.connections.at(pending.id) else { return };
        connection.queued -= 1;
        if !connection.is_served() {
            return;
        }
        if connection.must_wait() {
            self.executor.counters.add(Counter::ConnYields);
            self.set_back(pending.id, Wait::Output, pending.rest, pending.state);
            return;
        }
        match &pending.work {
            Work::Request(request) if usize::from(pending.owner) == self.id => self.execute_here(pending, request),
            Work::Request(request) => self.send_away(pending, request),
            Work::Key(request) => self.dispatch_key(pending, request),
            Work::Split { command, keys, session } => self.begin_split(pending.id, *command, *keys, *session),
            Work::Control(control, noreply) => self.execute_control(pending, *control, *noreply),
            Work::Local(args) => self.execute_local(pending, *args),
        }
    }

    /// Executes a request of one of this shard's clients on this shard's engine.
    #[inline]
    pub(super) fn execute_here(&mut self, pending: &Pending, request: &Request<&[u8]>) {
        if !self.holds.is_empty() && self.waits_for_hold(pending, request) {
            return;
        }
        let Self { connections, executor, .. } = self;
        let Some(connection) = connections.answering(pending.id) else { return };
        let mut request = *request;
        request.session.noreply |= connection.take_noreply();
        let mut outcome = Outcome::Done;
        let copied_bytes_max = executor.local_copied_bytes_max();
        connection.write(|out| outcome = executor.run(&request, pending.hash, copied_bytes_max, out));
        match outcome {
            Outcome::Done => {}
            Outcome::Stream(reply) => connection.write_stream(*reply, self.instant),
            Outcome::More(slice) => return self.slice_own_request(pending.id, pending.hash, &request, *slice),
        }
        if connection.output.len() > OUTPUT_BYTES_HIGH {
            // A reply as long as this counts at once: there may be many of them in a turn.
            self.connections.count_memory(pending.id);
            self.bound_client_memory();
        }
        self.apply_effects(Some(pending.id), &request.operation);
    }

    /// Carries out what executing a request caused besides its reply. `id`: the connection, if it is this shard's.
    #[inline]
    pub(super) fn apply_effects(&mut self, id: Option<ConnectionId>, operation: &Operation<&[u8]>) {
        let Effects { micros } = self.executor.take_effects();
        if let Some(micros) = micros {
            self.log_slow(id, operation, micros);
        }
    }

    /// Logs a command that was measured, if it was slow. `id`: the connection, if it is this shard's.
    pub(super) fn log_slow(&mut self, id: Option<ConnectionId>, operation: &Operation<&[u8]>, micros: u64) {
        let Operation::Call(call) = operation else { return };
        let now = self.executor.unix_ms();
        let Self { connections, shared, .. } = self;
        let client = id.and_then(|id| connections.at(id)).and_then(|connection| connection.client.as_deref());
        shared.tunables.took(micros, now, || describe(client, call, now));
    }

    /// Sends a request to the shard that owns its key.
    pub(super) fn send_away(&mut self, pending: &Pending, request: &Request<&[u8]>) {
        let owner = usize::from(pending.owner);
        if !self.has_room(owner..owner + 1, pending) {
            return;
        }
        let token = self.connections.token(pending.id);
        let Some(connection) = self.connections.at(pending.id) else { return };
        let mut request = *request;
        request.session.noreply |= connection.take_noreply();
        let sequence = connection.replies.expect_reply();
        self.router.batch(owner).push(token, sequence, pending.hash, &request);
    }

    /// True if the batches to all of these shards, this one left out, have room for a task. If not, the connection
    /// waits for that.
    pub(super) fn has_room(&mut self, shards: Range<usize>, pending: &Pending) -> bool {
        if self.router.has_room(shards) {
            return true;
        }
        self.set_back(pending.id, Wait::Mesh, pending.rest, pending.state);
        false
    }

    /// The head of a command that is taken apart: the keys follow.
    fn begin_split(&mut self, id: ConnectionId, command: Command, keys: u32, session: Session) {
        let Some(connection) = self.connections.answering(id) else { return };
        let noreply = connection.take_noreply();
        self.executor.counters.called(command.row(), 0);
        connection.split = Some(match command.row().merge() {
            Some(Merge::InOrder) | None => {
                if !noreply {
                    connection.write(|out| Writer::new(out, session.resp3).array(keys as usize));
                }
                Split::InOrder { noreply }
            }
            Some(merge) => {
                let gather = Gather::new(merge, keys).answering(session.resp3, noreply);
                Split::Merged { sequence: connection.replies.expect_parts(gather) }
            }
        });
    }

    /// One key of a command that is taken apart.
    fn dispatch_key(&mut self, pending: &Pending, request: &Request<&[u8]>) {
        let Some(connection) = self.connections.at(pending.id) else { return };
        let is_here = usize::from(pending.owner) == self.id;
        if is_here && !self.holds.has_room() {
            return self.set_back(pending.id, Wait::Turn, pending.rest, pending.state);
        }
        match (connection.split, request.operation) {
            (Some(Split::Merged { sequence }), Operation::Call(call)) if is_here => {
                self.execute_part(pending.id, sequence, request.key, pending.hash, &call);
            }
            (Some(Split::Merged { sequence }), Operation::Call(call)) => {
                let owner = usize::from(pending.owner);
                if self.has_room(owner..owner + 1, pending) {
                    let token = self.connections.token(pending.id);
                    self.router.batch(owner).push_part(token, sequence, pending.hash, request.key, &call);
                }
            }
            (split, _) => {
                // A reply per key: CLIENT REPLY was asked once, for all of them.
                let noreply = matches!(split, Some(Split::InOrder { noreply: true }));
                let session = Session { noreply, ..request.session };
                let request = Request { session, ..*request };
                match is_here {
                    true => self.execute_here(pending, &request),
                    false => self.send_away(pending, &request),
                }
            }
        }
    }

    /// Executes a part of one of this shard's clients' replies on this shard's engine.
    pub(super) fn execute_part(
        &mut self,
        id: ConnectionId,
        sequence: u32,
        key: &[u8],
        hash: KeyHash,
        call: &Call<&[u8]>,
    ) {
        let origin = self.origin(self.connections.token(id));
        if self.part_waits(origin, sequence, hash, key, call) {
            return;
        }
        self.before_part(call.command);
        let Self { connections, executor, part, router, .. } = self;
        let Some(connection) = connections.answering(id) else { return };
        part.clear();
        let (kind, next) = executor.part(call, key, hash, 0, part);
        let next_shard = router.next_of_scan(kind);
        connection.on_part(sequence, kind, part, next.is_some() || next_shard.is_some());
        let token = self.connections.token(id);
        if let Some(from) = next {
            self.slice_part(origin, sequence, hash, call, from);
        }
        if let Some(shard) = next_shard {
            self.scan_on(token, sequence, hash, call, kind, shard);
        }
        self.apply_effects(Some(id), &Operation::Call(*call));
    }

    /// Executes one of memcached's commands without a key.
    fn execute_control(&mut self, pending: &Pending, control: Control, noreply: bool) {
        let reply = match control {
            Control::EveryShard(administration) => {
                return self.administer_for(pending, administration, noreply);
            }
            Control::Stats(topic) => return self.execute_stats(pending, topic),
            Control::Version => Reply::Version,
            Control::Verbosity => Reply::Ok,
            Control::Invalid(failure) => {
                self.executor.counters.add(Counter::InvalidCommands);
                Reply::Failed(failure)
            }
        };
        self.reply_memcached(pending.id, &reply, noreply);
    }

    fn reply_memcached(&mut self, id: ConnectionId, reply: &Reply, noreply: bool) {
        if let Some(connection) = self.connections.answering(id).filter(|_| !noreply) {
            connection.write(|out| encode(reply, out));
        }
    }

    /// Changes every shard's engine. The reply goes out when all of them are done.
    fn administer_for(&mut self, pending: &Pending, administration: Administration, noreply: bool) {
        if !self.has_room(0..self.router.shards(), pending) {
            return;
        }
        let token = self.connections.token(pending.id);
        let Some(connection) = self.connections.at(pending.id) else { return };
        for to in self.router.siblings() {
            let sequence = connection.replies.expect_reply();
            self.router.batch(to).push_administration(token, sequence, administration);
        }
        match administration {
            Administration::SetEviction(eviction) => self.shared.set_eviction(eviction),
            _ => self.executor.counters.add(Counter::CmdFlush),
        }
        let origin = self.origin(token);
        if !self.holds.is_empty() && self.holds.must_wait(origin, NO_KEY) {
            let Some(connection) = self.connections.at(pending.id) else { return };
            let sequence = connection.replies.expect_reply();
            self.holds.wait(Waiting::administer(origin, sequence, administration));
        } else {
            self.administer(administration);
        }
        self.reply_memcached(pending.id, &Reply::Ok, noreply);
    }

    /// Changes every shard's engine, without a reply. The caller has seen to it that the batches have room.
    pub(super) fn administer_everywhere(&mut self, administration: Administration) {
        let nobody = self.connections.nobody();
        for to in self.router.siblings() {
            self.router.batch(to).push_administration(nobody, 0, administration);
        }
        self.administer(administration);
    }

    /// Changes this shard's engine.
    pub(super) fn administer(&mut self, administration: Administration) {
        if let Administration::Flush { .. } = administration {
            self.end_holds();
        }
        self.executor.administer(administration);
    }

    fn execute_stats(&mut self, pending: &Pending, topic: StatsTopic) {
        if topic == StatsTopic::Connections {
            let gather = Gather::new(Merge::Stats, self.router.shards() as u32);
            return self.ask_every_shard(pending, ShardPart::Connections, gather);
        }
        if !self.has_all_counters(pending) {
            return;
        }
        let text = self.shared.statistics(topic);
        if let Some(connection) = self.connections.answering(pending.id) {
            connection.write(|out| out.extend_from_slice(text.as_bytes()));
        }
    }

    /// True if the published counters of all shards include everything that this connection has asked before. If not,
    /// siblings are asked to publish theirs, and the connection is set back until they have.
    pub(super) fn has_all_counters(&mut self, pending: &Pending) -> bool {
        let Some(connection) = self.connections.at(pending.id) else { return false };
        if !connection.asked_for_counters {
            if !self.has_room(0..self.router.shards(), pending) {
                return false;
            }
            let token = self.connections.token(pending.id);
            let Some(connection) = self.connections.at(pending.id) else { return false };
            for to in self.router.siblings() {
                self.router.batch(to).push_publish(token, connection.replies.expect_reply());
            }
            connection.asked_for_counters = true;
        }
        let Some(connection) = self.connections.at(pending.id) else { return false };
        if !connection.replies.is_empty() {
            self.set_back(pending.id, Wait::Output, pending.rest, pending.state);
            return false;
        }
        connection.asked_for_counters = false;
        self.publish_all();
        true
    }
}
