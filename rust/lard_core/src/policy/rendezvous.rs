// SPDX-License-Identifier: GPL-2.0

//! Weighted rendezvous hashing: a choice that needs no state and no dispatcher.
//!
//! Thaler and Ravishankar's highest random weight with logarithmic weighting (Schindelhauer and
//! Schomaker, 2005), on integers:
//!
//! ```text
//! for each node n:  u := hash(key, n) as a fraction of 1, above 0
//!                   cost := -log2(u) / n.weight
//! choose the node with the lowest cost, the lowest number on a tie
//! ```
//!
//! Every front-end that knows the same nodes makes the same choice, each node gets a share in
//! proportion to its weight, and a node that comes or goes moves only the targets that come to it or
//! were on it.

use super::super::addr::NodeId;

/// Fractional bits of a cost.
const FRACTION: u32 = 24;

/// Chooses one of `nodes` (numbers with weights) for `key`; those without a weight are passed over.
/// The order of `nodes` does not matter.
pub fn rendezvous<I>(nodes: I, key: u64) -> Option<NodeId>
where
    I: IntoIterator<Item = (NodeId, u16)>,
{
    let mut best: Option<Candidate> = None;
    for (node, weight) in nodes.into_iter().filter(|(_, weight)| *weight > 0) {
        let candidate = Candidate {
            node,
            weight,
            hash: mix(key, node),
        };
        if best.as_ref().is_none_or(|best| candidate.beats(best)) {
            best = Some(candidate);
        }
    }
    best.map(|best| best.node)
}

struct Candidate {
    node: NodeId,
    weight: u16,
    hash: u64,
}

impl Candidate {
    /// Costs in proportion to the weights; then hashes; then numbers.
    fn beats(&self, best: &Candidate) -> bool {
        // The logarithm rises with the hash, so that between equal weights the hash decides alone.
        if self.weight != best.weight {
            // No overflow: 31 bits times 16.
            let mine = neg_log2(self.hash) * u64::from(best.weight);
            let theirs = neg_log2(best.hash) * u64::from(self.weight);
            if mine != theirs {
                return mine < theirs;
            }
        }
        (self.hash, best.node) > (best.hash, self.node)
    }
}

/// A hash of both. The key is the output of a keyed hash, so all that is needed here is that the
/// values for different nodes have nothing to do with each other: the finaliser of SplitMix64
/// (Steele, Lea and Flood, 2014), whose golden-ratio step tells the nodes apart.
fn mix(key: u64, node: NodeId) -> u64 {
    let step = u64::from(node.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut z = key.wrapping_add(step);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `-log2((x | 1) / 2^64)`, with [`FRACTION`] fractional bits, at least one of their units.
///
/// The integer part is the number of leading zeros. The fraction comes bit by bit: squaring a
/// mantissa in [1, 2) doubles its logarithm, so whether the square reaches 2 is the next bit.
fn neg_log2(x: u64) -> u64 {
    let x = x | 1;
    let zeros = x.leading_zeros();
    // The mantissa with 31 fractional bits. CAST: the top 32 bits of what is now normalised.
    let mut mantissa = (x << zeros) >> 32;
    let mut log = 0u64;
    for _ in 0..FRACTION {
        // No overflow: 32 bits squared.
        let square = (mantissa * mantissa) >> 31;
        let carry = square >> 32;
        log = (log << 1) | carry;
        mantissa = square >> carry;
    }
    let whole = u64::from(zeros).wrapping_add(1) << FRACTION;
    whole.saturating_sub(log).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_right_to_a_millionth() {
        for x in [
            0,
            1,
            2,
            3,
            1 << 20,
            (1 << 40) + 12345,
            1 << 63,
            u64::MAX / 3,
            u64::MAX,
        ] {
            let exact = 64.0 - ((x | 1) as f64).log2();
            let ours = neg_log2(x) as f64 / f64::from(1u32 << FRACTION);
            assert!((exact - ours).abs() < 1e-6, "{x}: {exact} {ours}");
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let nodes = [
            (NodeId(1), 1),
            (NodeId(2), 2),
            (NodeId(3), 0),
            (NodeId(64), 5),
        ];
        let mut hits = [0u32; 65];
        let rounds = 80_000u64;
        for i in 0..rounds {
            let key = mix(i, NodeId(999));
            let node = rendezvous(nodes, key).unwrap();
            hits[usize::from(node.0)] += 1;
        }
        assert_eq!(hits[3], 0);
        for (node, share) in [(1, 10_000), (2, 20_000), (64, 50_000)] {
            assert!(
                hits[node].abs_diff(share) < share / 20,
                "{node}: {}",
                hits[node]
            );
        }
    }

    #[test]
    fn only_the_targets_of_a_lost_node_move() {
        let lost = NodeId(5);
        let all = (1..=8).map(|n| (NodeId(n), n * 10));
        for i in 0..2_000 {
            let key = mix(i, NodeId(77));
            let before = rendezvous(all.clone(), key).unwrap();
            let after = rendezvous(all.clone().filter(|(n, _)| *n != lost), key).unwrap();
            assert_ne!(after, lost);
            if before != lost {
                assert_eq!(before, after);
            }
            let backwards = rendezvous(all.clone().rev(), key);
            assert_eq!(backwards, Some(before));
        }
    }

    #[test]
    fn nobody_is_chosen_where_nobody_may_be() {
        assert_eq!(rendezvous([], 1), None);
        assert_eq!(rendezvous([(NodeId(1), 0)], 1), None);
    }
}
