//! Gossip by itself: several instances, and hostile packets.

use super::net::{CLUSTER, address, profile};
use crate::cluster::membership::gossip::Gossip;
use crate::cluster::membership::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Gossip of several nodes, by their addresses, with a delay of one millisecond.
struct Party {
    now_ms: u64,
    members: BTreeMap<String, Gossip>,
    in_flight: Vec<(String, Vec<u8>)>,
    news: Vec<(String, Action)>,
}

impl Party {
    fn new() -> Self {
        Self { now_ms: 0, members: BTreeMap::new(), in_flight: Vec::new(), news: Vec::new() }
    }

    fn start(&mut self, cluster: u64, profile: Profile, seeds: &[usize]) {
        let own = profile.address.clone();
        let mut gossip = Gossip::new(cluster, profile, self.members.len() as u64, self.now_ms);
        gossip.greet(seeds.iter().map(|&host| address(host)).collect());
        self.members.insert(own, gossip);
    }

    fn run_ms(&mut self, time_ms: u64) {
        for _ in 0..time_ms {
            self.now_ms += 1;
            for (to, packet) in std::mem::take(&mut self.in_flight) {
                if let Some(gossip) = self.members.get_mut(&to) {
                    let mut actions = Vec::new();
                    gossip.receive(&packet, self.now_ms, &mut actions);
                    self.act(to, actions);
                }
            }
            let due = |(address, gossip): (&String, &Gossip)| {
                gossip.wake_at_ms().filter(|&at_ms| at_ms <= self.now_ms).map(|_| address.clone())
            };
            for own in self.members.iter().filter_map(due).collect::<Vec<_>>() {
                let mut actions = Vec::new();
                self.members.get_mut(&own).expect("it is there").wake(self.now_ms, &mut actions);
                self.act(own, actions);
            }
        }
    }

    fn act(&mut self, own: String, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { to: To::Address(to), message: Message::Gossip(packet) } => {
                    assert!(packet.len() <= PACKET_BYTES_MAX);
                    self.in_flight.push((to, packet));
                }
                news => self.news.push((own.clone(), news)),
            }
        }
    }

    fn contacts(&self, host: usize) -> Vec<(u64, u64)> {
        let contacts = self.members[&address(host)].contacts();
        let mut contacts: Vec<_> =
            contacts.map(|contact| (contact.profile.node().0, contact.profile.incarnation)).collect();
        contacts.sort_unstable();
        contacts
    }
}

/// All nodes discover each other, with memory and zone, from one seed that starts last.
#[test]
fn everybody_is_found_from_one_seed() {
    let mut party = Party::new();
    (1..12).for_each(|host| party.start(CLUSTER, profile(host, 1, host as usize), &[0]));
    party.run_ms(3000);
    assert_eq!(party.contacts(5), []);
    party.start(CLUSTER, profile(0, 1, 0), &[0]);
    party.run_ms(15_000);
    for host in 0..12 {
        let others: Vec<_> = (0..12).filter(|&other| other != host).map(|other| (other, 1)).collect();
        assert_eq!(party.contacts(host as usize), others);
    }
    let contact = party.members[&address(3)].contacts().find(|contact| contact.profile.node().0 == 7);
    assert_eq!(contact.expect("it is known").profile, profile(7, 1, 7));
}

#[test]
fn the_next_incarnation_replaces_the_last() {
    let mut party = Party::new();
    (0..4).for_each(|host| party.start(CLUSTER, profile(host, 1, host as usize), &[0]));
    party.run_ms(3000);
    party.start(CLUSTER, profile(2, 2, 2), &[0]);
    party.run_ms(3000);
    for host in [0, 1, 3] {
        assert!(party.contacts(host).contains(&(2, 2)) && !party.contacts(host).contains(&(2, 1)));
    }
    // It does not come back.
    party.members.remove(&address(2));
    party.run_ms(20_000);
    assert_eq!(party.contacts(0), [(1, 1), (3, 1)]);
    assert!(party.news.iter().any(|(_, action)| matches!(action, Action::ContactDown(_))));
}

