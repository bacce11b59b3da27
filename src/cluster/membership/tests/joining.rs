//! Joining, rejoining and leaving.

use super::net::*;
use crate::cluster::membership::*;
use crate::cluster::{Identity, NodeId};
use proptest::prelude::*;

fn founders(net: &Net) -> Vec<usize> {
    let founded =
        |(_, host, action): &(u64, usize, Action)| matches!(action, Action::FoundCluster { .. }).then_some(*host);
    net.news.iter().filter_map(founded).collect()
}

fn refusal(net: &Net, host: usize) -> String {
    match net.phase(host) {
        Phase::Failed(error) => error.to_string(),
        phase => panic!("{phase:?}"),
    }
}

#[test]
fn a_node_by_itself_is_a_whole_cluster() {
    let mut net = Net::new(1);
    net.start(profile(0, 1, 0), &[], None);
    net.run_ms(1);
    assert_eq!(founders(&net), [0]);
    net.found(0);
    net.run_ms(100);
    assert_eq!(net.phase(0), &Phase::Member);
}

/// No node founds a cluster while some seed does not answer, since that one may be in a cluster. Then exactly the first
/// seed does.
#[test]
fn seeds_found_one_cluster_together() {
    let mut net = Net::new(2);
    net.loss = 0.05;
    net.start(profile(5, 1, 0), &[0, 1, 2], None);
    net.start(profile(3, 1, 1), &[0, 1, 2], None);
    net.run_ms(10_000);
    assert!(founders(&net).is_empty());
    assert!(
        net.count_news(|action| matches!(action, Action::Waiting { reason } if reason.contains("10.0.0.2:7000"))) > 0
    );
    net.start(profile(4, 1, 2), &[0, 1, 2], None);
    net.start(profile(1, 1, 3), &[0, 1, 2], None);
    net.run_until(20_000, |net| !founders(net).is_empty());
    net.found(1);
    net.run_ms(20_000);
    assert_eq!(founders(&net), [1]);
    assert!((0..4).all(|host| net.phase(host) == &Phase::Member), "{:?}", net.news);
    assert_eq!(net.map.members.len(), 4);
}

/// A simulated cluster took 19 seconds to be founded: rounds of requests were up to three seconds apart, and each of
/// them lost some answer.
#[test]
fn lost_answers_do_not_keep_a_cluster_from_being_founded() {
    for seed in 0..20 {
        let mut net = Net::new(100 + seed);
        net.loss = 0.2;
        (0..4).for_each(|host| _ = net.start(profile(host as u64 + 1, 1, host), &[0, 1, 2, 3], None));
        net.run_until(2_000, |net| !founders(net).is_empty());
        assert_eq!(founders(&net), [0]);
    }
}

/// Two seeds have the same node id, so which of them is first is undefined: neither founds a cluster.
#[test]
fn namesakes_found_nothing() {
    let mut net = Net::new(3);
    net.start(profile(1, 1, 0), &[0, 1], None);
    net.start(profile(1, 2, 1), &[0, 1], None);
    net.run_ms(20_000);
    assert!(founders(&net).is_empty());
}

#[test]
fn a_node_joins() {
    let mut net = Net::cluster(3, 4);
    // It asks a member that does not lead, and is redirected.
    net.start(profile(7, 1, 3), &[2], None);
    net.run_until(1000, |net| net.phase(3) == &Phase::Member);
    net.run_ms(1000);
    let joined = |action: &Action| matches!(action, Action::Joined { cluster: CLUSTER, .. });
    assert!(net.news.iter().any(|(_, host, action)| *host == 3 && joined(action)));
    assert!((0..3).all(|host| net.hosts[host].membership.is_reachable(id(7))));
    assert_eq!(net.hosts[3].membership.newest_map().map(|(version, _)| version), Some(2));
    net.run_ms(30_000);
    assert_eq!(net.downs, []);
    assert_eq!(net.hosts[3].membership.contacts().count(), 3);
}

/// The map has it for three seconds before it receives the map, as after a slow commit: it is not reported meanwhile.
#[test]
fn a_newcomer_may_take_its_time() {
    let mut net = Net::cluster(3, 14);
    net.start(profile(7, 1, 3), &[0], None);
    net.run_until(1000, |net| net.map.members.contains_key(&NodeId(7)));
    net.pause(3, 3000);
    net.run_ms(5000);
    assert_eq!(net.phase(3), &Phase::Member);
    assert_eq!(net.downs, []);
}

