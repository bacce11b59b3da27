//! What may be acknowledged, and what may be read.

use super::client::{NOTHING, Op, value};
use super::*;
use Level::{Eventual, Session, Strong};

/// The in-sync set shrinks to the primary, while one write waits and before another; then the primary dies as well.
fn left_alone(rules: Rules) -> bool {
    let mut cluster = Cluster::new(4, 3, rules);
    cluster.isolate(1);
    let writes = [
        ("x", cluster.put(0, Strong, "x", "1")),
        ("y", {
            cluster.crash(1);
            cluster.crash(2);
            cluster.put(0, Strong, "y", "1")
        }),
    ];
    cluster.run(100);
    cluster.crash(0);
    cluster.run(GRACE_MS);
    writes.iter().all(|&(letter, write)| !cluster.is_done(write) || cluster.read(3, Eventual, letter) == value("1"))
}

#[test]
fn one_in_sync_copy_is_not_safe() {
    assert_needed(Rule::MinInSync, left_alone);
}

/// An in-sync holder misses a write and becomes primary.
fn unacknowledged(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.cut.insert((0, 1));
    let write = cluster.put(0, Strong, "x", "1");
    cluster.deliver();
    cluster.crash(0);
    cluster.run(GRACE_MS);
    !cluster.is_done(write) || cluster.read(1, Strong, "x") == value("1")
}

#[test]
fn a_write_is_safe_when_all_in_sync_have_it() {
    assert_needed(Rule::AllAcknowledge, unacknowledged);
}

/// A strong read sees a write that no other holder has yet.
fn read_early(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.cut.insert((0, 1));
    cluster.put(0, Eventual, "x", "1");
    let seen = cluster.read(0, Strong, "x");
    cluster.crash(0);
    cluster.run(GRACE_MS);
    seen != value("1") || cluster.read(1, Strong, "x") == value("1")
}

#[test]
fn a_strong_read_shows_committed_values_only() {
    assert_needed(Rule::CommittedReads, read_early);
}

/// A session reads at a replica before its write has arrived there.
fn own_write(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.cut.insert((0, 2));
    let write = cluster.put(0, Session, "x", "1");
    cluster.deliver();
    let token = cluster.asked[write].token;
    let read = cluster.ask_with(token, 2, Session, "x", Op::Get);
    cluster.seen(read) != NOTHING
}

#[test]
fn a_session_reads_its_writes() {
    assert_needed(Rule::SessionToken, own_write);
}

/// A primary is partitioned away: for a limited time it admits writes that will be lost.
fn alone(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.isolate(0);
    cluster.run(LEASE_MS + DOUBT_MS / 2);
    let early = cluster.put(0, Eventual, "x", "1");
    cluster.run(DOUBT_MS);
    let late = cluster.put(0, Eventual, "x", "2");
    cluster.is_done(early) && !cluster.is_done(late)
}

#[test]
fn a_primary_without_a_lease_for_long_admits_no_writes() {
    assert_needed(Rule::BoundedDoubt, alone);
}

/// A replica has evicted a key, and then receives a change inside its value.
fn evicted(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.put(0, Strong, "x", "whole, ");
    cluster.run(100);
    cluster.nodes[2].store.remove(group(), &key("x"));
    cluster.ask(0, Strong, "x", Op::Append("and more"));
    cluster.deliver();
    let partial = cluster.read(2, Eventual, "x");
    cluster.run(200);
    partial != value("and more") && cluster.read(2, Eventual, "x") == value("whole, and more")
}

#[test]
fn a_change_is_not_applied_to_another_version() {
    assert_needed(Rule::ChangedVersion, evicted);
}

/// A replica has evicted a key on its own, becomes primary, and serves the key as missing. The next primary still has
/// it.
fn forgotten(rules: Rules) -> bool {
    let mut cluster = Cluster::new(3, 3, rules);
    cluster.put(0, Strong, "x", "1");
    cluster.run(100);
    cluster.evict(1, "x");
    cluster.crash(0);
    cluster.run(GRACE_MS);
    assert_eq!(cluster.read(1, Strong, "x"), NOTHING);
    cluster.regroup(2, &[2, 1], &[]);
    cluster.tell_all();
    cluster.run(GRACE_MS);
    cluster.read(2, Strong, "x") == NOTHING
}

#[test]
fn a_locally_evicted_key_does_not_come_back() {
    assert_needed(Rule::OwnEviction, forgotten);
}
