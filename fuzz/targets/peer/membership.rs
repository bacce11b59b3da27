//! Messages of membership, including gossip.

use crate::cluster::{CLUSTER, encoded};
use crate::number::{Name, Number, PeerIdentity};
use arbitrary::Arbitrary;
use pinion::cluster::membership::{self, Answer, Contact, Heartbeat, JoinMessage, Profile, Report, Stays};
use pinion::cluster::{Member, NodeId};

/// Nodes listed in a gossip packet, at most.
const CONTACTS_MAX: usize = 16;

#[derive(Arbitrary, Debug)]
pub enum Message {
    Bytes(Vec<u8>),
    Gossip {
        from: ArbitraryContact,
        about: Packet,
        members: Vec<(ArbitraryContact, u16, u8)>,
    },
    Heartbeat {
        from: PeerIdentity,
        cluster: Cluster,
        sequence: Number,
        map_version: Number,
        unheard: Vec<PeerIdentity>,
    },
    Report(ArbitraryReport),
    Stays {
        about: PeerIdentity,
        number: Number,
        term: Number,
        map_version: Number,
    },
    Lookup {
        address: Address,
        seed: u16,
    },
    Found {
        seed: u16,
        node: Name,
        cluster: Option<Cluster>,
        leader: Option<Address>,
    },
    Request {
        cluster: Cluster,
        profile: ArbitraryProfile,
    },
    Answer {
        to: PeerIdentity,
        answer: ArbitraryAnswer,
    },
    Leave {
        from: PeerIdentity,
        address: Address,
    },
}

#[derive(Arbitrary, Debug)]
pub struct ArbitraryReport {
    from: PeerIdentity,
    about: PeerIdentity,
    number: Number,
    term: Number,
    is_unreachable: bool,
    has_restarted: bool,
    leader_silence_ms: Number,
}

#[derive(Arbitrary, Debug)]
pub enum ArbitraryAnswer {
    Accepted { cluster: Cluster, map_version: Number },
    Refused,
    Wait,
    Elsewhere(Option<Address>),
    Gone,
}

#[derive(Arbitrary, Debug)]
pub struct ArbitraryContact {
    cluster: Cluster,
    renewal: Number,
    profile: ArbitraryProfile,
}

