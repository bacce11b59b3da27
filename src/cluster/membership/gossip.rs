//! Gossip: which nodes exist, their addresses and memory. For discovery and hints; it decides nothing.
//!
//! The protocol is SWIM, as implemented by `foca`, which gets time, randomness and sending through its `Runtime`: here
//! a queue of timers ordered by (time, number), a seeded generator, and a list of packets. That makes it deterministic.
//!
//! ```text
//!  packets ──► vet ──► foca ──► packets, of at most PACKET_BYTES_MAX
//!               │        │ ▲
//!     refused, counted   ▼ │ timers, ordered
//! ```
//!
//! Every packet is decoded and vetted before foca sees it: all contacts in it must be of this cluster, with texts
//! within their bounds, and not too many. Packets of other clusters are refused and counted, and each other cluster is
//! reported once.
//!
//! A node that gossip gave up although it lives (after a long pause) comes back under a renewed contact. Renewals
//! concern gossip only; the node's incarnation stays.

use super::profile::PROFILE_BYTES_MAX;
use super::{Action, Message, Profile, Refusals, To};
use crate::cluster::{Member, NodeId};
use foca::{Config, Foca, Header, NoCustomBroadcast, Notification, PeriodicParams, PostcardCodec, Timer};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

/// Largest packet, in bytes: it fits one datagram on common networks.
pub const PACKET_BYTES_MAX: usize = 1400;
/// Nodes that gossip remembers, including those that are down.
const CONTACTS_MAX: usize = 2048;
/// Pending timers: more than any cluster of [`CONTACTS_MAX`] nodes needs.
const TIMERS_MAX: usize = 4 * CONTACTS_MAX;
/// Other clusters that are reported.
const STRANGERS_MAX: usize = 16;
/// Pauses between announcements to the seeds while no node answers: the first, and the longest.
const GREETING_MS_MIN: u64 = 500;
const GREETING_MS_MAX: u64 = 8000;

/// A header names at most three contacts, which must fit a packet together with some overhead.
const _: () = assert!(3 * (2 * 10 + PROFILE_BYTES_MAX) + 32 <= PACKET_BYTES_MAX);

/// A node as gossip knows it: foca's identity, with its address as the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Its cluster.
    pub cluster: u64,
    /// How often gossip gave it up although it lived.
    pub renewal: u32,
    /// The node's description of itself.
    pub profile: Profile,
}

impl foca::Identity for Contact {
    type Addr = String;

    fn renew(&self) -> Option<Self> {
        Some(Self { renewal: self.renewal.checked_add(1)?, ..self.clone() })
    }

    fn addr(&self) -> String {
        self.profile.address.clone()
    }

    /// The later incarnation wins the address.
    fn win_addr_conflict(&self, other: &Self) -> bool {
        let rank = |contact: &Self| (contact.profile.incarnation, contact.renewal, contact.profile.node());
        rank(self) > rank(other)
    }
}

/// The gossip of one node.
pub(super) struct Gossip {
    foca: Foca<Contact, PostcardCodec, Xoshiro256PlusPlus, NoCustomBroadcast>,
    outbox: Outbox,
    cluster: u64,
    /// Addresses that announcements go to while no other node is known to be up.
    seeds: Vec<String>,
    is_connected: bool,
    greeting_ms: u64,
    next_greeting_ms: u64,
    strangers: BTreeSet<u64>,
    refusals: Refusals,
}

/// What foca has asked its runtime to do.
struct Outbox {
    now_ms: u64,
    timers: BTreeMap<(u64, u64), Timer<Contact>>,
    last_timer: u64,
    actions: Vec<Action>,
    is_connected: Option<bool>,
}

