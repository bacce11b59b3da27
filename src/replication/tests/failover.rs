//! Which node may serve after the primary is gone, and with which data.

use super::client::{NOTHING, Op, value};
use super::*;
use crate::cluster::map::COMPARES;
use Level::{Eventual, Session, Strong};

/// The old primary does not know that there is a new one. True if it serves no stale value once the new one has
/// acknowledged a write.
fn show_nothing_old(cluster: &mut Cluster, old: usize, new: usize) -> bool {
    let mut is_written = false;
    for _ in 0..2 * GRACE_MS / TICK_MS {
        cluster.run(TICK_MS);
        let write = cluster.put(new, Strong, "x", "new");
        cluster.deliver();
        is_written |= cluster.is_done(write);
        if is_written && cluster.read(old, Strong, "x") == value("old") {
            return false;
        }
    }
    assert!(is_written, "the new primary does not come to write");
    true
}

/// The primary is partitioned away and still holds its lease when the others get a new primary.
fn isolated(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.put(0, Strong, "x", "old");
    cluster.deliver();
    cluster.isolate(0);
    cluster.declare_down(0);
    cluster.tell(1);
    cluster.tell(2);
    show_nothing_old(&mut cluster, 0, 1)
}

#[test]
fn a_new_primary_waits_for_the_leases_of_the_old_one() {
    assert_needed(Rule::Grace, isolated);
}

#[test]
fn an_old_primary_stops_with_its_lease() {
    assert_needed(Rule::Lease, isolated);
}

/// Both other nodes report the primary, which is the group's only holder, so the group is opened at one of them. The
/// third learns of that late and hears the old primary again meanwhile.
fn reported(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 1, rules);
    cluster.put(0, Strong, "x", "old");
    cluster.deliver();
    cluster.fence(1, 0);
    cluster.fence(2, 0);
    cluster.declare_down(0);
    let home = cluster.primary();
    cluster.tell(home);
    show_nothing_old(&mut cluster, 0, home)
}

/// A node that has reported the primary hears it again. True if it sends it neither acknowledgements nor leases.
fn silent(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.fence(1, 0);
    cluster.hold_back(|frame| frame.goes(1, 0));
    cluster.put(0, Eventual, "x", "1");
    cluster.run(200);
    cluster.wire.iter().all(|frame| matches!(frame.message, Message::LeaseRequest { .. }))
}

#[test]
fn a_fenced_node_gets_no_acknowledgements_and_no_leases() {
    assert_needed(Rule::Fencing, reported);
    assert_needed(Rule::Fencing, silent);
}

/// The map has made a third holder in-sync, and then primary, while the old primary does not know that and relies on
/// the lease of the second alone. The second knows of neither decision and was fenced only just now.
fn candidate(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 1, rules);
    cluster.regroup(0, &[0], &[2]);
    cluster.tell_all();
    cluster.run_agreeing(300);
    cluster.put(0, Strong, "x", "old");
    cluster.regroup(0, &[0, 2], &[1]);
    cluster.tell_all();
    while cluster.proposed.is_empty() {
        cluster.run(TICK_MS);
    }
    let proposed = cluster.proposed.remove(0);
    cluster.cut.extend([(0, 1), (1, 0)]);
    cluster.run(GRACE_MS);
    cluster.decide(proposed);
    cluster.tell(1);
    cluster.fence(1, 0);
    cluster.fence(2, 0);
    cluster.declare_down(0);
    cluster.tell(1);
    assert_eq!(cluster.primary(), 1);
    show_nothing_old(&mut cluster, 0, 1)
}

#[test]
fn leases_of_candidates_are_needed() {
    assert!(candidate(Rules::default()));
}

/// A replica has an entry of the old primary that the new one lacks, and the new one writes another in its place.
fn parted(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.hold_back(|frame| frame.goes(0, 1) && frame.is_append());
    cluster.put(0, Eventual, "x", "old");
    cluster.deliver();
    cluster.crash(0);
    cluster.run(GRACE_MS);
    let write = cluster.put(1, Strong, "y", "new");
    cluster.run(100);
    assert!(cluster.is_done(write));
    cluster.stores_are_equal(1, 2)
}

#[test]
fn a_log_is_truncated_to_that_of_the_new_primary() {
    assert_needed(Rule::Truncation, parted);
}

/// A late frame of the old primary reaches a replica that has acknowledged a conflicting entry of the new one.
fn late(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.hold_back(|frame| frame.from == 0 && frame.is_append());
    cluster.put(0, Eventual, "x", "old");
    cluster.crash(0);
    cluster.run(GRACE_MS);
    cluster.hold_back(|frame| frame.from == 0 && frame.is_append() || frame.is_commit_only());
    let write = cluster.put(1, Strong, "y", "new");
    cluster.deliver();
    assert!(cluster.is_done(write));
    cluster.hold_back(Frame::is_commit_only);
    cluster.deliver();
    cluster.release();
    cluster.run(100);
    cluster.stores_are_equal(1, 2)
}

