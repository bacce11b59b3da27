//! Which members vote: a few, spread over zones, changed as rarely as possible. All others are learners.
//!
//! Three members vote, five from nine members up (until fewer than seven are up, so that one that comes and goes
//! changes nothing), and always an odd number: a fourth voter would tolerate no more failures than three. Members that
//! are up are preferred, among these zones without a voter, then the leader and the present voters. A voter that is
//! down stays until another can replace it: with fewer voters, one more loss could be permanent.

use super::events::Fault;
use super::storage::Configuration;
use crate::cluster::map::{Map, MemberState, State};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};
use std::collections::{BTreeMap, BTreeSet};

/// Number of voters of a small and of a large cluster.
const VOTERS_FEW: usize = 3;
const VOTERS_MANY: usize = 5;
/// Members up from which on a cluster counts as large, and down to which it stays so.
const LARGE_FROM: usize = 9;
const LARGE_UNTIL: usize = 7;

/// The leader's next step towards the wanted voters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Changes the configuration, in one entry.
    Change(Vec<(ConfChangeType, u64)>),
    /// Transfers leadership, because this leader is to lose its vote.
    Transfer(u64),
}

/// The wanted voters, by Raft id.
pub(super) fn wanted(map: &Map, current: &Configuration, leader: u64) -> BTreeSet<u64> {
    let votes = |member: &MemberState| current.voters.contains(&member.raft);
    let up = map.members().filter(|member| member.state == State::Up).count();
    let is_large = up >= LARGE_FROM || (current.voters.len() > VOTERS_FEW && up >= LARGE_UNTIL);
    let mut candidates: Vec<&MemberState> =
        map.members().filter(|member| member.state == State::Up || votes(member)).collect();
    let count = candidates.len().min(if is_large { VOTERS_MANY } else { VOTERS_FEW });
    let count = if count % 2 == 0 { count.saturating_sub(1) } else { count };

    let mut chosen = BTreeSet::new();
    let mut in_zone: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..count {
        let rank = |member: &&MemberState| {
            let state = match member.state {
                State::Up => 0,
                State::Leaving => 1,
                State::Down => 2,
            };
            let zone = in_zone.get(&member.member.zone[..]).copied().unwrap_or(0);
            (state, zone, member.raft != leader, !votes(member), member.member.id)
        };
        let Some(best) = candidates.iter().copied().min_by_key(rank) else { break };
        candidates.retain(|member| member.raft != best.raft);
        *in_zone.entry(&best.member.zone).or_default() += 1;
        chosen.insert(best.raft);
    }
    chosen
}

/// The leader's next step, if any. A member gets a vote only if it replicates the log, which `follows` tells. A leader
/// never removes its own vote, since Raft's crate cannot handle that.
pub(super) fn next_step(
    map: &Map,
    current: &Configuration,
    leader: u64,
    follows: impl Fn(u64) -> bool,
) -> Option<Step> {
    let mut target = wanted(map, current, leader);
    if !target.contains(&leader) {
        let heir = target.iter().copied().find(|&id| current.voters.contains(&id) && follows(id));
        if let Some(heir) = heir {
            return Some(Step::Transfer(heir));
        }
        target.insert(leader);
    }
    let members: BTreeSet<u64> = map.members().map(|member| member.raft).collect();
    let known = |id: &u64| current.voters.contains(id) || current.learners.contains(id);
    let mut changes = Vec::new();
    if target.iter().all(|&id| current.voters.contains(&id) || follows(id)) {
        let new = target.iter().filter(|id| !current.voters.contains(id));
        changes.extend(new.map(|&id| (ConfChangeType::AddNode, id)));
        for &id in current.voters.iter().filter(|id| !target.contains(id)) {
            let stays = members.contains(&id);
            let change = if stays { ConfChangeType::AddLearnerNode } else { ConfChangeType::RemoveNode };
            changes.push((change, id));
        }
    }
    let new = members.iter().filter(|id| !known(id));
    changes.extend(new.map(|&id| (ConfChangeType::AddLearnerNode, id)));
    let gone = current.learners.iter().filter(|id| !members.contains(id));
    changes.extend(gone.map(|&id| (ConfChangeType::RemoveNode, id)));
    (!changes.is_empty()).then_some(Step::Change(changes))
}

/// Encodes configuration changes: kind and Raft id of each.
pub(super) fn encode_changes(changes: &[(ConfChangeType, u64)]) -> Vec<u8> {
    let numbers: Vec<(u8, u64)> = changes.iter().map(|&(change, id)| (change as u8, id)).collect();
    postcard::to_allocvec(&numbers).expect("postcard encodes numbers")
}

/// Decodes configuration changes. Raft leaves a joint configuration with an empty entry.
pub(super) fn decode_changes(context: &[u8]) -> Result<Vec<(ConfChangeType, u64)>, Fault> {
    if context.is_empty() {
        return Ok(Vec::new());
    }
    let types = [ConfChangeType::AddNode, ConfChangeType::RemoveNode, ConfChangeType::AddLearnerNode];
    let numbers: Vec<(u8, u64)> = postcard::from_bytes(context).unwrap_or_default();
    let read = |(number, id)| types.into_iter().find(|&change| change as u8 == number).map(|change| (change, id));
    let changes: Option<Vec<_>> = numbers.into_iter().map(read).collect();
    changes.filter(|changes| !changes.is_empty()).ok_or(Fault::NotUnderstood("a change of the configuration"))
}