/// The kind of a gossip packet.
#[derive(Arbitrary, Debug)]
pub enum Packet {
    Ping(u8),
    Ack(u8),
    PingReq(ArbitraryContact, u8),
    IndirectPing(ArbitraryContact, u8),
    IndirectAck(ArbitraryContact, u8),
    ForwardedAck(ArbitraryContact, u8),
    Announce,
    Feed,
    Gossip,
    Broadcast,
    TurnUndead,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Cluster {
    Own,
    Other(u64),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Address {
    Of(Name),
    Empty,
    Long(u16),
}

/// A profile, mostly that of a node of the cluster.
#[derive(Arbitrary, Debug)]
pub struct ArbitraryProfile {
    name: Name,
    incarnation: Option<Number>,
    raft: Option<Number>,
    memory_bytes: Option<Number>,
    address: Option<Address>,
    zone_bytes: u8,
}

impl Cluster {
    fn id(self) -> u64 {
        match self {
            Self::Own => CLUSTER,
            Self::Other(id) => id,
        }
    }
}

/// The address of a node.
pub fn address(node: NodeId) -> String {
    format!("node-{node}")
}

impl Address {
    fn text(self) -> String {
        match self {
            Self::Of(name) => address(name.node()),
            Self::Empty => String::new(),
            Self::Long(bytes) => "x".repeat(usize::from(bytes) % 600),
        }
    }
}

impl ArbitraryProfile {
    pub fn profile(&self) -> Profile {
        let (id, or) = (self.name.node(), |number: Option<Number>, usual| number.map_or(usual, |n| n.around(usual)));
        let zone = "z".repeat(usize::from(self.zone_bytes % 80));
        Profile {
            member: Member { id, zone, memory_bytes: or(self.memory_bytes, 1 << 30) },
            incarnation: or(self.incarnation, 1),
            raft_id: or(self.raft, id.0),
            address: self.address.map_or_else(|| address(id), Address::text),
        }
    }
}

impl ArbitraryContact {
    fn contact(&self) -> Contact {
        let renewal = self.renewal.around(0) as u32;
        Contact { cluster: self.cluster.id(), renewal, profile: self.profile.profile() }
    }
}

impl Message {
    /// The message, for a node in `term` with map `version`.
    pub fn of(&self, own: Contact, term: u64, version: u64) -> membership::Message {
        let join = membership::Message::Join;
        match self {
            Self::Bytes(bytes) => membership::Message::Gossip(bytes.clone()),
            Self::Gossip { from, about, members } => membership::Message::Gossip(packet(own, from, about, members)),
            Self::Heartbeat { from, cluster, sequence, map_version, unheard } => {
                membership::Message::Heartbeat(Heartbeat {
                    from: from.identity(),
                    cluster: cluster.id(),
                    sequence: sequence.around(1),
                    map_version: map_version.around(version),
                    unheard: unheard.iter().map(|peer| peer.identity()).collect(),
                })
            }
            Self::Report(report) => membership::Message::Report(Report {
                from: report.from.identity(),
                about: report.about.identity(),
                number: report.number.around(1),
                term: report.term.around(term),
                is_unreachable: report.is_unreachable,
                has_restarted: report.has_restarted,
                leader_silence_ms: report.leader_silence_ms.around(0),
            }),
            Self::Stays { about, number, term: other, map_version } => membership::Message::Stays(Stays {
                about: about.identity(),
                number: number.around(1),
                term: other.around(term),
                map_version: map_version.around(version),
            }),
            Self::Lookup { address, seed } => join(JoinMessage::Lookup { address: address.text(), seed: *seed }),
            Self::Found { seed, node, cluster, leader } => join(JoinMessage::Found {
                seed: *seed,
                node: node.node(),
                cluster: cluster.map(Cluster::id),
                leader_address: leader.map(Address::text),
            }),
            Self::Request { cluster, profile } => {
                join(JoinMessage::Request { cluster: cluster.id(), profile: profile.profile() })
            }
            Self::Answer { to, answer } => join(JoinMessage::Answer { to: to.identity(), answer: answer.of(version) }),
            Self::Leave { from, address } => {
                join(JoinMessage::Leave { from: from.identity(), address: address.text() })
            }
        }
    }
}

impl ArbitraryAnswer {
    fn of(&self, version: u64) -> Answer {
        match self {
            Self::Accepted { cluster, map_version } => {
                Answer::Accepted { cluster: cluster.id(), map_version: map_version.around(version) }
            }
            Self::Refused => Answer::Refused { reason: "é".repeat(600) },
            Self::Wait => Answer::Wait { reason: String::new() },
            Self::Elsewhere(leader) => Answer::Elsewhere { leader_address: leader.map(Address::text) },
            Self::Gone => Answer::Gone,
        }
    }
}

/// A gossip packet in foca's encoding.
fn packet(own: Contact, from: &ArbitraryContact, about: &Packet, members: &[(ArbitraryContact, u16, u8)]) -> Vec<u8> {
    let header = foca::Header { src: from.contact(), src_incarnation: 0, dst: own, message: about.message() };
    let mut bytes = encoded(&header);
    let members = &members[..members.len().min(CONTACTS_MAX)];
    bytes.extend_from_slice(&(members.len() as u16).to_be_bytes());
    for (contact, incarnation, state) in members {
        let state = [foca::State::Alive, foca::State::Suspect, foca::State::Down][usize::from(state % 3)];
        bytes.extend(encoded(&foca::Member::new(contact.contact(), *incarnation, state)));
    }
    bytes
}

impl Packet {
    fn message(&self) -> foca::Message<Contact> {
        use foca::Message::*;
        match self {
            Self::Ping(number) => Ping(*number),
            Self::Ack(number) => Ack(*number),
            Self::PingReq(third, number) => PingReq { target: third.contact(), probe_number: *number },
            Self::IndirectPing(third, number) => IndirectPing { origin: third.contact(), probe_number: *number },
            Self::IndirectAck(third, number) => IndirectAck { target: third.contact(), probe_number: *number },
            Self::ForwardedAck(third, number) => ForwardedAck { origin: third.contact(), probe_number: *number },
            Self::Announce => Announce,
            Self::Feed => Feed,
            Self::Gossip => Gossip,
            Self::Broadcast => Broadcast,
            Self::TurnUndead => TurnUndead,
        }
    }
}
