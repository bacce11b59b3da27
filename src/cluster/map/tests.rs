//! Scenarios of members and their groups, and random changes that must keep the map's invariants.

use super::*;
use proptest::prelude::*;

const SETTINGS: Settings = Settings { replicas: 3, min_in_sync: 2 };

fn identity(node: u64, incarnation: u64) -> Identity {
    Identity { node: NodeId(node), incarnation }
}

fn state(node: u64, incarnation: u64) -> MemberState {
    let member = Member { id: NodeId(node), zone: format!("zone-{}", node % 3), memory_bytes: 1 << 34 };
    let address = format!("10.0.0.{node}:11290");
    MemberState { member, incarnation, raft: node + 1, address, state: State::Up }
}

fn join(node: u64, incarnation: u64) -> Change {
    let MemberState { member, incarnation, raft, address, .. } = state(node, incarnation);
    Change::Join { member, incarnation, raft, address }
}

fn down(node: u64, incarnation: u64) -> Change {
    Change::Down { identity: identity(node, incarnation) }
}

fn all_groups() -> Vec<Group> {
    (0..GROUPS).map(Group::numbered).collect()
}

/// A cluster of `nodes` nodes in their first incarnations; node 0 holds all groups.
fn cluster(nodes: u64) -> Map {
    let mut map = Map::empty();
    let first = state(0, 1);
    assert_eq!(map.apply(&Change::Bootstrap { cluster: 7, settings: SETTINGS, first }), Ok(Applied::Changed));
    for node in 1..nodes {
        assert_eq!(map.apply(&join(node, 1)), Ok(Applied::Changed));
    }
    map
}

/// A cluster whose groups are where the planner wants them.
fn planned(nodes: u64) -> Map {
    let mut map = cluster(nodes);
    follow_plan(&mut map);
    map
}

/// The next assignment of a group on the way to the wanted holders: primary, in-sync set and learners.
type Chooser = dyn Fn(&Assignment, Vec<Identity>) -> (Identity, Vec<Identity>, Vec<Identity>);

/// Moves all groups to where the planner wants them: new holders learn, become in-sync, and the old ones are removed.
fn follow_plan(map: &mut Map) {
    let wanted = map.wanted(&all_groups());
    let current = |map: &Map, node: &NodeId| map.member(*node).expect("a member").identity();
    let mut set = |choose: &Chooser| {
        let change = |(group, old): (Group, &Assignment)| {
            let wanted = wanted.copies(group).iter().map(|node| current(map, node)).collect();
            let (primary, in_sync, learners) = choose(old, wanted);
            GroupChange { group, expected: old.epoch, primary, in_sync, learners }
        };
        let changes = map.assignments().map(change).collect();
        let Ok(Applied::Groups(results)) = map.apply(&Change::Groups(changes)) else { panic!("groups") };
        assert!(results.iter().all(Result::is_ok), "{:?}", results.iter().find(|result| result.is_err()));
    };
    set(&|old, wanted| {
        let strangers = wanted.into_iter().filter(|node| !old.in_sync.contains(node)).collect();
        (old.in_sync[0], old.in_sync.clone(), strangers)
    });
    set(&|old, _| (old.in_sync[0], old.holders().collect(), Vec::new()));
    set(&|_, wanted| (wanted[0], wanted, Vec::new()));
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("postcard encodes it")
}

/// A change of one group that keeps its holders except where stated.
fn regroup(map: &Map, group: usize) -> GroupChange {
    let group = Group::numbered(group);
    let Assignment { epoch, primary, in_sync, learners, .. } = map.assignment(group).clone();
    GroupChange { group, expected: epoch, primary: primary.expect("a primary"), in_sync, learners }
}

