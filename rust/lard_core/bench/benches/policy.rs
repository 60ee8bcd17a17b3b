// SPDX-License-Identifier: GPL-2.0

//! What a decision costs: one connection assigned and one ended, for each policy, with few and many
//! targets and nodes. Targets are asked for as on the web (Zipf, exponent 1). Keys are drawn beforehand;
//! what is measured besides the decision is a queue of the connections that are open, a few nanoseconds.
//!
//! A table for many targets belongs on huge pages, where kvmalloc() puts it in the kernel; `make
//! bench-policy` has the C library ask for them.

use criterion::{criterion_group, criterion_main, BatchSize, BenchmarkId, Criterion};
use lard_core::addr::NodeId;
use lard_core::policy::{NodeSet, PolicyKind, Request, Scheduler, Slot, Tags};
use lard_core::time::Instant;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rand_distr::Zipf;
use std::collections::VecDeque;
use std::hint::black_box;

const TARGETS: [u64; 2] = [1_000, 1_000_000];

/// Connections at once, for each node: between T_low and T_high.
const LOAD: usize = 40;

/// Decisions that are prepared and measured together.
const BATCH: usize = 4_096;

/// The key of a target, as random as a keyed hash makes it.
fn key(target: u64) -> u64 {
    let mut key = target.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for shift in [30, 27, 31] {
        key = (key ^ key >> shift).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    key
}

struct Cluster<const W: usize> {
    scheduler: Scheduler<Vec<Slot<W>>, W>,
    open: VecDeque<NodeId>,
    now: u64,
}

impl<const W: usize> Cluster<W> {
    /// All targets known, all nodes at work.
    fn new(kind: PolicyKind, nodes: u16, targets: u64) -> Self {
        let slots = vec![Slot::EMPTY; Slot::<W>::needed(targets as usize)];
        let mut scheduler = Scheduler::new(kind, slots);
        for node in 1..=nodes {
            scheduler.add_dest(NodeId(node), 1).unwrap();
        }
        let mut cluster = Cluster {
            scheduler,
            open: VecDeque::new(),
            now: 0,
        };
        for target in 1..=targets {
            let node = cluster.assign(key(target));
            cluster.open.extend(node);
            if cluster.open.len() > LOAD * usize::from(nodes) {
                cluster.end();
            }
        }
        cluster
    }

    fn assign(&mut self, key: u64) -> Option<NodeId> {
        self.now += 1;
        self.scheduler.schedule(&Request {
            key,
            exclude: NodeSet::EMPTY,
            tags: Tags::NONE,
            now: Instant::from_micros(self.now),
        })
    }

    fn end(&mut self) {
        if let Some(node) = self.open.pop_front() {
            self.scheduler.finished(node);
        }
    }
}

fn decide<const W: usize>(c: &mut Criterion, nodes: u16) {
    for kind in PolicyKind::ALL {
        let mut group = c.benchmark_group(format!("{kind}/{nodes} nodes"));
        group.throughput(criterion::Throughput::Elements(BATCH as u64));
        for targets in TARGETS {
            let mut cluster = Cluster::<W>::new(kind, nodes, targets);
            let popularity = Zipf::new(targets as f64, 1.0).unwrap();
            let mut rng = SmallRng::seed_from_u64(1);
            let mut keys = || -> Vec<u64> {
                let draw = |_| key(rng.sample(popularity) as u64);
                (0..BATCH).map(draw).collect()
            };
            group.bench_function(BenchmarkId::from_parameter(targets), |b| {
                b.iter_batched(
                    &mut keys,
                    |keys| {
                        for key in keys {
                            let node = black_box(cluster.assign(key));
                            cluster.open.extend(node);
                            cluster.end();
                        }
                    },
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

fn benches(c: &mut Criterion) {
    decide::<1>(c, 16);
    decide::<16>(c, 1_024);
}

criterion_group! {
    name = policy;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(1))
        .sample_size(20);
    targets = benches
}
criterion_main!(policy);
