//! Scenarios of members: elections, agreement, restarts, and linearizable reads.

mod network;

use super::*;
use crate::cluster::Epoch;
use crate::cluster::map::Applied;
use network::{Network, Outcome};
use raft::eraftpb::{Entry, Message, MessageType};
use std::collections::BTreeSet;

fn applied(outcome: &Outcome) -> bool {
    matches!(outcome, Ok(Answer::Applied(Applied::Groups(results))) if results[0].is_ok())
}

#[test]
fn a_cluster_begins_with_one_node_that_leads_at_once() {
    let mut network = Network::new(1);
    network.start(0);
    let ticket = network.propose(0, Change::Leave { node: NodeId(0) });
    assert_eq!(network.answers[&(0, ticket)], Err(AgreementError::NotTaken));
    let MemberState { member, address, .. } = network.state(0);
    let settings = Settings { replicas: 1, min_in_sync: 1 };
    let mut bootstrap = |settings| network.member_mut(0).bootstrap(7, settings, member.clone(), address.clone());
    let unsound = Settings { replicas: 0, min_in_sync: 1 };
    assert_eq!(bootstrap(unsound), Err(BootstrapError::Refused(crate::cluster::map::Refused::Bounds)));
    assert_eq!(bootstrap(settings), Ok(()));
    assert_eq!(bootstrap(settings), Err(BootstrapError::Bootstrapped));
    network.run(20);
    assert!(network.member(0).is_leader());
    assert_eq!((network.member(0).leader(), network.member(0).map().version()), (Some(NodeId(0)), 1));
}

#[test]
fn three_vote_and_five_of_nine() {
    let mut network = Network::cluster(2, 2);
    assert_eq!(network.voters(), BTreeSet::from([0]), "two voters would tolerate no more than one does");
    for node in 2..11 {
        network.start(node);
        network.join(node);
        network.run(1_500);
        assert_eq!(network.voters().len(), if node < 8 { 3 } else { 5 }, "{} nodes", node + 1);
        assert_eq!(network.voters().iter().map(|node| node % 3).collect::<BTreeSet<_>>().len(), 3, "in each zone one");
    }
    let leader = network.member(network.leader().expect("a leader"));
    assert_eq!(leader.configuration().learners.len(), 6);
    assert!(network.running().into_iter().all(|node| network.member(node).map() == leader.map()));
}

/// The budget is 0.9 s; the median is about 0.55 s. Occasionally votes are split, which takes another round.
#[test]
fn a_dead_leader_has_a_successor_soon() {
    for nodes in [3, 9] {
        let mut times_ms: Vec<u64> = (0..20)
            .map(|seed| {
                let mut network = Network::cluster(100 * nodes + seed, nodes);
                let wait_ms = network.random(100);
                network.run(wait_ms);
                let old = network.leader().expect("a leader");
                network.kill(old);
                network.run_until(3_000, |network| network.leader().is_some())
            })
            .collect();
        times_ms.sort_unstable();
        println!("{nodes} nodes: {times_ms:?}");
        assert!((400..900).contains(&times_ms[10]) && times_ms[19] < 2_000, "{times_ms:?}");
    }
}

#[test]
fn a_voter_that_is_down_is_replaced() {
    let mut network = Network::cluster(3, 5);
    let voters = network.voters();
    let old = network.leader().expect("a leader");
    network.kill(old);
    network.run_until(3_000, |network| network.leader().is_some());
    assert_eq!(network.voters(), voters, "it is not declared down yet");
    network.change(Change::Down { identity: network.identity(old) });
    network.run(1_000);
    assert_eq!(network.voters().len(), 3);
    assert!(!network.voters().contains(&old));
    // Now two of the first three voters may be away, and there still is a leader.
    let second = network.leader().expect("a leader");
    network.kill(second);
    network.run_until(3_000, |network| network.leader().is_some_and(|leader| leader != second));
}

#[test]
fn a_leader_that_leaves_hands_over_before_it_goes() {
    let mut network = Network::cluster(4, 4);
    let old = network.leader().expect("a leader");
    network.change(Change::Leave { node: NodeId(old) });
    network.run(2_000);
    let new = network.leader().expect("a leader");
    assert_ne!(new, old);
    assert!(!network.voters().contains(&old) && network.voters().len() == 3);
    let refused = network.propose(new, Change::Remove { node: NodeId(old) });
    let outcome = network.wait_for(new, refused);
    assert_eq!(outcome, Err(AgreementError::Refused(crate::cluster::map::Refused::InUse)), "it holds groups");
    network.change(Change::Down { identity: network.identity(old) });
    network.change(Change::Remove { node: NodeId(old) });
    network.run(1_000);
    assert!(network.member(new).configuration().learners.is_empty());
}

