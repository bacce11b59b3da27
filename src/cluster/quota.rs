//! How many groups each node may hold: proportional to its memory, as far as zones allow.
//!
//! The copies of a group go to as many zones as possible. A small zone may therefore have to hold as much as a large
//! one, and its nodes more than others; what exceeds its nodes' capacity is divided among the other zones.

use super::Ring;

/// The fraction by which a node may exceed its exact share, so that fewer groups have to move.
const SLACK: f64 = 0.01;

/// The bounds of a plan.
#[derive(Clone, Debug)]
pub(super) struct Quotas {
    /// Copies of each group.
    pub(super) replicas: usize,
    /// By zone: the largest number of copies of one group.
    pub(super) zone_max: Vec<usize>,
    /// By node: the largest number of groups it may hold, and be the primary of.
    pub(super) copies_max: Vec<usize>,
    pub(super) primaries_max: Vec<usize>,
}

impl Quotas {
    /// The bounds for `replicas` copies (at most one per node) of each of `groups` groups.
    pub(super) fn new(ring: &Ring, replicas: usize, groups: usize) -> Self {
        let members = ring.members();
        let replicas = replicas.min(members.len());
        let of_zone = |zone: usize| {
            let numbers = ring.zones().iter().enumerate().filter(move |&(_, &z)| usize::from(z) == zone);
            numbers.map(|(number, _)| number)
        };
        let weight = |number: usize| members[number].memory_bytes.max(1) as f64;

        // The least number of copies per zone with which a group's copies fit.
        let nodes: Vec<usize> = (0..ring.zone_count()).map(|zone| of_zone(zone).count()).collect();
        let bounded = |bound: usize| nodes.iter().map(move |&count| count.min(bound));
        let bound = (0..=replicas).find(|&bound| bounded(bound).sum::<usize>() >= replicas).unwrap_or(replicas);
        let zone_max: Vec<usize> = bounded(bound).collect();

        let wants = |zone: usize| (of_zone(zone).map(weight).sum::<f64>(), (groups * zone_max[zone]) as f64);
        let wants: Vec<_> = (0..ring.zone_count()).map(wants).collect();
        let mut copies = vec![0.0; members.len()];
        for (zone, quota) in divide((groups * replicas) as f64, &wants).into_iter().enumerate() {
            let wants: Vec<_> = of_zone(zone).map(|number| (weight(number), groups as f64)).collect();
            of_zone(zone).zip(divide(quota, &wants)).for_each(|(number, quota)| copies[number] = quota);
        }
        let bound = |quota: f64| ((quota * (1.0 + SLACK)).ceil() as usize).min(groups);
        Self {
            replicas,
            zone_max,
            copies_max: copies.iter().map(|&quota| bound(quota)).collect(),
            primaries_max: copies.iter().map(|&quota| bound(quota / replicas as f64)).collect(),
        }
    }
}

/// Divides `number` in proportion to weights, each part at most its maximum; excess goes to the others. `wants` are
/// pairs of weight and maximum; the maxima must add up to `number` at least.
fn divide(number: f64, wants: &[(f64, f64)]) -> Vec<f64> {
    let mut parts = vec![None; wants.len()];
    let mut left = number;
    loop {
        let open = || wants.iter().zip(&parts).filter(|(_, part)| part.is_none()).map(|(&(weight, _), _)| weight);
        let (rate, mut full) = (left / open().sum::<f64>(), false);
        for (part, &(weight, most)) in parts.iter_mut().zip(wants) {
            if part.is_none() && rate * weight > most {
                *part = Some(most);
                left -= most;
                full = true;
            }
        }
        if !full {
            return parts.iter().zip(wants).map(|(part, (weight, _))| part.unwrap_or(rate * weight)).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excess_over_a_maximum_goes_to_the_others() {
        assert_eq!(divide(12.0, &[(1.0, 100.0), (2.0, 100.0)]), [4.0, 8.0]);
        assert_eq!(divide(12.0, &[(1.0, 100.0), (2.0, 6.0), (1.0, 100.0)]), [3.0, 6.0, 3.0]);
        // Capping the second raises the third above its maximum as well.
        assert_eq!(divide(12.0, &[(1.0, 100.0), (8.0, 3.0), (2.0, 4.0)]), [5.0, 3.0, 4.0]);
        assert_eq!(divide(10.0, &[(1.0, 5.0), (1.0, 5.0)]), [5.0, 5.0]);
    }
}
