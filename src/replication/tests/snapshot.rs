//! Snapshots alongside the log.

use super::client::Op;
use super::*;
use Level::{Eventual, Strong};

/// The log overtakes a chunk of a snapshot with a newer effect on one of its keys.
fn overtaken(rules: Rules, op: Op) -> bool {
    let mut cluster = Cluster::new(2, 1, rules);
    cluster.put(0, Strong, "x", "old");
    cluster.put(0, Strong, "y", "1");
    cluster.regroup(0, &[0], &[1]);
    cluster.tell_all();
    cluster.hold_back(Frame::is_chunk);
    cluster.run(50);
    assert!(cluster.wire.iter().any(Frame::is_chunk));
    cluster.ask(0, Strong, "x", op);
    cluster.deliver();
    cluster.release();
    cluster.run_agreeing(300);
    assert_eq!(cluster.map.assignment(group()).in_sync.len(), 2);
    cluster.stores_are_equal(0, 1)
}

#[test]
fn a_key_removed_meanwhile_does_not_come_back() {
    assert_needed(Rule::Tombstones, |rules| overtaken(rules, Op::Delete));
}

#[test]
fn a_value_written_meanwhile_stays() {
    assert_needed(Rule::NewerWins, |rules| overtaken(rules, Op::Put("new")));
}

/// A snapshot shows a write that no in-sync holder but the primary has. Its receiver becomes in-sync, and a holder that
/// lacks the write becomes primary.
fn ahead(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 2, rules);
    cluster.put(0, Strong, "x", "old");
    cluster.run(100);
    cluster.regroup(0, &[0, 1], &[2]);
    cluster.tell_all();
    cluster.hold_back(|frame| matches!(frame.body(), Some(Body::SnapshotAcknowledge { .. })));
    cluster.run(50);
    cluster.put(0, Eventual, "x", "new");
    cluster.hold_back(|frame| frame.from == 0 && frame.is_append());
    cluster.run(50);
    cluster.decide_proposed();
    cluster.tell_all();
    cluster.crash(0);
    cluster.run_agreeing(1_000);
    assert_eq!(cluster.map.assignment(group()).in_sync.len(), 2);
    cluster.stores_are_equal(1, 2)
}

#[test]
fn a_snapshot_shows_committed_values_only() {
    assert_needed(Rule::SnapshotCommitted, ahead);
}

/// A learner is removed and added again while it receives a snapshot. The primary learns of both at once.
#[test]
fn a_learner_that_was_removed_gets_a_new_snapshot() {
    let mut cluster = Cluster::new(2, 1, Rules::default());
    cluster.put(0, Strong, "x", "1");
    cluster.regroup(0, &[0], &[1]);
    cluster.tell_all();
    cluster.hold_back(Frame::is_chunk);
    cluster.run(50);
    cluster.regroup(0, &[0], &[]);
    cluster.tell(1);
    cluster.regroup(0, &[0], &[1]);
    cluster.tell_all();
    cluster.release();
    cluster.run_agreeing(10_000);
    assert_eq!(cluster.map.assignment(group()).in_sync.len(), 2);
}

/// A group was lost and opened elsewhere. A node with the old data hears the new primary before it learns of that.
#[test]
fn a_node_with_void_data_gets_a_new_snapshot() {
    let mut cluster = Cluster::new(3, 3, Rules::default());
    cluster.put(0, Strong, "x", "old");
    cluster.run(100);
    cluster.regroup(0, &[0], &[1, 2]);
    cluster.nodes[0].is_up = false;
    cluster.declare_down(0);
    let home = cluster.primary();
    let other = 3 - home;
    cluster.tell(home);
    for letter in ["x", "y", "z"] {
        cluster.put(home, Eventual, letter, "new");
    }
    cluster.regroup(home, &[home], &[other]);
    cluster.tell(home);
    cluster.run(100);
    cluster.tell(other);
    cluster.run_agreeing(300);
    assert_eq!(cluster.map.assignment(group()).in_sync.len(), 2);
    assert!(cluster.stores_are_equal(home, other));
}
