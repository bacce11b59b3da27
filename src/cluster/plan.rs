//! The sticky planner: computes an assignment of groups to nodes from the current one and the ring.
//!
//! It moves as little as the bounds allow. A copy stays unless its node is gone, its zone has too many copies of the
//! group, or its node exceeds its quota ([`Quotas`]). A missing copy goes to the first node in the group's order of
//! preference that has room. An overloaded node gives groups directly to nodes that have room or, where zones forbid
//! that, by a chain of movements: a shortest augmenting path, as in a flow network.
//!
//! A plan is a pure function of its arguments, so all nodes compute the same one.

use super::quota::Quotas;
use super::{NodeId, Ring};
use crate::slots::{GROUPS, Group};
use std::collections::VecDeque;

/// An assignment of groups to nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The holders of each group, the primary first.
    copies: Vec<Vec<NodeId>>,
}

impl Plan {
    /// A plan without any copies.
    pub fn empty() -> Self {
        Self { copies: vec![Vec::new(); GROUPS] }
    }

    /// A plan from the holders of each group, in the order of groups, the primary first.
    ///
    /// # Panics
    /// If there are not [`GROUPS`] groups.
    pub fn of(copies: Vec<Vec<NodeId>>) -> Self {
        assert_eq!(copies.len(), GROUPS, "groups");
        Self { copies }
    }

    /// The holders of a group, the primary first.
    pub fn copies(&self, group: Group) -> &[NodeId] {
        &self.copies[group.index()]
    }

    /// The holders of each group, in the order of groups.
    pub fn groups(&self) -> impl Iterator<Item = &[NodeId]> {
        self.copies.iter().map(|copies| &copies[..])
    }

    /// The number of copies in this plan that `before` lacks: the copies to transfer.
    pub fn copies_since(&self, before: &Self) -> usize {
        let new = |(now, before): (&Vec<NodeId>, &Vec<NodeId>)| now.iter().filter(|id| !before.contains(id)).count();
        self.copies.iter().zip(&before.copies).map(new).sum()
    }
}

/// Plans `replicas` copies of each group on the members of `ring`, or one per member if there are fewer, with as few
/// movements from `current` as the bounds allow.
pub fn plan(ring: &Ring, current: &Plan, replicas: usize) -> Plan {
    let all: Vec<Group> = (0..GROUPS).map(Group::numbered).collect();
    plan_some(ring, current, replicas, &all)
}

/// Plans only `groups`; all others have no copies in the plan.
pub fn plan_some(ring: &Ring, current: &Plan, replicas: usize, groups: &[Group]) -> Plan {
    let mut planner = Planner::new(ring, current, replicas, groups);
    planner.fill();
    planner.unload();
    planner.balance_primaries();
    let id = |number: u16| ring.members()[usize::from(number)].id;
    let mut plan = Plan::empty();
    for (group, copies) in groups.iter().zip(planner.copies) {
        plan.copies[group.index()] = copies.into_iter().map(id).collect();
    }
    plan
}

/// A plan in progress. Nodes are indexes into the ring's members, groups are indexes into the groups planned.
struct Planner<'r> {
    zones: &'r [u16],
    orders: Vec<Vec<u16>>,
    quotas: Quotas,
    /// The holders of each group, the primary first.
    copies: Vec<Vec<u16>>,
    /// By node: the number of groups it holds, and of those it is the primary of.
    held: Vec<usize>,
    led: Vec<usize>,
}

/// The movement of a group from one node to another.
#[derive(Clone, Copy)]
struct Step {
    group: usize,
    from: u16,
    to: u16,
}

impl<'r> Planner<'r> {
    /// Begins with the copies that can stay where they are.
    fn new(ring: &'r Ring, current: &Plan, replicas: usize, groups: &[Group]) -> Self {
        let quotas = Quotas::new(ring, replicas, groups.len());
        let nodes = ring.members().len();
        let mut planner = Self {
            zones: ring.zones(),
            orders: groups.iter().map(|&group| ring.order(group)).collect(),
            quotas,
            copies: vec![Vec::new(); groups.len()],
            held: vec![0; nodes],
            led: vec![0; nodes],
        };
        for (group, holders) in groups.iter().map(|group| &current.copies[group.index()]).enumerate() {
            for number in holders.iter().filter_map(|&id| ring.number(id)) {
                if planner.copies[group].len() < planner.quotas.replicas && planner.may_hold(group, number, None) {
                    planner.copies[group].push(number);
                    planner.held[usize::from(number)] += 1;
                }
            }
        }
        planner
    }

    fn zone(&self, node: u16) -> usize {
        usize::from(self.zones[usize::from(node)])
    }

    /// True if `node` may become a holder of `group`, perhaps in place of another.
    fn may_hold(&self, group: usize, node: u16, instead_of: Option<u16>) -> bool {
        let zone = self.zone(node);
        let copies = &self.copies[group];
        let in_zone = copies.iter().filter(|&&holder| Some(holder) != instead_of && self.zone(holder) == zone).count();
        !copies.contains(&node) && in_zone < self.quotas.zone_max[zone]
    }

    fn has_room(&self, node: u16) -> bool {
        self.held[usize::from(node)] < self.quotas.copies_max[usize::from(node)]
    }