impl foca::Runtime<Contact> for &mut Outbox {
    fn notify(&mut self, notification: Notification<'_, Contact>) {
        match notification {
            Notification::MemberUp(contact) => self.actions.push(Action::ContactUp(contact.clone())),
            Notification::MemberDown(contact) => self.actions.push(Action::ContactDown(contact.clone())),
            Notification::Rename(_, contact) => self.actions.push(Action::ContactUp(contact.clone())),
            Notification::Active => self.is_connected = Some(true),
            Notification::Idle => self.is_connected = Some(false),
            Notification::Defunct | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Contact, data: &[u8]) {
        let (to, message) = (To::Address(to.profile.address), Message::Gossip(data.to_vec()));
        self.actions.push(Action::Send { to, message });
    }

    fn submit_after(&mut self, event: Timer<Contact>, after: Duration) {
        // Without this timer a contact that is down is remembered for longer, which does no harm.
        if self.timers.len() >= TIMERS_MAX && matches!(event, Timer::RemoveDown(_)) {
            return;
        }
        self.last_timer += 1;
        self.timers.insert((self.now_ms + after.as_millis() as u64, self.last_timer), event);
    }
}

impl Gossip {
    /// The gossip of a node that has joined. It has no seeds yet.
    pub(super) fn new(cluster: u64, profile: Profile, seed: u64, now_ms: u64) -> Self {
        let own = Contact { cluster, renewal: 0, profile };
        let generator = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self {
            foca: Foca::new(own, config(), generator, PostcardCodec),
            outbox: Outbox { now_ms, timers: BTreeMap::new(), last_timer: 0, actions: Vec::new(), is_connected: None },
            cluster,
            seeds: Vec::new(),
            is_connected: false,
            greeting_ms: GREETING_MS_MIN,
            next_greeting_ms: now_ms,
            strangers: BTreeSet::new(),
            refusals: Refusals::default(),
        }
    }

    /// Sets the addresses that announcements may go to: the seeds and the members of the map.
    pub(super) fn greet(&mut self, seeds: BTreeSet<String>) {
        let own = &self.foca.identity().profile.address;
        self.seeds = seeds.into_iter().filter(|seed| seed != own).collect();
    }

    /// Handles a packet.
    pub(super) fn receive(&mut self, packet: &[u8], now_ms: u64, actions: &mut Vec<Action>) {
        self.outbox.now_ms = now_ms;
        match self.vet(packet) {
            Ok(()) => {
                // If foca refuses the packet, it has applied nothing, or what preceded the fault.
                self.refusals.malformed += u64::from(self.foca.handle_data(packet, &mut self.outbox).is_err());
            }
            Err(Unfit::Malformed) => self.refusals.malformed += 1,
            Err(Unfit::OtherCluster(contact)) => {
                self.refusals.other_cluster += 1;
                let cluster = contact.cluster;
                if self.strangers.len() < STRANGERS_MAX && self.strangers.insert(cluster) {
                    let (own, address) = (self.cluster, contact.profile.address);
                    actions.push(Action::MetOtherCluster { own, other: cluster, address });
                }
            }
        }
        self.hand_over(actions);
    }

    /// Runs the timers that are due.
    pub(super) fn wake(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        self.outbox.now_ms = now_ms;
        while let Some(timer) = self.outbox.timers.first_entry().filter(|timer| timer.key().0 <= now_ms) {
            let timer = timer.remove();
            // After a pause foca finds that a probe was not completed, and recovers by itself.
            let _ = self.foca.handle_timer(timer, &mut self.outbox);
        }
        if !self.is_connected && self.next_greeting_ms <= now_ms {
            self.next_greeting_ms = now_ms + self.greeting_ms;
            self.greeting_ms = (self.greeting_ms * 2).min(GREETING_MS_MAX);
            for address in self.seeds.clone() {
                // An announcement always fits a packet.
                let _ = self.foca.announce(somebody_at(address, self.cluster), &mut self.outbox);
            }
        }
        self.hand_over(actions);
    }

    /// When the next timer is due.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        let timer = self.outbox.timers.first_key_value().map(|(&(at_ms, _), _)| at_ms);
        let greeting = Some(self.next_greeting_ms).filter(|_| !self.is_connected && !self.seeds.is_empty());
        timer.into_iter().chain(greeting).min()
    }

