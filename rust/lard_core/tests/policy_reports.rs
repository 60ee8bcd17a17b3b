// SPDX-License-Identifier: GPL-2.0

//! Loads that news were lost of, put right by what nodes say of themselves.

use lard_core::addr::{ConnId, NodeId};
use lard_core::policy::*;
use lard_core::time::Instant;
use proptest::prelude::*;

const NODE: NodeId = NodeId(1);
const ROW: u8 = Reports::<1>::ROW;

/// A dispatcher with one node, and what is true of that.
struct Lab {
    scheduler: Scheduler<Vec<Slot>>,
    tracked: Tracked<Vec<TrackedSlot>>,
    reports: Reports,
}

impl Lab {
    fn new() -> Self {
        let mut scheduler = Scheduler::new(PolicyKind::Extlard, vec![Slot::EMPTY; 4]);
        scheduler.add_dest(NODE, 1).unwrap();
        Lab {
            scheduler,
            tracked: Tracked::new(vec![TrackedSlot::EMPTY; 32]),
            reports: Reports::new(),
        }
    }

    fn assign(&mut self, connections: u32) {
        for _ in 0..connections {
            let request = Request {
                key: 1,
                exclude: NodeSet::EMPTY,
                tags: Tags::NONE,
                now: Instant::ZERO,
            };
            assert_eq!(self.scheduler.schedule(&request), Some(NODE));
        }
    }

    fn hear(&mut self, node: NodeId, connections: u32) {
        let Lab {
            scheduler,
            tracked,
            reports,
        } = self;
        reports.heard(scheduler, tracked, node, connections);
    }

    /// A row of reports.
    fn row(&mut self, connections: u32) {
        (0..ROW).for_each(|_| self.hear(NODE, connections));
    }

    /// Load and idle connections.
    fn counts(&self) -> (u32, u32) {
        let dest = self.scheduler.nodes().get(NODE).unwrap();
        (dest.load, dest.idle)
    }
}

#[test]
fn a_whole_row_of_reports_puts_a_load_right() {
    for (counted, said) in [(7, 3), (3, 7), (5, 0), (0, 5), (4, 4)] {
        let mut lab = Lab::new();
        lab.assign(counted);
        for _ in 1..ROW {
            lab.hear(NODE, said);
        }
        assert_eq!(lab.counts(), (counted, 0), "before the row is complete");
        lab.hear(NODE, said);
        assert_eq!(lab.counts(), (said, 0));
    }
}

#[test]
fn one_report_that_agrees_makes_the_others_chance() {
    let mut lab = Lab::new();
    lab.assign(6);
    for n in 0..ROW {
        lab.hear(NODE, if n == 3 { 6 } else { 2 });
    }
    assert_eq!(lab.counts(), (6, 0));
    // The next row begins from nothing.
    lab.row(2);
    assert_eq!(lab.counts(), (2, 0));
}

#[test]
fn the_least_difference_of_a_row_counts() {
    let mut lab = Lab::new();
    lab.assign(10);
    (0..ROW).for_each(|n| lab.hear(NODE, u32::from(n % 5)));
    assert_eq!(lab.counts(), (4, 0), "10 less 6");
    // Above and below: neither is always so.
    (0..ROW).for_each(|n| lab.hear(NODE, 3 + u32::from(n % 3)));
    assert_eq!(lab.counts(), (4, 0));
}

#[test]
fn who_may_have_ended_is_not_idle_any_more() {
    let mut lab = Lab::new();
    lab.assign(6);
    for n in 0..4 {
        let conn = ConnId::new(NodeId(9), n, n);
        lab.tracked.set_idle(&mut lab.scheduler, conn, NODE, true);
    }
    assert_eq!(lab.counts(), (2, 4));
    // Idle connections are connections.
    lab.row(6);
    assert_eq!(lab.counts(), (2, 4));
    lab.row(9);
    assert_eq!(lab.counts(), (5, 4), "three were not known of");
    lab.row(4);
    assert_eq!((lab.counts(), lab.tracked.len()), ((4, 0), 0));
}

#[test]
fn who_comes_or_goes_begins_a_new_row() {
    let mut lab = Lab::new();
    lab.assign(5);
    (1..ROW).for_each(|_| lab.hear(NODE, 0));
    lab.reports.forget(NODE);
    lab.hear(NODE, 0);
    assert_eq!(lab.counts(), (5, 0));
    // Who is not there is heard without an effect, whatever its number.
    for node in [NodeId::NONE, NodeId(2), NodeId(64), NodeId(65), NodeId::MAX] {
        (0..=ROW).for_each(|_| lab.hear(node, 3));
        lab.reports.forget(node);
    }
    assert_eq!(lab.counts(), (5, 0));
}

proptest! {
    /// Reports are late by what is on the wire, and some ends were never heard of; after a row in which
    /// one report was not late, the count is what the node has.
    #[test]
    fn what_is_on_the_wire_is_not_repaired(
        open in 0u32..30,
        lost in 0u32..10,
        unknown in 0u32..10,
        late in prop::collection::vec(0u32..8, usize::from(ROW)),
        exact in 0..usize::from(ROW),
    ) {
        // Connections cannot both be lost and unknown for the sum to be wrong.
        let (lost, unknown) = (lost.saturating_sub(unknown), unknown.saturating_sub(lost));
        let mut lab = Lab::new();
        lab.assign(open + lost);
        let has = open + unknown;
        for (n, late) in late.into_iter().enumerate() {
            // A node that hears late has fewer, one whose ends are heard late more, of the same kind as
            // what is wrong: else the difference would be smaller than it is.
            let late = if n == exact { 0 } else { late };
            let says = if lost > 0 { has.saturating_sub(late) } else { has + late };
            lab.hear(NODE, says);
        }
        prop_assert_eq!(lab.counts(), (has, 0));
    }
}