#[test]
fn committed_changes_survive_a_full_restart() {
    let mut network = Network::cluster(5, 3);
    for group in 0..20 {
        network.change(network.touch(0, group));
    }
    network.run(500);
    let map = network.member(0).map().clone();
    for node in 0..3 {
        network.kill(node);
    }
    network.run(1_000);
    for node in 0..3 {
        network.start(node);
    }
    network.run_until(3_000, |network| network.leader().is_some());
    network.run(500);
    assert!((0..3).all(|node| *network.member(node).map() == map));
    // One crashed in the middle of a save that no other member relied on.
    network.kill(2);
    network.disk_mut(2).tear();
    network.change(network.touch(0, 7));
    network.start(2);
    network.run(500);
    assert_eq!(network.epoch(2, 7), Epoch(3));
}

#[test]
fn a_node_without_its_disk_comes_back_as_another_voter() {
    let mut network = Network::cluster(6, 3);
    let lost = (0..3).find(|&node| Some(node) != network.leader()).expect("a follower");
    let raft = network.member(lost).raft();
    network.kill(lost);
    *network.disk_mut(lost) = MemoryDisk::default();
    network.start(lost);
    assert_ne!(network.member(lost).raft(), raft);
    network.run(500);
    assert_eq!(network.member(lost).map().version(), 0, "it has not joined yet");
    network.join(lost);
    network.run(1_500);
    let leader = network.leader().expect("a leader");
    assert!(network.member(lost).map() == network.member(leader).map());
    let configuration = network.member(leader).configuration();
    assert!(configuration.voters.contains(&network.member(lost).raft()));
    assert!(!configuration.voters.contains(&raft) && configuration.learners.is_empty());
}

#[test]
fn of_concurrent_changes_of_a_group_one_wins() {
    let mut network = Network::cluster(7, 5);
    for round in 2..12 {
        let tickets: Vec<_> = (0..5).map(|node| (node, network.propose(node, network.touch(node, 3)))).collect();
        let outcome: Vec<Outcome> = tickets.into_iter().map(|(node, ticket)| network.wait_for(node, ticket)).collect();
        assert_eq!(outcome.iter().filter(|outcome| applied(outcome)).count(), 1, "{outcome:?}");
        network.run(300);
        assert!((0..5).all(|node| network.epoch(node, 3) == Epoch(round)));
    }
}

#[test]
fn a_leader_that_is_partitioned_away_commits_nothing() {
    let mut network = Network::cluster(8, 3);
    let old = network.leader().expect("a leader");
    network.isolate(&[old]);
    let read = network.read(old);
    let change = network.propose(old, network.touch(old, 0));
    network.run(300);
    assert!(
        network.member(old).is_leader() && !network.answers.contains_key(&(old, read)),
        "it believes in itself yet"
    );
    network.run(2_000);
    assert!(!network.member(old).is_leader());
    assert_eq!(network.answers[&(old, read)], Err(AgreementError::NotRead));
    assert_eq!(network.answers[&(old, change)], Err(AgreementError::Unknown));
    assert_eq!(network.propose(old, network.touch(old, 1)), change + 1);
    assert_eq!(network.answers[&(old, change + 1)], Err(AgreementError::NotTaken));
    // The others have made progress; once connected again, the old leader has their map.
    let new = network.leader().expect("a leader");
    network.change(network.touch(new, 5));
    network.cuts.clear();
    network.run(1_000);
    assert!(network.member(old).map() == network.member(new).map());
    assert_eq!(network.epoch(old, 0), Epoch(1), "its own change was never agreed");
}

#[test]
fn a_follower_far_behind_gets_a_snapshot() {
    let mut network = Network::cluster(9, 4);
    let behind = (0..4).find(|&node| Some(node) != network.leader()).expect("a follower");
    network.kill(behind);
    for round in 0..200 {
        let leader = network.leader().expect("a leader");
        network.change(network.touch(leader, round % 10));
    }
    network.start(behind);
    network.run(1_000);
    let leader = network.leader().expect("a leader");
    assert!(network.member(behind).map() == network.member(leader).map());
    // It starts from that snapshot again.
    network.kill(behind);
    network.start(behind);
    assert_eq!(network.member(behind).map().assignment(crate::slots::Group::numbered(0)).epoch, Epoch(21));
}