#[test]
fn seeds_of_two_clusters_are_an_error() {
    let mut net = Net::cluster(2, 5);
    // By its disk, host 2 is in cluster 7.
    net.start(profile(8, 1, 2), &[2], Some(7));
    net.start(profile(9, 1, 3), &[0, 2], None);
    net.run_ms(1000);
    let message = "the seeds belong to two clusters, 0000000000000007 and 00000000000000c1; configure seeds of one";
    assert_eq!(refusal(&net, 3), message);
    // A node of cluster 7 is configured with seeds of another cluster.
    net.start(profile(8, 2, 2), &[0], Some(7));
    net.run_ms(1000);
    assert_eq!(refusal(&net, 2), message);
    assert_eq!(net.map.members.len(), 2);
}

/// A killed node is back before its peers noticed: under its id, in a new incarnation.
#[test]
fn a_node_comes_back_as_a_stranger() {
    let mut net = Net::cluster(3, 6);
    net.kill(2);
    net.start(profile(2, 2, 2), &[0, 1], Some(CLUSTER));
    net.run_until(1000, |net| net.phase(2) == &Phase::Member);
    let next = Identity { incarnation: 2, ..id(2) };
    assert!(net.map.is_alive(next) && !net.map.is_alive(id(2)));
    net.run_ms(10_000);
    assert_eq!(net.downs, []);
    assert!(net.hosts[1].membership.is_reachable(next));
    // A process of the earlier incarnation is refused.
    net.start(profile(2, 1, 2), &[0, 1], Some(CLUSTER));
    net.run_ms(1000);
    assert!(refusal(&net, 2).contains("newer incarnation"));
}

#[test]
fn the_second_process_with_a_node_id_is_refused() {
    let mut net = Net::cluster(3, 7);
    net.start(profile(2, 9, 3), &[0, 1], None);
    net.start(profile(0, 9, 4), &[0, 1], None);
    net.run_ms(2000);
    assert_eq!(refusal(&net, 3), "refused: node id 0000000000000002 is in use by the process at 10.0.0.2:7000");
    assert_eq!(refusal(&net, 4), "refused: node id 0000000000000000 is in use by the process at 10.0.0.0:7000");
    assert!(net.map.is_alive(id(2)) && net.phase(2) == &Phase::Member);
}

/// A node dies, and its supervisor restarts it at another address half a second later: it waits until its earlier
/// incarnation is down.
#[test]
fn a_node_comes_back_somewhere_else() {
    let mut net = Net::cluster(3, 8);
    net.kill(2);
    net.run_ms(400);
    net.start(profile(2, 2, 3), &[0, 1], Some(CLUSTER));
    net.run_until(3000, |net| net.phase(3) == &Phase::Member);
    assert_eq!(net.downs.len(), 1);
    assert_eq!(net.map.members[&NodeId(2)].address, address(3));
}

/// All nodes lose power and restart: their disks name the cluster, and each is admitted again.
#[test]
fn a_whole_cluster_starts_again() {
    let mut net = Net::cluster(3, 9);
    (0..3).for_each(|host| net.kill(host));
    for host in 0..3 {
        net.start(profile(host, 2, host as usize), &[0, 1, 2], Some(CLUSTER));
    }
    net.run_ms(800);
    net.elect(1);
    net.run_ms(8000);
    assert!((0..3).all(|host| net.phase(host) == &Phase::Member), "{:?}", net.news);
    assert!(net.map.members.values().all(|known| known.incarnation == 2));
}

#[test]
fn a_node_leaves_once_it_holds_nothing() {
    let mut net = Net::cluster(3, 10);
    net.loss = 0.05;
    net.hold(2, 10);
    net.run_ms(100);
    net.deliver(2, Event::Leave);
    net.run_ms(5000);
    assert_eq!(net.phase(2), &Phase::Leaving);
    assert_eq!(net.map.members[&NodeId(2)].state, MemberState::Leaving);
    net.hold(2, 0);
    net.run_ms(5000);
    assert_eq!(net.phase(2), &Phase::Left);
    assert!(!net.map.members.contains_key(&NodeId(2)));
    assert_eq!(net.count_news(|action| *action == Action::Left), 1);
    net.kill(2);
    net.run_ms(5000);
    assert_eq!(net.downs, []);
}

