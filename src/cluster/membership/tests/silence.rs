//! Cuts, kills and pauses: which members are declared down, and which stay.

use super::net::*;
use crate::cluster::membership::*;
use crate::cluster::{Identity, NodeId};

fn downs(net: &Net) -> Vec<Identity> {
    net.downs.iter().map(|&(_, about)| about).collect()
}

#[test]
fn a_killed_node_is_down_within_a_second() {
    let mut net = Net::cluster(3, 1);
    let killed_ms = net.now_ms;
    net.kill(2);
    net.run_until(1000, |net| !net.downs.is_empty());
    assert_eq!(downs(&net), [id(2)]);
    assert!(net.now_ms - killed_ms < 800);
    // The reporters' fences last until the map has decided, and end then.
    net.run_ms(200);
    assert!(!net.is_fenced(0, id(2)) && !net.is_fenced(1, id(2)));
    net.run_ms(20_000);
    assert_eq!(net.downs.len(), 1);
}

/// Only the link between 1 and 2 is broken: both stay. Both fence each other, and the fences end within a second.
#[test]
fn a_broken_link_expels_no_member() {
    for nodes in [3, 4, 8] {
        let mut net = Net::cluster(nodes, 2);
        net.cut_both(1, 2);
        net.run_until(1000, |net| net.is_fenced(1, id(2)));
        let fenced_ms = net.now_ms;
        net.run_until(1000, |net| !net.is_fenced(1, id(2)));
        assert!(net.now_ms - fenced_ms <= STAYS_AFTER_MS + 50, "{}", net.now_ms - fenced_ms);
        net.run_ms(30_000);
        assert_eq!(downs(&net), []);
        // Repaired, the cut leaves no trace.
        net.cuts.clear();
        net.run_ms(3000);
        assert!(!net.is_fenced(1, id(2)) && !net.is_fenced(2, id(1)));
        let links = [(1, id(2)), (2, id(1))];
        assert!(links.iter().all(|&(host, peer)| net.hosts[host].membership.is_reachable(peer)));
    }
}

/// Messages of 2 do not reach 1: 1 does not hear it, and 2 learns from 1's heartbeats that it is not heard.
#[test]
fn both_ends_see_a_one_way_cut() {
    let mut net = Net::cluster(3, 3);
    net.cut(2, 1);
    net.run_ms(900);
    assert!(net.count_news(|action| *action == Action::Unreachable(id(2))) == 1);
    assert!(net.count_news(|action| *action == Action::Unreachable(id(1))) == 1);
    net.run_ms(30_000);
    assert_eq!(downs(&net), []);
}

/// A node whose messages reach no one is as good as gone, although it hears all others.
#[test]
fn a_mute_node_is_down() {
    let mut net = Net::cluster(5, 4);
    (0..5).filter(|&host| host != 3).for_each(|host| net.cut(3, host));
    net.run_until(1000, |net| !net.downs.is_empty());
    net.run_ms(10_000);
    assert_eq!(downs(&net), [id(3)]);
}

/// A node that hears no one is declared down, as its heartbeats say so; its own reports about all others do not count.
#[test]
fn a_deaf_node_alone_is_declared_down() {
    let mut net = Net::cluster(5, 5);
    (0..5).filter(|&host| host != 3).for_each(|host| net.cut(host, 3));
    net.run_until(1500, |net| !net.downs.is_empty());
    net.run_ms(10_000);
    assert_eq!(downs(&net), [id(3)]);
}

/// Half of the members do not hear the other half, which has the leader, and notice it before the leader does: their
/// reports about the other half do not count.
#[test]
fn a_deaf_half_alone_is_declared_down() {
    for seed in 0..20 {
        let mut net = Net::cluster(8, seed);
        net.checks_quorum = false;
        (0..4).for_each(|from| (4..8).for_each(|to| net.cut(from, to)));
        net.run_ms(2000);
        let proposed = net.proposed_down();
        assert!(proposed.iter().all(|about| about.node.0 >= 4), "{proposed:?}");
        assert_eq!(proposed.len(), 4);
    }
}

/// The leader and one more are cut off from three. Raft elects one of the three; the old leader proposes nothing, as it
/// hears too few members.
#[test]
fn a_leader_in_the_minority_decides_nothing() {
    let mut net = Net::cluster(5, 6);
    for (one, other) in [(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)] {
        net.cut_both(one, other);
    }
    net.run_ms(700);
    let old_news = net.news.len();
    net.elect(2);
    net.run_until(1000, |net| net.downs.len() == 2);
    net.run_ms(DOWN_ALONE_MS - 1500);
    assert_eq!(downs(&net), [id(0), id(1)]);
    let proposals = |(_, host, action): &(u64, usize, Action)| *host < 2 && matches!(action, Action::Propose { .. });
    assert!(!net.news.iter().any(proposals));
    assert!(old_news > 0);
    // Connected again, the two learn that their incarnations are down.
    net.cuts.clear();
    net.run_ms(500);
    assert_eq!([net.phase(0), net.phase(1)], [&Phase::Left, &Phase::Left]);
    assert_eq!(net.count_news(|action| *action == Action::Expelled), 2);
}

/// The leader dies: reports wait for the next one, which Raft elects after 0.7 s.
#[test]
fn reports_go_to_the_next_leader() {
    let mut net = Net::cluster(3, 7);
    net.kill(0);
    net.run_ms(700);
    assert!(net.is_fenced(1, id(0)) && net.is_fenced(2, id(0)));
    net.elect(1);
    net.run_until(100, |net| !net.downs.is_empty());
    assert_eq!(downs(&net), [id(0)]);
}