fn apply_one(map: &mut Map, change: GroupChange) -> Result<Epoch, GroupRefused> {
    match map.apply(&Change::Groups(vec![change])) {
        Ok(Applied::Groups(results)) => results[0],
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_begins_with_one_member_that_holds_everything() {
    let mut map = Map::empty();
    assert_eq!(map.apply(&join(0, 1)), Err(Refused::NotBootstrapped));
    let settings = Settings { replicas: 2, min_in_sync: 3 };
    let bootstrap = |settings| Change::Bootstrap { cluster: 7, settings, first: state(0, 1) };
    assert_eq!(map.apply(&bootstrap(settings)), Err(Refused::Bounds));
    assert_eq!(map.apply(&bootstrap(SETTINGS)), Ok(Applied::Changed));
    assert_eq!(map.apply(&bootstrap(SETTINGS)), Err(Refused::Bootstrapped));
    assert_eq!((map.version(), map.cluster(), map.lost()), (1, 7, 0));
    for (_, assignment) in map.assignments() {
        assert_eq!((assignment.epoch, assignment.opened), (Epoch(1), Epoch(1)));
        assert_eq!((assignment.primary, &assignment.in_sync[..]), (Some(identity(0, 1)), &[identity(0, 1)][..]));
    }
}

#[test]
fn a_dead_primary_is_followed_by_those_that_lead_least() {
    let mut map = planned(6);
    let before = map.clone();
    assert_eq!(map.apply(&down(2, 1)), Ok(Applied::Changed));
    assert_eq!((map.version(), map.lost()), (before.version() + 1, 0));
    let mut led: BTreeMap<Identity, usize> = BTreeMap::new();
    for (group, now) in map.assignments() {
        let before = before.assignment(group);
        let held = before.holders().any(|holder| holder == identity(2, 1));
        assert_eq!(now.epoch.0, before.epoch.0 + u32::from(held));
        assert!(!now.holders().any(|holder| holder == identity(2, 1)));
        assert!(before.in_sync.contains(&now.primary.expect("a primary")));
        *led.entry(now.primary.expect("a primary")).or_default() += 1;
    }
    let (least, most) = (led.values().min().expect("primaries"), led.values().max().expect("primaries"));
    assert!(most - least <= GROUPS / 20, "{led:?}");
    assert_eq!(map.apply(&down(2, 1)), Ok(Applied::Unchanged), "it is so already");
    assert_eq!(map.apply(&down(2, 9)), Err(Refused::Unknown));
    assert_eq!(map.apply(&down(9, 1)), Err(Refused::Unknown));
}

#[test]
fn a_group_without_holders_is_lost_and_opened_empty() {
    let mut map = cluster(2);
    assert_eq!(map.apply(&down(0, 1)), Ok(Applied::Changed));
    assert_eq!(map.lost(), GROUPS as u64);
    for (_, assignment) in map.assignments() {
        assert_eq!((assignment.epoch, assignment.opened), (Epoch(2), Epoch(2)));
        assert_eq!(assignment.primary, Some(identity(1, 1)));
    }
    // No holder is left, until a node joins.
    assert_eq!(map.apply(&down(1, 1)), Ok(Applied::Changed));
    assert!(map.assignments().all(|(_, assignment)| assignment.primary.is_none() && assignment.epoch == Epoch(3)));
    assert_eq!(map.apply(&join(1, 2)), Ok(Applied::Changed));
    assert!(map.assignments().all(|(_, assignment)| assignment.primary == Some(identity(1, 2))));
    assert_eq!(map.lost(), 2 * GROUPS as u64, "opened once more, but nothing was lost by that");
}

#[test]
fn a_node_that_starts_again_is_a_stranger() {
    let mut map = planned(3);
    assert_eq!(map.apply(&join(1, 1)), Ok(Applied::Unchanged), "a repeated join of the incarnation");
    assert_eq!(map.apply(&join(1, 0)), Err(Refused::Incarnation { known: 1 }));
    assert_eq!(map.apply(&join(1, 2)), Ok(Applied::Changed));
    assert!(map.assignments().all(|(_, assignment)| !assignment.holders().any(|holder| holder.node == NodeId(1))));
    assert!(map.is_live(identity(1, 2)) && !map.is_live(identity(1, 1)));
    assert_eq!(map.apply(&down(1, 1)), Ok(Applied::Unchanged), "its earlier incarnation holds nothing any more");
    // Declared down, it has to join in a new incarnation, although it did not restart.
    assert_eq!(map.apply(&down(1, 2)), Ok(Applied::Changed));
    assert_eq!(map.apply(&join(1, 2)), Err(Refused::Incarnation { known: 2 }));
    assert_eq!(map.apply(&join(1, 3)), Ok(Applied::Changed));
}

#[test]
fn names_addresses_and_raft_identities_are_taken_once() {
    let mut map = cluster(2);
    let with = |change: &dyn Fn(&mut MemberState)| {
        let mut joining = state(5, 1);
        change(&mut joining);
        let MemberState { member, incarnation, raft, address, .. } = joining;
        Change::Join { member, incarnation, raft, address }
    };
    let address = state(1, 1).address;
    assert_eq!(map.apply(&with(&|m| m.address.clone_from(&address))), Err(Refused::AddressTaken(NodeId(1))));
    assert_eq!(map.apply(&with(&|m| m.raft = 2)), Err(Refused::RaftTaken(NodeId(1))));
    assert_eq!(map.apply(&with(&|m| m.raft = 0)), Err(Refused::Bounds));
    assert_eq!(map.apply(&with(&|m| m.member.zone = "z".repeat(65))), Err(Refused::Bounds));
    let elsewhere = with(&|m| (m.member.id, m.incarnation) = (NodeId(1), 2));
    assert_eq!(map.apply(&elsewhere), Err(Refused::NameTaken));
    // Once declared down, it may come back at another address with another Raft id, and another node may use its old
    // address.
    assert_eq!(map.apply(&down(1, 1)), Ok(Applied::Changed));
    assert_eq!(map.apply(&elsewhere), Ok(Applied::Changed));
    assert_eq!(map.apply(&with(&|m| (m.address, m.raft) = (address.clone(), 9))), Ok(Applied::Changed));
}

#[test]
fn one_leaves_when_it_holds_nothing() {
    let mut map = planned(4);
    assert_eq!(map.apply(&Change::Remove { node: NodeId(3) }), Err(Refused::InUse));
    assert_eq!(map.apply(&Change::Leave { node: NodeId(3) }), Ok(Applied::Changed));
    assert_eq!(map.apply(&Change::Leave { node: NodeId(3) }), Ok(Applied::Unchanged));
    assert_eq!(map.apply(&Change::Remove { node: NodeId(3) }), Err(Refused::InUse));
    assert!(map.wanted(&all_groups()).groups().all(|copies| !copies.contains(&NodeId(3))));
    follow_plan(&mut map);
    assert_eq!(map.apply(&Change::Remove { node: NodeId(3) }), Ok(Applied::Changed));
    assert_eq!(map.apply(&Change::Remove { node: NodeId(3) }), Ok(Applied::Unchanged));
    assert_eq!(map.apply(&Change::Leave { node: NodeId(3) }), Err(Refused::Unknown));
    assert_eq!(map.plan_now(), map.wanted(&all_groups()));
    assert_eq!(map.lost(), 0);
}

#[test]
fn groups_are_compared_and_set() {
    let mut map = cluster(6);
    let [primary, second, third] = [identity(0, 1), identity(1, 1), identity(2, 1)];
    let learning = GroupChange { learners: vec![second], ..regroup(&map, 9) };
    assert_eq!(apply_one(&mut map, learning.clone()), Ok(Epoch(2)));
    assert_eq!(apply_one(&mut map, learning), Err(GroupRefused::Epoch(Epoch(2))), "the same again");
    let version = map.version();
    let change = |map: &Map, primary, in_sync: &[Identity], learners: &[Identity]| {
        let (in_sync, learners) = (in_sync.to_vec(), learners.to_vec());
        GroupChange { primary, in_sync, learners, ..regroup(map, 9) }
    };
    for (refused, primary, in_sync, learners) in [
        (GroupRefused::Stranger, primary, &[primary, third][..], &[][..]),
        (GroupRefused::Primary, second, &[primary, second], &[]),
        (GroupRefused::Primary, primary, &[second], &[]),
        (GroupRefused::Holders, primary, &[primary, primary], &[]),
        (GroupRefused::Holders, primary, &[primary], &[primary]),
        (GroupRefused::NotLive, primary, &[primary], &[identity(2, 2)]),
        (GroupRefused::NotLive, primary, &[primary], &[identity(9, 1)]),
    ] {
        let change = change(&map, primary, in_sync, learners);
        assert_eq!(apply_one(&mut map, change), Err(refused));
    }
    assert_eq!(map.version(), version);
    let both = change(&map, primary, &[second, primary], &[]);
    assert_eq!(apply_one(&mut map, both), Ok(Epoch(3)));
    assert_eq!(map.assignment(Group::numbered(9)).in_sync, [primary, second], "the primary comes first");
    let handed_over = change(&map, second, &[second], &[]);
    assert_eq!(apply_one(&mut map, handed_over), Ok(Epoch(4)));
    assert_eq!(map.assignment(Group::numbered(9)).opened, Epoch(1), "it was never empty");
}

/// Versions of items carry 16 bits of the epoch. When these wrap around, an old item would look newer than a new one.
#[test]
fn a_group_begins_anew_where_its_epochs_come_round() {
    let mut map = planned(3);
    map.groups[5].epoch = Epoch(0xffff);
    map.groups[6].epoch = Epoch(0x1_ffff);
    let change = regroup(&map, 5);
    let primary = change.primary;
    assert_eq!(apply_one(&mut map, change), Ok(Epoch(0x1_0000)));
    let group = map.assignment(Group::numbered(5)).clone();
    assert_eq!((group.opened, group.in_sync, map.lost()), (Epoch(0x1_0000), vec![primary], 1));
    let victim = map.assignment(Group::numbered(6)).in_sync[1];
    assert_eq!(map.apply(&Change::Down { identity: victim }), Ok(Applied::Changed));
    let group = map.assignment(Group::numbered(6));
    assert_eq!((group.opened, group.in_sync.len()), (Epoch(0x2_0000), 1));
}

#[test]
fn maps_and_their_differences_are_small() {
    for nodes in [3, 24, 100] {
        let map = planned(nodes);
        let mut next = map.clone();
        next.apply(&down(1, 1)).expect("it is alive");
        let (whole, delta) = (encoded(&map), encoded(&next.delta_since(&map)));
        println!("{nodes} nodes: {} bytes, {} to say that one is down", whole.len(), delta.len());
        assert!(whole.len() < 50 << 10);
        assert!(delta.len() < 12 * (3 * GROUPS / nodes as usize) * 11 / 10 + 2048);
        assert_eq!(postcard::from_bytes::<Map>(&whole).expect("a map"), map);
    }
}

#[test]
fn a_difference_is_from_one_version_on() {
    let older = cluster(3);
    let mut newer = older.clone();
    newer.apply(&down(2, 1)).expect("it is alive");
    let delta = newer.delta_since(&older);
    let mut map = older.clone();
    assert_eq!(map.apply_delta(&delta), Ok(()));
    assert_eq!(map, newer);
    assert_eq!(map.apply_delta(&delta), Err(DeltaError::Version { from: 3, version: 4 }));
    let mut fresh = Map::empty();
    fresh.apply_delta(&newer.delta_since(&Map::empty())).expect("the whole map");
    assert_eq!(fresh, newer);
    let mut other = older.clone();
    other.cluster = 8;
    assert_eq!(other.apply_delta(&delta), Err(DeltaError::Cluster));
}

/// A map that breaks an invariant is refused, wherever it comes from.
#[test]
fn a_map_that_breaks_the_rules_is_not_read() {
    let good = planned(4);
    let breaks: [&dyn Fn(&mut Map); 8] = [
        &|map| map.groups[0].in_sync.push(identity(77, 1)),
        &|map| map.groups[0].in_sync[1].incarnation = 9,
        &|map| map.groups[1].in_sync = vec![map.groups[1].in_sync[0]; 2],
        &|map| map.members.get_mut(&NodeId(2)).expect("a member").state = State::Down,
        &|map| map.members.get_mut(&NodeId(2)).expect("a member").raft = 1,
        &|map| map.groups[2].epoch = Epoch(u32::MAX),
        &|map| map.settings.min_in_sync = 0,
        &|map| drop(map.groups.pop()),
    ];
    for (number, damage) in breaks.iter().enumerate() {
        let mut map = good.clone();
        damage(&mut map);
        assert!(map.check().is_err(), "{number}");
        assert!(postcard::from_bytes::<Map>(&encoded(&map)).is_err(), "{number}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join(u64),
    Rejoin(u64),
    Leave(u64),
    Remove(u64),
    Down(u64),
    Plan,
    Group { group: usize, primary: u64, in_sync: Vec<u64>, learners: Vec<u64>, is_stale: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let nodes = || 0..7_u64;
    let some = || prop::collection::vec(nodes(), 0..4);
    let group = (0..4_usize, nodes(), some(), some(), prop::bool::weighted(0.1));
    let group = group.prop_map(|(group, primary, in_sync, learners, is_stale)| Step::Group {
        group,
        primary,
        in_sync,
        learners,
        is_stale,
    });
    let step = prop_oneof![
        4 => nodes().prop_map(Step::Join),
        2 => nodes().prop_map(Step::Rejoin),
        1 => nodes().prop_map(Step::Leave),
        1 => nodes().prop_map(Step::Remove),
        3 => nodes().prop_map(Step::Down),
        1 => Just(Step::Plan),
        6 => group,
    ];
    prop::collection::vec(step, 1..24)
}

/// Performs a step, whether it is allowed or not.
fn take(map: &mut Map, step: Step) -> Result<Applied, Refused> {
    let known = |map: &Map, node: u64| map.member(NodeId(node)).map_or(1, |member| member.incarnation);
    let change = match step {
        Step::Join(node) => join(node, known(map, node)),
        Step::Rejoin(node) => join(node, known(map, node) + 1),
        Step::Leave(node) => Change::Leave { node: NodeId(node) },
        Step::Remove(node) => Change::Remove { node: NodeId(node) },
        Step::Down(node) => down(node, known(map, node)),
        Step::Plan => {
            if map.members().any(|member| member.state == State::Up) {
                follow_plan(map);
            }
            return Ok(Applied::Unchanged);
        }
        Step::Group { group, primary, in_sync, learners, is_stale } => {
            let group = Group::numbered(group);
            let identities = |nodes: Vec<u64>| nodes.into_iter().map(|node| identity(node, known(map, node))).collect();
            let expected = Epoch(map.assignment(group).epoch.0 - u32::from(is_stale));
            let primary = identity(primary, known(map, primary));
            let (in_sync, learners) = (identities(in_sync), identities(learners));
            Change::Groups(vec![GroupChange { group, expected, primary, in_sync, learners }])
        }
    };
    map.apply(&change)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Under arbitrary changes a map keeps its invariants; a refusal changes nothing; each change of a group increases
    /// its epoch; only former holders become in-sync, or the node where the group is opened empty; and deltas and
    /// encodings reproduce the map.
    #[test]
    fn changes_keep_the_rules(steps in steps(), since in any::<prop::sample::Index>()) {
        let mut map = cluster(3);
        let mut versions = vec![map.clone()];
        for step in steps {
            let is_plan = matches!(step, Step::Plan);
            let before = map.clone();
            let result = take(&mut map, step);
            prop_assert_eq!(map.check(), Ok(()));
            let changed = map != before;
            prop_assert!(!changed || result.is_ok() && map.version() > before.version());
            prop_assert!(changed || map.version() == before.version());
            for (group, now) in map.assignments().filter(|_| !is_plan) {
                let before = before.assignment(group);
                let is_opened = now.opened == now.epoch && before.epoch < now.epoch;
                prop_assert!(now == before || now.epoch.0 == before.epoch.0 + 1);
                prop_assert!(is_opened || now.opened == before.opened);
                let held = |holder: &Identity| before.holders().any(|before| before == *holder);
                prop_assert!(is_opened || now.in_sync.iter().all(held));
                prop_assert!(is_opened || now.primary.is_none_or(|primary| before.in_sync.contains(&primary)));
                prop_assert!(!is_opened || now.in_sync.len() <= 1);
            }
            versions.push(map.clone());
        }
        let older = &versions[since.index(versions.len())];
        let delta: Delta = postcard::from_bytes(&encoded(&map.delta_since(older))).expect("a difference");
        let mut caught_up = older.clone();
        prop_assert_eq!(caught_up.apply_delta(&delta), Ok(()));
        prop_assert_eq!(&caught_up, &map);
        prop_assert_eq!(postcard::from_bytes::<Map>(&encoded(&map)).expect("a map"), map);
    }

    /// Corrupted encodings of a map are refused, or decode to another map that keeps the invariants.
    #[test]
    fn damaged_maps_are_harmless(at in any::<prop::sample::Index>(), byte in any::<u8>(), random in prop::collection::vec(any::<u8>(), 0..99)) {
        let mut map = cluster(3);
        map.apply(&down(0, 1)).expect("it is alive");
        let (mut whole, mut delta) = (encoded(&map), encoded(&map.delta_since(&cluster(2))));
        let (in_whole, in_delta) = (at.index(whole.len()), at.index(delta.len()));
        (whole[in_whole], delta[in_delta]) = (byte, byte);
        for bytes in [&whole, &random] {
            prop_assert!(postcard::from_bytes::<Map>(bytes).map_or(true, |map| map.check().is_ok()));
        }
        for bytes in [&delta, &random] {
            let mut map = cluster(2);
            let _ = postcard::from_bytes::<Delta>(bytes).map(|delta| map.apply_delta(&delta));
            prop_assert_eq!(map.check(), Ok(()));
            let _ = postcard::from_bytes::<Change>(bytes).map(|change| map.apply(&change));
        }
    }
}