#[test]
fn the_last_node_may_not_leave() {
    let mut net = Net::cluster(1, 11);
    net.deliver(0, Event::Leave);
    net.run_ms(1000);
    assert_eq!(net.phase(0), &Phase::Member);
    assert_eq!(net.count_news(|action| matches!(action, Action::StayedIn { .. })), 1);
}

/// While there is no seed or no leader, the applicant retries with growing pauses, and joins once there is one.
#[test]
fn an_applicant_is_patient() {
    let mut net = Net::cluster(3, 12);
    net.leader = None;
    (0..3).for_each(|host| net.deliver(host, Event::Leader(None)));
    net.start(profile(7, 1, 3), &[0, 1, 2], None);
    net.run_ms(30_000);
    assert_ne!(net.phase(3), &Phase::Member);
    net.leader = Some(Leader { node: NodeId(0), term: 1 });
    net.elect(1);
    net.run_ms(8000);
    assert_eq!(net.phase(3), &Phase::Member);
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..4_u64, 1 => Just(u64::MAX), 1 => Just(CLUSTER)]
}

fn identity() -> impl Strategy<Value = Identity> {
    (number(), number()).prop_map(|(node, incarnation)| Identity { node: NodeId(node), incarnation })
}

fn message() -> impl Strategy<Value = Message> {
    let text = || prop_oneof![Just(String::new()), (0..5_usize).prop_map(address), Just("x".repeat(5000))];
    let some_profile = (number(), number(), text(), text()).prop_map(|(node, incarnation, zone, address)| {
        let mut profile = profile(node, incarnation, 0);
        (profile.member.zone, profile.address) = (zone, address);
        profile
    });
    let answer = prop_oneof![
        (number(), number()).prop_map(|(cluster, map_version)| Answer::Accepted { cluster, map_version }),
        text().prop_map(|reason| Answer::Wait { reason }),
        text().prop_map(|address| Answer::Elsewhere { leader_address: Some(address) }),
        Just(Answer::Gone),
    ];
    let join = prop_oneof![
        (text(), any::<u16>()).prop_map(|(address, seed)| JoinMessage::Lookup { address, seed }),
        (any::<u16>(), number(), text()).prop_map(|(seed, node, address)| JoinMessage::Found {
            seed,
            node: NodeId(node),
            cluster: Some(node),
            leader_address: Some(address),
        }),
        (number(), some_profile).prop_map(|(cluster, profile)| JoinMessage::Request { cluster, profile }),
        (identity(), answer).prop_map(|(to, answer)| JoinMessage::Answer { to, answer }),
        (identity(), text()).prop_map(|(from, address)| JoinMessage::Leave { from, address }),
    ];
    let report = (identity(), identity(), number(), number(), any::<[bool; 2]>());
    let heartbeat = (identity(), number(), number(), number(), prop::collection::vec(identity(), 0..3));
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64).prop_map(Message::Gossip),
        heartbeat.prop_map(|(from, cluster, sequence, map_version, unheard)| {
            Message::Heartbeat(Heartbeat { from, cluster, sequence, map_version, unheard })
        }),
        report.prop_map(|(from, about, number, term, [is_unreachable, has_restarted])| {
            let leader_silence_ms = number;
            Message::Report(Report { from, about, number, term, is_unreachable, has_restarted, leader_silence_ms })
        }),
        (identity(), number(), number(), number()).prop_map(|(about, number, term, map_version)| {
            Message::Stays(Stays { about, number, term, map_version })
        }),
        join.prop_map(Message::Join),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// No sequence of messages to a leader, a member or an applicant causes a panic or a busy loop.
    #[test]
    fn any_message_may_arrive(messages in prop::collection::vec((0..5_usize, message()), 1..40)) {
        let mut net = Net::cluster(3, 13);
        net.start(profile(7, 1, 3), &[0, 1, 2], None);
        net.start(profile(8, 1, 4), &[3, 4], None);
        for (host, message) in messages {
            net.deliver(host, Event::Received(message));
            net.run_ms(20);
        }
        net.run_ms(1000);
    }
}