#[test]
fn frames_of_an_older_epoch_are_refused() {
    assert_needed(Rule::Epoch, late);
}

/// A write is acknowledged by all, and the primary dies before it has announced the commit.
fn unapplied(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.hold_back(|frame| frame.from == 0 && frame.is_commit_only());
    let write = cluster.put(0, Strong, "x", "1");
    cluster.deliver();
    assert!(cluster.is_done(write));
    cluster.crash(0);
    cluster.run(GRACE_MS);
    cluster.read(1, Strong, "x") == value("1")
}

#[test]
fn a_primary_has_applied_all_that_it_has_acknowledged() {
    assert_needed(Rule::AppliedBeforeServing, unapplied);
}

/// A replica has an uncommitted entry that the new primary lacks. It must return to the common state without discarding
/// what is acknowledged: the new primary may die before a snapshot is installed.
fn uncommitted(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.put(0, Strong, "x", "1");
    cluster.run(100);
    cluster.hold_back(|frame| frame.goes(0, 1) && frame.is_append());
    cluster.put(0, Eventual, "x", "2");
    cluster.run(2 * TICK_MS);
    cluster.crash(0);
    cluster.run(2 * TICK_MS);
    cluster.put(1, Eventual, "y", "3");
    cluster.deliver();
    cluster.read(2, Eventual, "x") == value("1")
}

#[test]
fn a_replica_applies_committed_entries_only() {
    assert_needed(Rule::CommittedApplied, uncommitted);
}

/// The only in-sync holder is gone, and a holder that fell behind is all that is left: the group is opened empty there.
fn lost(rules: Rules) -> bool {
    let mut cluster = Cluster::new(2, 1, Rules::default());
    // Broken at the other node alone: without the rule the first could not have opened the group either.
    cluster.nodes[1].replication = Replication::new(cluster.nodes[1].identity, BACKLOG_BYTES, rules);
    cluster.put(0, Strong, "x", "old");
    cluster.regroup(0, &[0], &[1]);
    cluster.tell_all();
    cluster.run_agreeing(300);
    assert!(cluster.stores_are_equal(0, 1));
    cluster.isolate(1);
    cluster.regroup(0, &[0], &[1]);
    cluster.tell(0);
    let write = cluster.put(0, Strong, "x", "new");
    assert!(cluster.is_done(write));
    cluster.crash(0);
    cluster.run(GRACE_MS);
    let seen = cluster.read(1, Strong, "x");
    assert!(seen.is_ok());
    seen == NOTHING
}

#[test]
fn the_remains_of_a_lost_group_are_void() {
    assert_needed(Rule::Opened, lost);
}

/// The primary proposed to remove holders a tick after a write: they had not acknowledged it yet, and what they had
/// acknowledged before was long ago.
#[test]
fn a_holder_with_nothing_to_acknowledge_has_not_stalled() {
    let mut cluster = Cluster::new(3, 3, Rules::default());
    cluster.run(1_000);
    assert!(cluster.proposed.is_empty());
    cluster.hold_back(|frame| frame.to == 0 && !frame.is_append());
    cluster.put(0, Strong, "x", "1");
    cluster.run(STALL_MS / 2);
    assert_eq!(cluster.proposed, []);
    cluster.run(STALL_MS);
    assert_eq!(cluster.proposed.pop().expect("a proposal").in_sync.len(), 1, "a silent holder has");
}

/// Seed 31025560 of the simulator: a learner was complete and proposed as in-sync. Then its late answer from before its
/// snapshot arrived, that it had nothing, and another snapshot cleared it when the map had made it in-sync.
#[test]
fn a_candidate_gets_no_new_snapshot() {
    let mut cluster = Cluster::new(3, 2, Rules::default());
    cluster.put(0, Strong, "x", "1");
    cluster.regroup(0, &[0, 1], &[2]);
    cluster.tell_all();
    cluster.run(300);
    let proposed = cluster.proposed[0].clone();
    assert_eq!(proposed.in_sync.len(), 3);
    let message = Message::Group {
        group: group().index() as u16,
        epoch: proposed.expected,
        body: Body::Mismatch { common: None },
    };
    cluster.wire.push(Frame { from: 2, to: 0, message });
    cluster.hold_back(Frame::is_chunk);
    cluster.deliver();
    cluster.run(100);
    cluster.decide(proposed);
    cluster.crash(0);
    cluster.crash(1);
    cluster.run(GRACE_MS);
    assert_eq!(cluster.read(2, Strong, "x"), value("1"));
}