/// Converts configuration changes to Raft's type.
pub(super) fn configuration_change(changes: &[(ConfChangeType, u64)]) -> ConfChangeV2 {
    let single = |&(change, id): &(ConfChangeType, u64)| {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(change);
        single.node_id = id;
        single
    };
    let mut change = ConfChangeV2::default();
    change.set_changes(changes.iter().map(single).collect::<Vec<_>>().into());
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::map::{Change, Settings};
    use crate::cluster::{Identity, Member, NodeId};

    /// A map with one member per zone given; a member's Raft id is its number plus one.
    fn map(zones: &[&str]) -> Map {
        let mut map = Map::empty();
        for (number, zone) in (0..).zip(zones) {
            let member = Member { id: NodeId(number), zone: zone.to_string(), memory_bytes: 1 };
            let (raft, address, incarnation) = (number + 1, format!("node-{number}"), 1);
            let change = match number {
                0 => Change::Bootstrap {
                    cluster: 7,
                    settings: Settings { replicas: 1, min_in_sync: 1 },
                    first: MemberState { member, incarnation, raft, address, state: State::Up },
                },
                _ => Change::Join { member, incarnation, raft, address },
            };
            map.apply(&change).expect("all are new");
        }
        map
    }

    fn down(map: &mut Map, number: u64) {
        map.apply(&Change::Down { identity: Identity { node: NodeId(number), incarnation: 1 } }).expect("it is known");
    }

    fn configuration(voters: &[u64], learners: &[u64]) -> Configuration {
        Configuration { voters: voters.to_vec(), learners: learners.to_vec(), ..Configuration::default() }
    }

    #[test]
    fn zones_come_before_habit_and_habit_before_names() {
        let map = map(&["a", "a", "a", "b", "c", "c"]);
        let wanted = |voters: &[u64], leader| wanted(&map, &configuration(voters, &[]), leader);
        assert_eq!(wanted(&[1], 1), BTreeSet::from([1, 4, 5]));
        assert_eq!(wanted(&[1, 2, 3], 2), BTreeSet::from([2, 4, 5]), "the leader stays");
        assert_eq!(wanted(&[2, 4, 6], 4), BTreeSet::from([2, 4, 6]), "so do voters whose zones are as good");
    }

    #[test]
    fn the_number_of_voters_is_odd_and_moves_seldom() {
        let mut map = map(&["a"; 9]);
        let count = |map: &Map, voters: &[u64]| wanted(map, &configuration(voters, &[]), 1).len();
        assert_eq!(count(&map, &[1, 2, 3]), 5);
        down(&mut map, 8);
        assert_eq!((count(&map, &[1, 2, 3]), count(&map, &[1, 2, 3, 4, 5])), (3, 5));
        [7, 6].into_iter().for_each(|number| down(&mut map, number));
        assert_eq!(count(&map, &[1, 2, 3, 4, 5]), 3);
        [5, 4, 3, 2].into_iter().for_each(|number| down(&mut map, number));
        assert_eq!(count(&map, &[1, 2, 3]), 3, "a voter that is down stays if there is no other");
        assert_eq!(count(&map, &[1]), 1);
    }

    #[test]
    fn members_vote_once_they_follow_and_a_leader_hands_over_before_losing_its_vote() {
        let mut map = map(&["a", "b", "c", "d"]);
        let changes = |map: &Map, voters: &[u64], learners: &[u64], followers: &[u64]| {
            next_step(map, &configuration(voters, learners), 1, |id| followers.contains(&id))
        };
        use ConfChangeType::{AddLearnerNode as Learner, AddNode as Voter, RemoveNode as Gone};
        let learners = [2, 3, 4].map(|id| (Learner, id)).to_vec();
        assert_eq!(changes(&map, &[1], &[], &[]), Some(Step::Change(learners)));
        assert_eq!(changes(&map, &[1], &[2, 3, 4], &[2, 4]), None, "3 is not there yet");
        let voters = [2, 3].map(|id| (Voter, id)).to_vec();
        assert_eq!(changes(&map, &[1], &[2, 3, 4], &[2, 3]), Some(Step::Change(voters)));
        assert_eq!(changes(&map, &[1, 2, 3], &[4, 9], &[2, 3]), Some(Step::Change(vec![(Gone, 9)])));
        down(&mut map, 0);
        assert_eq!(changes(&map, &[1, 2, 3], &[4], &[3, 4]), Some(Step::Transfer(3)));
    }

    #[test]
    fn changes_are_read_as_they_were_written() {
        let changes = vec![(ConfChangeType::AddNode, 5), (ConfChangeType::RemoveNode, u64::MAX)];
        assert_eq!(decode_changes(&encode_changes(&changes)), Ok(changes));
        assert_eq!(decode_changes(&[]), Ok(Vec::new()));
        assert!(decode_changes(&[1, 9, 1]).is_err() && decode_changes(&[7]).is_err());
    }
}
