//! Who may serve when the primary is gone, and with what.

use super::client::{NOTHING, Op, value};
use super::*;
use crate::cluster::map::COMPARES;
use Level::{Eventual, Session, Strong};

/// An old primary has not heard that another was made. True if it shows nothing old once the other has written something new.
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

/// The primary is cut off. It still has its lease when the others get another primary.
fn isolated(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.put(0, Strong, "x", "old");
    cluster.deliver();
    cluster.isolate(0);
    cluster.take_for_down(0);
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

/// The primary, which alone holds the group, is reported by both others, and one of them becomes its home. The third hears of
/// that late; meanwhile it hears the old primary again.
fn reported(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 1, rules);
    cluster.put(0, Strong, "x", "old");
    cluster.deliver();
    cluster.promise(1, 0);
    cluster.promise(2, 0);
    cluster.take_for_down(0);
    let home = cluster.primary();
    cluster.tell(home);
    show_nothing_old(&mut cluster, 0, home)
}

/// One that has reported the primary hears it again. True if it gives it nothing.
fn silent(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.promise(1, 0);
    cluster.hold_back(|frame| frame.goes(1, 0));
    cluster.put(0, Eventual, "x", "1");
    cluster.run(200);
    cluster.wire.iter().all(|frame| matches!(frame.message, Message::LeaseRequest { .. }))
}

#[test]
fn who_was_reported_is_given_nothing() {
    assert_needed(Rule::Fencing, reported);
    assert_needed(Rule::Fencing, silent);
}

/// A third holder was decided to be in sync, and becomes the primary, while the old one does not know yet that it was: it
/// believes in the lease of the second alone. That one has not heard of either decision, and has promised only just now.
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
    cluster.promise(1, 0);
    cluster.promise(2, 0);
    cluster.take_for_down(0);
    cluster.tell(1);
    assert_eq!(cluster.primary(), 1);
    show_nothing_old(&mut cluster, 0, 1)
}

#[test]
fn a_lease_includes_who_may_be_in_sync() {
    assert!(candidate(Rules::default()));
}

/// A replica has an entry of the old primary that the new one lacks, and that one writes another in its place.
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
    cluster.have_the_same(1, 2)
}

#[test]
fn a_log_is_cut_to_that_of_the_new_primary() {
    assert_needed(Rule::Truncation, parted);
}

/// The frame of an old primary comes to a replica that has acknowledged something else in its place to the new one.
fn late(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.hold_back(|frame| frame.from == 0 && frame.is_append());
    cluster.put(0, Eventual, "x", "old");
    cluster.crash(0);
    cluster.run(GRACE_MS);
    cluster.hold_back(|frame| frame.from == 0 && frame.is_append() || frame.is_news());
    let write = cluster.put(1, Strong, "y", "new");
    cluster.deliver();
    assert!(cluster.is_done(write));
    cluster.hold_back(Frame::is_news);
    cluster.deliver();
    cluster.release();
    cluster.run(100);
    cluster.have_the_same(1, 2)
}

#[test]
fn frames_of_an_older_epoch_are_refused() {
    assert_needed(Rule::Epoch, late);
}

/// A write is acknowledged by all, and the primary is gone before it has told the others so.
fn unapplied(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.hold_back(|frame| frame.from == 0 && frame.is_news());
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

/// A replica has an entry that is not committed, and that the new primary lacks. It must come back to what the others have
/// without having to throw away what is acknowledged: the new primary may be gone as well before it is filled again.
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
fn a_replica_applies_what_is_committed() {
    assert_needed(Rule::CommittedApplied, uncommitted);
}

/// A holder that fell behind is all that is left when the only one in sync is gone: the group is opened empty there.
fn lost(rules: Rules) -> bool {
    let mut cluster = Cluster::new(2, 1, Rules::default());
    // Of the other node alone: without the rule the first could not have opened the group either.
    cluster.nodes[1].replication = Replication::new(cluster.nodes[1].identity, BACKLOG_BYTES, rules);
    cluster.put(0, Strong, "x", "old");
    cluster.regroup(0, &[0], &[1]);
    cluster.tell_all();
    cluster.run_agreeing(300);
    assert!(cluster.have_the_same(0, 1));
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
fn what_is_left_of_a_lost_group_is_void() {
    assert_needed(Rule::Opened, lost);
}

/// It had been proposed that they are not in sync: their acknowledgements were not there a tick after the write, and what they
/// had acknowledged before it was long ago.
#[test]
fn who_had_nothing_to_acknowledge_has_not_stalled() {
    let mut cluster = Cluster::new(3, 3, Rules::default());
    cluster.run(1_000);
    assert!(cluster.proposed.is_empty());
    cluster.hold_back(|frame| frame.to == 0 && !frame.is_append());
    cluster.put(0, Strong, "x", "1");
    cluster.run(STALL_MS / 2);
    assert_eq!(cluster.proposed, []);
    cluster.run(STALL_MS);
    assert_eq!(cluster.proposed.pop().expect("a proposal").in_sync.len(), 1, "who is silent has");
}

/// Seed 31025560 of the simulator: a learner was whole and proposed as in-sync. Then came its late answer from before its snapshot,
/// that it had nothing, and another snapshot took away what it had, when the map had made it in-sync.
#[test]
fn who_may_be_in_sync_by_now_is_not_filled_anew() {
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

/// A primary hands over, and is asked for a write after it has named its successor.
fn handed_over(rules: Rules) -> bool {
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
fn who_hands_over_takes_no_more() {
    assert_needed(Rule::Freeze, handed_over);
}

/// A primary hands over, evicts a key after it has named its successor, which dies, and is primary again.
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
    cluster.read(0, Strong, "y") == value("2") && cluster.read(0, Strong, "x") == NOTHING && cluster.have_the_same(0, 2)
}

/// Seed 20006365 of the simulator: it had written what the next primary did not have, threw its copy away for that, and was
/// still in sync by the map.
#[test]
fn who_hands_over_writes_no_more() {
    assert_needed(Rule::Freeze, evicted_while_frozen);
}

/// The same, but the map decides something else, and it stays primary.
#[test]
fn what_was_evicted_while_frozen_is_removed_everywhere() {
    let mut cluster = Cluster::new(3, 3, Rules::default());
    cluster.put(0, Strong, "x", "1");
    cluster.run(100);
    hand_over(&mut cluster);
    cluster.evict(0, "x");
    cluster.regroup(0, &[0, 1, 2], &[]);
    cluster.tell_all();
    cluster.run(100);
    assert_eq!(cluster.read(0, Strong, "x"), NOTHING);
    assert!(cluster.have_the_same(0, 1) && cluster.have_the_same(0, 2));
}

/// The primary's wall clock is ahead of the next one's. It has shown that a value has expired.
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
fn what_was_seen_to_expire_does_not_come_back() {
    assert_needed(Rule::ExpiryInLog, expired);
}

/// A learner is proposed as in-sync; then it falls behind, and the map says that it is a learner, in a later epoch. The proposal
/// arrives after that. True if what was acknowledged meanwhile is not lost unnoticed.
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
    cluster.take_for_down(0);
    cluster.take_for_down(1);
    COMPARES.set(true);
    // The third node has nothing of it, so the group is lost, and the map says so.
    cluster.map.assignment(group()).opened > opened
}

#[test]
fn a_proposal_for_an_epoch_that_is_over_is_void() {
    assert!(belated(true));
    assert!(!belated(false));
}