/// With two members, the leader is more than half of the one other. (With two voters Raft could not commit; the oracle
/// counts members as voters, so only the proposal is checked.)
#[test]
fn of_two_members_the_leader_decides_alone() {
    let mut net = Net::cluster(2, 8);
    net.kill(1);
    net.run_ms(800);
    assert!(
        net.count_news(
            |action| matches!(action, Action::Propose { proposal: Proposal::Down { about, .. }, .. } if *about == id(1))
        ) > 0
    );
}

/// More than half of eight members die at once, but Raft's voters have a quorum: after five seconds the dead are
/// declared down.
#[test]
fn most_members_may_die_at_once() {
    let mut net = Net::cluster(8, 9);
    net.checks_quorum = false;
    (3..8).for_each(|host| net.kill(host));
    net.run_ms(3000);
    let proposals =
        |net: &Net| net.count_news(|action| matches!(action, Action::Propose { proposal: Proposal::Down { .. }, .. }));
    assert_eq!(proposals(&net), 0);
    net.run_ms(3000);
    assert!(proposals(&net) >= 5);
}

/// A link that fails longer than the silence, again and again, leaves no fence behind.
#[test]
fn a_flapping_peer_leaves_no_fence_behind() {
    let mut net = Net::cluster(3, 10);
    net.cut_both(1, 2);
    for _ in 0..20 {
        net.run_ms(700);
        net.cuts.clear();
        net.run_ms(150);
        net.cut_both(1, 2);
    }
    assert_eq!(downs(&net), []);
    net.cuts.clear();
    net.run_ms(2000);
    assert!(!net.is_fenced(1, id(2)) && !net.is_fenced(2, id(1)));
}

/// The leader is isolated for six seconds, and Raft elects no other. It steps down before it declares all others down,
/// as it would if Raft had its quorum.
#[test]
fn a_lonely_leader_steps_down() {
    let mut net = Net::cluster(5, 15);
    (1..5).for_each(|host| net.cut_both(0, host));
    net.run_ms(6000);
    net.cuts.clear();
    net.elect(0);
    net.run_ms(3000);
    assert_eq!(downs(&net), []);
}

/// This node paused for two seconds: the silence was its own.
#[test]
fn a_paused_node_reports_no_peer() {
    let mut net = Net::cluster(2, 11);
    net.pause(0, 2000);
    net.run_ms(2600);
    let by_paused = |(_, host, action): &(u64, usize, Action)| *host == 0 && matches!(action, Action::Unreachable(_));
    assert!(!net.news.iter().any(by_paused));
}

/// A heartbeat of the next incarnation ends the earlier one without waiting for its silence.
#[test]
fn a_restart_is_heard_at_once() {
    let mut net = Net::cluster(3, 12);
    let heartbeat = Heartbeat {
        from: Identity { node: NodeId(2), incarnation: 2 },
        cluster: CLUSTER,
        sequence: 1,
        map_version: 1,
        unheard: Vec::new(),
    };
    net.deliver(1, Event::Received(Message::Heartbeat(heartbeat)));
    net.run_ms(100);
    assert_eq!(net.count_news(|action| matches!(action, Action::Restarted { .. })), 1);
    assert_eq!(downs(&net), [id(2)]);
}

#[test]
fn heartbeats_of_strangers_are_refused() {
    let mut net = Net::cluster(3, 13);
    let before = net.hosts[1].membership.refusals();
    let heartbeat = |node, incarnation, cluster| Heartbeat {
        from: Identity { node: NodeId(node), incarnation },
        cluster,
        sequence: u64::MAX,
        map_version: 1,
        unheard: Vec::new(),
    };
    let mut endless = heartbeat(2, 1, CLUSTER);
    endless.unheard = vec![id(0); MEMBERS_MAX + 1];
    for heartbeat in [heartbeat(2, 1, 7), heartbeat(2, 0, CLUSTER), heartbeat(9, 1, CLUSTER), endless] {
        net.deliver(1, Event::Received(Message::Heartbeat(heartbeat)));
    }
    net.run_ms(10);
    let refusals = Refusals { other_cluster: 1, past_incarnation: 1, unknown: before.unknown + 1, malformed: 1 };
    assert_eq!(net.hosts[1].membership.refusals(), refusals);
}

/// A late copy of a report whose fence was answered is no vote, and an answer for another term or fence ends no fence.
#[test]
fn late_copies_neither_fence_nor_release() {
    let mut net = Net::cluster(3, 14);
    net.cut_both(1, 2);
    net.run_until(1000, |net| net.is_fenced(1, id(2)));
    let stays = |number, term| Stays { about: id(2), number, term, map_version: 1 };
    for stays in [stays(2, 1), stays(1, 2), stays(1, 0)] {
        net.deliver(1, Event::Received(Message::Stays(stays)));
        net.run_ms(5);
        assert!(net.is_fenced(1, id(2)));
    }
    // An answer that names a version of the map which has not arrived waits for it.
    net.deliver(1, Event::Received(Message::Stays(Stays { map_version: 2, ..stays(1, 1) })));
    net.run_ms(5);
    assert!(net.is_fenced(1, id(2)));
    let map = MapView { version: 2, ..net.map.clone() };
    net.deliver(1, Event::Map(map));
    net.run_ms(5);
    assert!(!net.is_fenced(1, id(2)));
}