/// The seeds of one cluster include a node of another: the clusters do not merge, and each side reports the other once.
#[test]
fn another_cluster_is_met_and_refused() {
    let mut party = Party::new();
    (0..3).for_each(|host| party.start(CLUSTER, profile(host, 1, host as usize), &[0]));
    (3..6).for_each(|host| party.start(7, profile(host, 1, host as usize), &[0, 3]));
    party.run_ms(1000);
    assert_eq!(party.contacts(0), [(1, 1), (2, 1)]);
    assert_eq!(party.contacts(3), [(4, 1), (5, 1)]);
    party.run_ms(60_000);
    let met =
        |(own, action): &&(String, Action)| *own == address(0) && matches!(action, Action::MetOtherCluster { .. });
    let told: Vec<_> = party.news.iter().filter(met).collect();
    let (own, other) = (CLUSTER, 7);
    assert_eq!(told.len(), 1);
    assert!(matches!(&told[0].1, Action::MetOtherCluster { own: o, other: p, .. } if (*o, *p) == (own, other)));
    assert!(party.members[&address(0)].refusals().other_cluster >= 1);
}

/// A node that is not heard for half a minute is given up; heard again, it is a contact again, in the same incarnation.
#[test]
fn a_contact_that_was_given_up_comes_back() {
    let mut party = Party::new();
    (0..4).for_each(|host| party.start(CLUSTER, profile(host, 1, host as usize), &[0]));
    party.run_ms(3000);
    let away = party.members.remove(&address(2)).expect("it is there");
    party.run_ms(30_000);
    assert_eq!(party.contacts(0), [(1, 1), (3, 1)]);
    party.members.insert(address(2), away);
    party.run_ms(70_000);
    assert_eq!(party.contacts(0), [(1, 1), (2, 1), (3, 1)]);
}

/// Texts of the maximum length fit a packet; longer ones are refused.
#[test]
fn texts_are_bounded() {
    let long = |host: usize, zone_bytes: usize| {
        let mut profile = profile(u64::MAX - host as u64, u64::MAX, host);
        profile.member.zone = "z".repeat(zone_bytes);
        (profile.member.memory_bytes, profile.raft_id) = (u64::MAX, u64::MAX);
        profile
    };
    let mut party = Party::new();
    (0..6).for_each(|host| party.start(u64::MAX, long(host, ZONE_BYTES_MAX), &[0]));
    party.start(u64::MAX, long(6, ZONE_BYTES_MAX + 1), &[0]);
    party.run_ms(10_000);
    assert_eq!(party.contacts(0).len(), 5);
    assert!(party.members[&address(0)].refusals().malformed > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// No packet causes a panic, and refused ones change nothing.
    #[test]
    fn any_bytes_may_arrive(flips in prop::collection::vec((any::<usize>(), any::<u8>()), 0..8), noise: Vec<u8>, cut: usize) {
        let mut party = Party::new();
        (0..3).for_each(|host| party.start(CLUSTER, profile(host, 1, host as usize), &[0]));
        party.run_ms(501);
        let mut packets = party.in_flight.clone();
        party.run_ms(1);
        packets.extend(party.in_flight.clone());
        let mut actions = Vec::new();
        let gossip = party.members.get_mut(&address(0)).expect("it is there");
        gossip.receive(&noise, 600, &mut actions);
        for (_, mut packet) in packets {
            for &(at, flip) in &flips {
                let at = at % packet.len();
                packet[at] ^= flip;
            }
            gossip.receive(&packet, 600, &mut actions);
            packet.truncate(cut % packet.len());
            gossip.receive(&packet, 600, &mut actions);
        }
        gossip.wake(60_000, &mut actions);
    }
}