#[test]
fn a_disk_that_fails_ends_the_member() {
    for is_kept in [false, true] {
        let mut network = Network::cluster(10, 3);
        let leader = network.leader().expect("a leader");
        network.disk_mut(leader).fail(is_kept);
        let ticket = network.propose(leader, network.touch(leader, 0));
        assert_eq!(network.answers[&(leader, ticket)], Err(AgreementError::Unknown));
        assert!(matches!(network.member(leader).fault(), Some(Fault::Disk(DiskError::Failed(_)))));
        assert!(!network.member(leader).is_leader());
        let late = network.read(leader);
        assert_eq!(network.answers[&(leader, late)], Err(AgreementError::Stopped));
        network.run_until(3_000, |network| network.leader().is_some());
        network.change(network.touch(network.leader().expect("a leader"), 1));
    }
}

/// A disk acknowledged a save that it lost, so the leader counts on entries that the member no longer has. It must not
/// vote.
#[test]
fn a_log_that_has_lost_its_end_ends_the_member() {
    let mut network = Network::cluster(11, 3);
    let liar = (0..3).find(|&node| Some(node) != network.leader()).expect("a follower");
    let saves = network.disk_mut(liar).saves();
    for group in 0..5 {
        network.change(network.touch(0, group));
    }
    network.kill(liar);
    let new = network.disk_mut(liar).saves() - saves;
    network.disk_mut(liar).lose(new);
    network.start(liar);
    network.run(500);
    assert_eq!(network.member(liar).fault(), Some(&Fault::LogLost));
}

/// A leader that was cut off admitted writes for almost four seconds: it led without followers for one and a half,
/// while it was also paused, and the two seconds of doubt began after that.
#[test]
fn a_leader_that_is_cut_off_knows_since_when() {
    for (seed, nodes) in [(16, 1), (17, 3), (18, 9)] {
        let mut network = Network::cluster(seed, nodes);
        network.run(1_000);
        let old = network.leader().expect("a leader");
        let cut_at = network.now_ms;
        let (leader, at) = network.member(old).leader_at().expect("a leader");
        assert_eq!(leader, NodeId(old));
        assert!(at + 150 >= cut_at, "{nodes} nodes: {at} is long before {cut_at}");
        network.isolate(&[old]);
        for _ in 0..30 {
            network.run(50);
            match network.member(old).leader_at() {
                Some((_, at)) if nodes == 1 => assert!(at + 50 >= network.now_ms),
                Some((_, at)) => assert!(at <= cut_at + 20, "{nodes} nodes: {at} is after {cut_at}"),
                None => assert_ne!(nodes, 1),
            }
        }
    }
}

/// A peer may claim any Raft id, as often as it likes between two ticks.
#[test]
fn a_leader_remembers_answers_of_members_alone() {
    let mut network = Network::cluster(19, 3);
    let leader = network.leader().expect("a leader");
    let (to, term) = (network.member(leader).raft(), network.member(leader).term());
    for claimed in 10_000..11_000 {
        let mut message = Message::default();
        (message.to, message.from, message.term) = (to, claimed, term);
        message.set_msg_type(MessageType::MsgHeartbeatResponse);
        let bytes = wire::encode(0, &message).expect("a message for others");
        network.step(leader, Event::Message { from: NodeId(77), bytes });
    }
    assert!(network.member(leader).answered.len() <= 2);
}

/// Crashes, restarts, and a network that loses, delays and cuts: answered changes stay, reads are never older than the
/// answers before them, all maps are equal (the network checks), and equal seeds give equal runs.
fn turmoil(seed: u64) -> u64 {
    let mut network = Network::cluster(seed, 5);
    (network.loss_permille, network.delay_ms_max) = (50, 40);
    let mut done: BTreeMap<usize, Epoch> = BTreeMap::new();
    let mut open: Vec<(u64, u64, usize, Epoch)> = Vec::new();
    let mut reads: Vec<(u64, u64, u64)> = Vec::new();
    let mut version_answered = 0;
    for _ in 0..150 {
        let node = network.random(5);
        let runs = network.running().contains(&node);
        match network.random(12) {
            0 if runs && network.running().len() > 3 => network.kill(node),
            1 | 2 if !runs => network.start(node),
            3 => network.isolate(&[node]),
            4 | 5 => network.cuts.clear(),
            6 | 7 if runs => reads.push((node, network.read(node), version_answered)),
            8.. if runs => {
                let group = network.random(4) as usize;
                let expected = network.epoch(node, group);
                let ticket = network.propose(node, network.touch(node, group));
                open.push((node, ticket, group, expected));
            }
            _ => {}
        }
        let wait_ms = 20 + network.random(200);
        network.run(wait_ms);
        open.retain(|&(node, ticket, group, expected)| {
            let Some(outcome) = network.answers.get(&(node, ticket)) else { return true };
            if applied(outcome) {
                let epoch = Epoch(expected.0 + 1);
                let before = done.insert(group, epoch).unwrap_or_default();
                assert!(before != epoch, "two have won");
                done.insert(group, before.max(epoch));
                version_answered = version_answered.max(network.member(node).map().version());
            }
            false
        });
        reads.retain(|&(node, ticket, at_least)| {
            let Some(outcome) = network.answers.get(&(node, ticket)) else { return true };
            if let Ok(Answer::Read { version }) = outcome {
                assert!(*version >= at_least, "a read is older than an earlier answer");
            }
            false
        });
    }
    network.cuts.clear();
    network.loss_permille = 0;
    (0..5).for_each(|node| {
        if !network.running().contains(&node) {
            network.start(node);
        }
    });
    network.run(5_000);
    let leader = network.leader().expect("a leader");
    network.change(network.touch(leader, 9));
    network.run(500);
    for node in 0..5 {
        assert_eq!(network.member(node).fault(), None);
        assert!(network.member(node).map() == network.member(leader).map());
        assert!(done.iter().all(|(&group, &epoch)| network.epoch(node, group) >= epoch), "an answered change is lost");
    }
    network.trace
}