/// The first node is asked to hand over to the second, and has proposed that.
fn hand_over(cluster: &mut Cluster) {
    let (epoch, body) = (cluster.map.assignment(group()).epoch, Body::HandOver { to: NodeId(1) });
    let message = Message::Group { group: group().index() as u16, epoch, body };
    cluster.wire.push(Frame { from: 2, to: 0, message });
    cluster.deliver();
    cluster.run(2 * TICK_MS);
}

/// A primary hands over, and receives a write after it has proposed its successor.
fn writes_after_hand_over(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    hand_over(&mut cluster);
    cluster.hold_back(|frame| frame.from == 0 && frame.is_append());
    let write = cluster.put(0, Session, "x", "1");
    assert!(cluster.decide_proposed());
    assert_eq!(cluster.primary(), 1);
    cluster.tell_all();
    cluster.release();
    cluster.run(100);
    let is_there = cluster.read(1, Session, "x") == value("1");
    is_there || !cluster.is_done(write)
}

#[test]
fn a_primary_that_hands_over_admits_no_requests() {
    assert_needed(Rule::Freeze, writes_after_hand_over);
}

/// A primary hands over and evicts a key after it has proposed its successor. The successor dies, and the first is
/// primary again.
fn evicted_while_frozen(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.put(0, Strong, "x", "1");
    cluster.put(0, Strong, "y", "2");
    cluster.run(100);
    hand_over(&mut cluster);
    cluster.hold_back(|frame| frame.from == 0 && frame.is_append());
    cluster.evict(0, "x");
    assert!(cluster.decide_proposed());
    assert_eq!(cluster.primary(), 1);
    cluster.tell(0);
    if cluster.read(0, Eventual, "y") != value("2") {
        return false;
    }
    cluster.release();
    cluster.crash(1);
    cluster.regroup(0, &[0, 2], &[]);
    cluster.tell_all();
    cluster.run(GRACE_MS + 100);
    cluster.read(0, Strong, "y") == value("2")
        && cluster.read(0, Strong, "x") == NOTHING
        && cluster.stores_are_equal(0, 2)
}

/// Seed 20006365 of the simulator: the primary appended an entry after it had yielded. The next primary lacked it, so
/// the old one discarded its replica, while it was in sync by the map.
#[test]
fn a_primary_that_has_yielded_appends_nothing() {
    assert_needed(Rule::Freeze, evicted_while_frozen);
}

/// The primary evicts a key while it hands over, but the map decides otherwise, and it stays primary.
#[test]
fn keys_evicted_while_frozen_are_removed_everywhere() {
    let mut cluster = Cluster::new(3, 3, Rules::default());
    cluster.put(0, Strong, "x", "1");
    cluster.run(100);
    hand_over(&mut cluster);
    cluster.evict(0, "x");
    cluster.regroup(0, &[0, 1, 2], &[]);
    cluster.tell_all();
    cluster.run(100);
    assert_eq!(cluster.read(0, Strong, "x"), NOTHING);
    assert!(cluster.stores_are_equal(0, 1) && cluster.stores_are_equal(0, 2));
}

/// The primary's wall clock is ahead of its successor's, and it has served that a value has expired.
fn expired(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.nodes[0].wall_ahead_ms = 10_000;
    cluster.ask(0, Strong, "x", Op::PutFor("1", 200));
    cluster.run(300);
    assert_eq!(cluster.read(0, Strong, "x"), NOTHING);
    cluster.crash(0);
    cluster.run(GRACE_MS);
    cluster.read(1, Strong, "x") == NOTHING
}

#[test]
fn an_expired_value_does_not_come_back() {
    assert_needed(Rule::ExpiryInLog, expired);
}

/// A learner is proposed as in-sync, then falls behind, and the map makes it a learner in a later epoch. The proposal
/// arrives after that. True if the loss of what was acknowledged meanwhile is noticed.
fn belated(compares: bool) -> bool {
    COMPARES.set(compares);
    let mut cluster = Cluster::new(3, 2, Rules::default());
    cluster.regroup(0, &[0, 1], &[2]);
    cluster.tell_all();
    cluster.run(200);
    let belated = cluster.proposed.pop().expect("the learner is proposed");
    cluster.isolate(2);
    cluster.regroup(0, &[0, 1], &[2]);
    cluster.tell_all();
    let write = cluster.put(0, Strong, "x", "1");
    cluster.deliver();
    assert!(cluster.is_done(write));
    cluster.decide(belated);
    let opened = cluster.map.assignment(group()).opened;
    cluster.declare_down(0);
    cluster.declare_down(1);
    COMPARES.set(true);
    // The third node has none of it, so the map must open the group empty and count it as lost.
    cluster.map.assignment(group()).opened > opened
}

#[test]
fn a_proposal_for_an_epoch_that_is_over_is_void() {
    assert!(belated(true));
    assert!(!belated(false));
}