    /// All nodes believed to be up.
    pub(super) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.foca.iter_members().map(|member| member.id())
    }

    pub(super) fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// Moves foca's actions to `actions`.
    fn hand_over(&mut self, actions: &mut Vec<Action>) {
        actions.append(&mut self.outbox.actions);
        if let Some(is_connected) = self.outbox.is_connected.take() {
            self.is_connected = is_connected;
            (self.greeting_ms, self.next_greeting_ms) = (GREETING_MS_MIN, self.outbox.now_ms + GREETING_MS_MIN);
        }
    }

    /// Checks everything that a packet names, before foca acts on any of it.
    fn vet(&self, packet: &[u8]) -> Result<(), Unfit> {
        if packet.len() > PACKET_BYTES_MAX {
            return Err(Unfit::Malformed);
        }
        let (header, mut rest) = postcard::take_from_bytes::<Header<Contact>>(packet).map_err(|_| Unfit::Malformed)?;
        self.vet_contact(&header.src)?;
        self.vet_contact(&header.dst)?;
        match &header.message {
            foca::Message::PingReq { target: third, .. }
            | foca::Message::IndirectPing { origin: third, .. }
            | foca::Message::IndirectAck { target: third, .. }
            | foca::Message::ForwardedAck { origin: third, .. } => self.vet_contact(third)?,
            _ => {}
        }
        let mut named = vec![header.src.profile.address];
        if let Some((count, members)) = rest.split_first_chunk() {
            rest = members;
            for _ in 0..u16::from_be_bytes(*count) {
                let (member, after) =
                    postcard::take_from_bytes::<foca::Member<Contact>>(rest).map_err(|_| Unfit::Malformed)?;
                self.vet_contact(member.id())?;
                named.push(member.id().profile.address.clone());
                rest = after;
            }
        }
        let has_room = self.foca.iter_membership_state().len() + named.len() <= CONTACTS_MAX;
        match rest.is_empty() && (has_room || self.knows_all(named)) {
            true => Ok(()),
            false => Err(Unfit::Malformed),
        }
    }

    fn vet_contact(&self, contact: &Contact) -> Result<(), Unfit> {
        if contact.profile.check().is_err() {
            Err(Unfit::Malformed)
        } else if contact.cluster != self.cluster {
            Err(Unfit::OtherCluster(contact.clone()))
        } else {
            Ok(())
        }
    }

    fn knows_all(&self, addresses: Vec<String>) -> bool {
        let known: BTreeSet<&str> =
            self.foca.iter_membership_state().map(|member| &member.id().profile.address[..]).collect();
        addresses.iter().all(|address| known.contains(&address[..]))
    }
}

/// Why a packet is not passed to foca.
enum Unfit {
    Malformed,
    OtherCluster(Contact),
}

/// A contact for an address whose node is unknown; suffices for an announcement.
fn somebody_at(address: String, cluster: u64) -> Contact {
    let member = Member { id: NodeId(0), zone: String::new(), memory_bytes: 0 };
    Contact { cluster, renewal: 0, profile: Profile { member, incarnation: 0, raft_id: 0, address } }
}

/// foca's configuration for a local network, with this crate's bounds. It may be slow: heartbeats detect failures.
fn config() -> Config {
    let often = |millis: u64, members: usize| {
        let num_members = NonZeroUsize::new(members).expect("it is not zero");
        Some(PeriodicParams { frequency: Duration::from_millis(millis), num_members })
    };
    Config {
        probe_period: Duration::from_secs(1),
        probe_rtt: Duration::from_millis(500),
        num_indirect_probes: NonZeroUsize::new(3).expect("it is not zero"),
        max_transmissions: NonZeroU8::new(8).expect("it is not zero"),
        suspect_to_down_after: Duration::from_secs(6),
        remove_down_after: Some(Duration::from_secs(3600)),
        max_packet_size: NonZeroUsize::new(PACKET_BYTES_MAX).expect("it is not zero"),
        notify_down_members: true,
        periodic_announce: often(30_000, 1),
        periodic_announce_to_down_members: often(60_000, 2),
        periodic_gossip: often(200, 3),
    }
}