    /// Adds the missing copies of each group.
    fn fill(&mut self) {
        for group in 0..self.copies.len() {
            while self.copies[group].len() < self.quotas.replicas {
                let order = &self.orders[group];
                let allowed = || order.iter().copied().filter(|&node| self.may_hold(group, node, None));
                let excess =
                    |node: u16| self.held[usize::from(node)] as i64 - self.quotas.copies_max[usize::from(node)] as i64;
                let node = allowed().find(|&node| self.has_room(node));
                let node = node.or_else(|| allowed().min_by_key(|&node| excess(node)));
                let node = node.expect("zones have room for as many copies as there are to be");
                self.copies[group].push(node);
                self.held[usize::from(node)] += 1;
            }
        }
    }

    /// Moves groups off nodes that exceed their quota.
    fn unload(&mut self) {
        for node in 0..self.held.len() as u16 {
            // Each step ends at a node that has room; the bound covers chains that break halfway.
            for _ in 0..self.copies.len() {
                if self.held[usize::from(node)] <= self.quotas.copies_max[usize::from(node)] || !self.unload_one(node) {
                    break;
                }
            }
        }
    }

    /// Moves one group off `node`. False if no other node can take one.
    fn unload_one(&mut self, node: u16) -> bool {
        if let Some(step) = self.best_step(node) {
            self.take(step);
            return true;
        }
        let chain = self.chain(node, |planner, node| planner.has_room(node), Self::steps_from);
        let found = !chain.is_empty();
        for step in chain.into_iter().rev() {
            if !self.may_hold(step.group, step.to, Some(step.from)) {
                break;
            }
            self.take(step);
        }
        found
    }

    /// The best single movement off a node to one that has room: preferably of a group that it is not the primary of,
    /// to the node that the group prefers most.
    fn best_step(&self, from: u16) -> Option<Step> {
        let groups = (0..self.copies.len()).filter(|&group| self.copies[group].contains(&from));
        let steps = groups.flat_map(|group| {
            let is_primary = self.copies[group][0] == from;
            let ranked = self.orders[group].iter().enumerate();
            let able = ranked.filter(move |&(_, &to)| self.has_room(to) && self.may_hold(group, to, Some(from)));
            able.map(move |(rank, &to)| ((is_primary, rank, group), Step { group, from, to })).next()
        });
        steps.min_by_key(|&(cost, _)| cost).map(|(_, step)| step)
    }

    /// For each other node, one group that may move there.
    fn steps_from(&self, from: u16) -> Vec<Step> {
        let mut steps: Vec<Option<Step>> = vec![None; self.held.len()];
        for group in (0..self.copies.len()).filter(|&group| self.copies[group].contains(&from)) {
            for to in 0..self.held.len() as u16 {
                if steps[usize::from(to)].is_none() && self.may_hold(group, to, Some(from)) {
                    steps[usize::from(to)] = Some(Step { group, from, to });
                }
            }
        }
        steps.into_iter().flatten().collect()
    }

    fn take(&mut self, Step { group, from, to }: Step) {
        let copies = &mut self.copies[group];
        copies.retain(|&holder| holder != from);
        copies.push(to);
        self.held[usize::from(from)] -= 1;
        self.held[usize::from(to)] += 1;
    }

    /// Changes primaries until no node is the primary of more groups than its quota.
    fn balance_primaries(&mut self) {
        for primary in self.copies.iter().filter_map(|copies| copies.first()) {
            self.led[usize::from(*primary)] += 1;
        }
        let has_room = |planner: &Self, node: u16| {
            planner.led[usize::from(node)] < planner.quotas.primaries_max[usize::from(node)]
        };
        for node in 0..self.led.len() as u16 {
            while self.led[usize::from(node)] > self.quotas.primaries_max[usize::from(node)] {
                let chain = self.chain(node, has_room, Self::handovers_from);
                if chain.is_empty() {
                    break;
                }
                for Step { group, from, to } in chain {
                    let copies = &mut self.copies[group];
                    let at = copies.iter().position(|&holder| holder == to).expect("it holds the group");
                    copies.swap(0, at);
                    self.led[usize::from(from)] -= 1;
                    self.led[usize::from(to)] += 1;
                }
            }
        }
    }

    /// For each other holder, one group whose primary it could become instead of `from`.
    fn handovers_from(&self, from: u16) -> Vec<Step> {
        let mut steps: Vec<Option<Step>> = vec![None; self.led.len()];
        for (group, copies) in self.copies.iter().enumerate().filter(|(_, copies)| copies.first() == Some(&from)) {
            for &to in &copies[1..] {
                steps[usize::from(to)].get_or_insert(Step { group, from, to });
            }
        }
        steps.into_iter().flatten().collect()
    }

    /// A shortest chain of steps from a node to one that has room, by breadth-first search. Empty if there is none.
    fn chain(
        &self,
        start: u16,
        has_room: impl Fn(&Self, u16) -> bool,
        steps_from: impl Fn(&Self, u16) -> Vec<Step>,
    ) -> Vec<Step> {
        let mut came_by: Vec<Option<Step>> = vec![None; self.held.len()];
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for step in steps_from(self, node) {
                if step.to == start || came_by[usize::from(step.to)].is_some() {
                    continue;
                }
                came_by[usize::from(step.to)] = Some(step);
                if has_room(self, step.to) {
                    let mut chain: Vec<Step> =
                        std::iter::successors(Some(step), |step| came_by[usize::from(step.from)]).collect();
                    chain.reverse();
                    return chain;
                }
                queue.push_back(step.to);
            }
        }
        Vec::new()
    }
}
