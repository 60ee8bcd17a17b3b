// SPDX-License-Identifier: GPL-2.0

use super::super::hardware::{PROTOTYPE, TODAY};
use super::super::setup::Change;
use super::super::synthetic::{Shape, RICE};
use super::*;
use lard_core::policy::PolicyKind;

fn trace(requests: usize) -> Trace {
    let shape = Shape {
        targets: 2_000,
        bytes: 60e6,
        ..RICE
    };
    shape.trace(requests, 5)
}

/// With everything that could make a difference: deaths, further requests, random arrivals.
fn eventful(nodes: u16, policy: PolicyKind) -> Setup {
    let mut setup = Setup::new(nodes, policy);
    let change = |after, node, comes| Change { after, node, comes };
    setup.changes = vec![
        change(0.2, 1, false),
        change(0.5, 1, true),
        change(0.6, nodes, true),
    ];
    setup.hardware = PROTOTYPE;
    setup.hardware.cache = 4 << 20;
    setup.front_ends = FrontEnds::Distributed;
    setup.warm_up = 0.1;
    setup
}

#[test]
fn one_setup_and_one_trace_have_one_result() {
    let trace = trace(12_000);
    // In one word of nodes, and in sixteen.
    for nodes in [5, 80] {
        for policy in PolicyKind::ALL {
            let mut setup = eventful(nodes, policy);
            for mechanism in [Mechanism::Forwarding, Mechanism::Multiple, Mechanism::Relay] {
                setup.mechanism = mechanism;
                let first = run(&setup, &trace, &|_| {});
                assert_eq!(first, run(&setup, &trace, &|_| {}), "{setup:?}");
            }
        }
        let mut setup = eventful(nodes, PolicyKind::Lard);
        setup.rate = Some(500.0);
        setup.params = vec![("max-connections", 40), ("queue-time-ms", 200)];
        let first = run(&setup, &trace, &|_| {});
        assert_eq!(first, run(&setup, &trace, &|_| {}));
        setup.seed = 2;
        assert_ne!(first, run(&setup, &trace, &|_| {}));
    }
}

#[test]
fn nodes_that_die_and_join_cost_no_request() {
    let trace = trace(30_000).http10();
    let all = trace.requests.len() as u64;
    for nodes in [4, 70] {
        for policy in PolicyKind::ALL {
            let mut setup = eventful(nodes, policy);
            setup.warm_up = 0.0;
            let told = std::cell::Cell::new(0);
            let report = run(&setup, &trace, &|more| told.set(told.get() + more));
            assert_eq!(told.get(), all);
            assert_eq!(report.refused, 0.0, "{policy} {nodes}");
            // What is on its way when the trace is over is not counted.
            let on_the_way = u64::from(nodes) * (65 + AT_MOST_BEFORE);
            assert!(
                report.requests + on_the_way >= all,
                "{policy} {nodes}: {}",
                report.requests
            );
        }
    }
}

/// Connections of a front-end before their assignment.
const AT_MOST_BEFORE: u64 = 64;

#[test]
fn a_cluster_without_nodes_turns_everybody_away() {
    let trace = trace(5_000).http10();
    let mut setup = Setup::new(1, PolicyKind::Lard);
    setup.warm_up = 0.0;
    setup.changes = vec![Change {
        after: 0.5,
        node: 1,
        comes: false,
    }];
    let report = run(&setup, &trace, &|_| {});
    assert!((0.4..0.6).contains(&report.refused), "{}", report.refused);
}

#[test]
fn a_dispatcher_is_the_limit_of_a_large_cluster() {
    // Small files, all in the caches: 64 machines of today want a million decisions a second.
    let trace = Shape::equal(100, 1 << 10, 0.5).trace(200_000, 1).http10();
    let mut setup = Setup::new(64, PolicyKind::Lb);
    setup.hardware = TODAY;
    setup.front_ends = FrontEnds::Distributed;
    setup.warm_up = 0.5;
    let limited = run(&setup, &trace, &|_| {});
    let ceiling = 1e9 / (TODAY.decision + TODAY.question) as f64;
    assert!(
        (limited.throughput / ceiling - 1.0).abs() < 0.02,
        "{limited:?}"
    );
    assert!(limited.dispatcher > 0.98);
    setup.hardware.question = 0;
    let free = run(&setup, &trace, &|_| {});
    assert!(free.throughput > 1.5 * limited.throughput);
}

#[test]
fn who_waits_is_let_in_in_time_or_sent_away() {
    let trace = trace(20_000).http10();
    let mut setup = Setup::new(2, PolicyKind::Lc);
    setup.hardware.cache = 64 << 20;
    setup.warm_up = 0.0;
    setup.rate = Some(300.0);
    setup.params = vec![("max-connections", 10), ("queue-time-ms", 1_000)];
    let patient = run(&setup, &trace, &|_| {});
    // Nobody is served who has waited for longer; being served takes the disk's time for ten.
    let most = 1_000.0 + 10.0 * PROTOTYPE.read(500_000) as f64 / 1e6;
    assert!(patient.delay_ms < most, "{}", patient.delay_ms);
    setup.params = vec![("max-connections", 10), ("queue-max", 0)];
    let hasty = run(&setup, &trace, &|_| {});
    assert!(hasty.refused > patient.refused && hasty.delay_ms < patient.delay_ms);
}
