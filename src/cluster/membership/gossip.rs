//! Gossip: which nodes there are, where, and with what memory. For discovery and hints; it never decides anything.
//!
//! The protocol is SWIM, by `foca`, which asks for time, randomness and sending through its `Runtime`: here a queue of timers
//! in the order of (time, number), a generator of a given seed, and a list of packets. So it runs the same each time.
//!
//! ```text
//!  packets ──► vet ──► foca ──► packets, of at most PACKET_BYTES_MAX
//!               │        │ ▲
//!     refused, counted   ▼ │ timers, ordered
//! ```
//!
//! Every packet is decoded and vetted before foca sees it: all whom it names are of our cluster, with bounded texts, and there
//! are not too many. Nodes of another cluster, met by mistake, are refused, counted and told of once.
//!
//! A node that gossip has given up while it lives (a long pause) comes back under a renewed contact: that is of gossip only,
//! the life of the node stays what it was.

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

/// Bytes of a packet, at most: it fits one datagram on any usual network.
pub const PACKET_BYTES_MAX: usize = 1400;
/// Nodes that gossip keeps in mind, those that are down among them.
const CONTACTS_MAX: usize = 2048;
/// Timers that may be waiting: more than any cluster of [`CONTACTS_MAX`] nodes needs.
const TIMERS_MAX: usize = 4 * CONTACTS_MAX;
/// Other clusters that are told of.
const STRANGERS_MAX: usize = 16;
/// The pause before the seeds are greeted again, while nobody answers.
const GREETING_MS_MIN: u64 = 500;
const GREETING_MS_MAX: u64 = 8000;

/// A header names three contacts at most; all of them, and a little, have to fit a packet.
const _: () = assert!(3 * (2 * 10 + PROFILE_BYTES_MAX) + 32 <= PACKET_BYTES_MAX);

/// What gossip knows of a node. To foca, it is the node's identity, found by its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Its cluster.
    pub cluster: u64,
    /// How often gossip gave it up while it lived.
    pub renewal: u32,
    /// What it says of itself.
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

    /// The later life has the address.
    fn win_addr_conflict(&self, other: &Self) -> bool {
        let rank = |contact: &Self| (contact.profile.incarnation, contact.renewal, contact.profile.node());
        rank(self) > rank(other)
    }
}

/// Gossip of one node.
pub(super) struct Gossip {
    foca: Foca<Contact, PostcardCodec, Xoshiro256PlusPlus, NoCustomBroadcast>,
    outbox: Outbox,
    cluster: u64,
    /// Addresses that are greeted while nobody is known to be up.
    seeds: Vec<String>,
    is_connected: bool,
    greeting_ms: u64,
    next_greeting_ms: u64,
    strangers: BTreeSet<u64>,
    refusals: Refusals,
}

/// What foca wants done.
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
        // Without this one, a contact that is down is remembered longer: no harm.
        if self.timers.len() >= TIMERS_MAX && matches!(event, Timer::RemoveDown(_)) {
            return;
        }
        self.last_timer += 1;
        self.timers.insert((self.now_ms + after.as_millis() as u64, self.last_timer), event);
    }
}

impl Gossip {
    /// Of a node that has joined. It has nobody to greet yet.
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

    /// Who may be greeted from now on: seeds, and the members of the map.
    pub(super) fn greet(&mut self, seeds: BTreeSet<String>) {
        let own = &self.foca.identity().profile.address;
        self.seeds = seeds.into_iter().filter(|seed| seed != own).collect();
    }

    /// A packet has arrived.
    pub(super) fn receive(&mut self, packet: &[u8], now_ms: u64, actions: &mut Vec<Action>) {
        self.outbox.now_ms = now_ms;
        match self.vet(packet) {
            Ok(()) => {
                // A packet that foca itself refuses has changed nothing, or what came before the fault in it.
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

    /// Does what is due.
    pub(super) fn wake(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        self.outbox.now_ms = now_ms;
        while let Some(timer) = self.outbox.timers.first_entry().filter(|timer| timer.key().0 <= now_ms) {
            let timer = timer.remove();
            // After a pause foca finds a probe incomplete, and goes on by itself.
            let _ = self.foca.handle_timer(timer, &mut self.outbox);
        }
        if !self.is_connected && self.next_greeting_ms <= now_ms {
            self.next_greeting_ms = now_ms + self.greeting_ms;
            self.greeting_ms = (self.greeting_ms * 2).min(GREETING_MS_MAX);
            for address in self.seeds.clone() {
                // The bounds of packets leave room for every greeting.
                let _ = self.foca.announce(somebody_at(address, self.cluster), &mut self.outbox);
            }
        }
        self.hand_over(actions);
    }

    /// When something is due.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        let timer = self.outbox.timers.first_key_value().map(|(&(at_ms, _), _)| at_ms);
        let greeting = Some(self.next_greeting_ms).filter(|_| !self.is_connected && !self.seeds.is_empty());
        timer.into_iter().chain(greeting).min()
    }

    /// All that are thought to be up.
    pub(super) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.foca.iter_members().map(|member| member.id())
    }

    pub(super) fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// Passes on what foca wants done.
    fn hand_over(&mut self, actions: &mut Vec<Action>) {
        actions.append(&mut self.outbox.actions);
        if let Some(is_connected) = self.outbox.is_connected.take() {
            self.is_connected = is_connected;
            (self.greeting_ms, self.next_greeting_ms) = (GREETING_MS_MIN, self.outbox.now_ms + GREETING_MS_MIN);
        }
    }

    /// Looks at all that a packet names, before any of it counts.
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

/// Why a packet is not for foca.
enum Unfit {
    Malformed,
    OtherCluster(Contact),
}

/// Whoever is at an address: enough for a greeting.
fn somebody_at(address: String, cluster: u64) -> Contact {
    let member = Member { id: NodeId(0), zone: String::new(), memory_bytes: 0 };
    Contact { cluster, renewal: 0, profile: Profile { member, incarnation: 0, raft_id: 0, address } }
}

/// That of foca for a local network, with texts and bounds of ours: what it takes longer for, heartbeats do.
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