#[test]
fn turmoil_harms_nothing_and_repeats() {
    let traces: BTreeSet<u64> = (0..12).map(turmoil).collect();
    assert_eq!(traces.len(), 12);
    assert!(traces.contains(&turmoil(3)));
}

/// A message whose parts are each almost right, as a faulty peer might send it.
fn lunacy(network: &mut Network, receiver: u64) -> Vec<u8> {
    let member = network.member(receiver);
    let (to, term, last) = (member.raft(), member.term(), member.raw.raft.raft_log.last_index());
    let snapshot = member.raw.store().snapshot().cloned();
    let peers = [1_000, 1_001, 1_002, 77];
    let mut near = |number: u64| match network.random(40) {
        0 => 0,
        1 => u64::MAX,
        2 => wire::COUNT_MAX,
        other => (number + other % 5).saturating_sub(2),
    };
    let mut message = Message::default();
    (message.to, message.term, message.log_term) = (to, near(term), near(term));
    (message.index, message.commit, message.reject_hint) = (near(last), near(last), near(last));
    message.commit_term = near(term);
    let mut entries = Vec::new();
    for place in 0..near(4).min(4) {
        let mut record = LogEntry { is_configuration: near(4) == 3, ..LogEntry::default() };
        (record.index, record.term) = (message.index.wrapping_add(place + 1), near(term).min(message.term));
        record.context = near(2).to_le_bytes()[..2].to_vec();
        record.data = near(300).to_le_bytes()[..4].to_vec();
        entries.push(Entry::from(&record));
    }
    if near(4) < 4 {
        message.set_entries(entries.into());
    }
    if let Some(mut snapshot) = snapshot.filter(|_| near(4) == 4) {
        (snapshot.index, snapshot.term) = (near(last), near(term));
        snapshot.configuration.voters.push(near(1_001));
        snapshot.configuration.learners_next.extend((near(4) == 3).then_some(1_000));
        message.set_snapshot((&snapshot).into());
    }
    message.reject = near(4) < 4;
    message.from = peers[network.random(4) as usize];
    message.set_msg_type(wire::TYPES[network.random(wire::TYPES.len() as u64) as usize]);
    wire::encode(network.random(8) / 7, &message).expect("a message for others")
}

/// Raft assumes that peers keep its rules, and agreement is lost if they do not. But no message causes a panic.
#[test]
fn no_message_causes_a_panic() {
    let mut accepted = 0;
    for seed in 0..200 {
        let mut network = Network::cluster(seed, 3);
        network.is_byzantine = true;
        for _ in 0..100 {
            let receiver = network.random(3);
            let bytes = lunacy(&mut network, receiver);
            let (_, message) = wire::decode(&bytes).expect("its form is right");
            if network.member(receiver).fault().is_some() {
                continue;
            }
            let verdict = Gate(&network.member(receiver).raw.raft).judge(&message);
            accepted += u64::from(verdict == Verdict::Accept);
            let from = NodeId(message.from - if message.from < 1_000 { 0 } else { 1_000 });
            network.step(receiver, Event::Message { from, bytes });
            let wait_ms = network.random(60);
            network.run(wait_ms);
        }
    }
    assert!(accepted > 500, "{accepted} are plausible enough to reach Raft");
}
