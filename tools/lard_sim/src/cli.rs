// SPDX-License-Identifier: GPL-2.0

//! The command line.

use super::cache::Replacement;
use super::clf;
use super::figures::one_run::{self, Row};
use super::figures::GROUPS;
use super::hardware::{Hardware, PAPER, PROTOTYPE, TODAY};
use super::lab::Lab;
use super::setup::{FrontEnds, Mechanism, Report, Setup};
use super::shapes::{self, Verdict};
use super::synthetic::{IBM, RICE};
use super::workload::Trace;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use lard_core::policy::{Params, PolicyKind};
use std::error::Error;
use std::io::{stderr, stdout, IsTerminal, Write};
use std::path::PathBuf;

/// Width of a run's bins, in simulated nanoseconds: many in the shortest run.
const BIN: u64 = 10_000_000;

/// Simulates clusters of web servers under the policies of LARD
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulate one cluster, or one for each policy and number of nodes, and print a table
    Run(Run),
    /// Make figures (CSV and SVG), and say whether they have the shapes of the papers'
    Figures(Make),
    /// Say what there is to know about a workload
    Workload(Source),
}

#[derive(Args)]
struct Source {
    /// Access log (Common or Combined Log Format, plain or gzip) [default: a synthetic workload]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Synthetic workload
    #[arg(long, value_enum, default_value_t, conflicts_with = "log")]
    workload: Synthetic,
    /// Number of requests, of a log at most
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    requests: usize,
    /// What is random in a synthetic workload
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Synthetic {
    #[default]
    Rice,
    Ibm,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    source: Source,
    /// Numbers of back-ends, 1 to 1024
    #[arg(long, value_delimiter = ',', default_value = "8", value_parser = clap::value_parser!(u16).range(1..=1024))]
    nodes: Vec<u16>,
    /// Policies
    #[arg(long, value_delimiter = ',', default_value = "wrr,lb,lard,lardr", value_parser = policy)]
    policy: Vec<PolicyKind>,
    /// Parameters of the policies, as cluster_startup(8) has them
    #[arg(long, value_name = "NAME=VALUE", value_parser = param)]
    set: Vec<(&'static str, u32)>,
    /// What the machines are made of
    #[arg(long, value_enum, default_value_t)]
    hardware: Machines,
    /// File cache of a node in megabytes [default: that of the hardware]
    #[arg(long, value_name = "MB")]
    cache: Option<u64>,
    /// Disks of a node [default: those of the hardware]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    disks: Option<u32>,
    /// The caches replace the least recently used file, not that of Greedy-Dual-Size
    #[arg(long)]
    lru: bool,
    /// Persistent connections, as the log or the workload has them [default: each request its own]
    #[arg(long)]
    persistent: bool,
    /// How later requests of a persistent connection get to their nodes
    #[arg(long, value_enum, default_value_t, requires = "persistent")]
    mechanism: MechanismName,
    /// Who accepts connections
    #[arg(long, value_enum, default_value_t)]
    front_ends: FrontEndsName,
    /// Connections that come each second, at random [default: as many as the limit allows at a time]
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Targets the dispatcher remembers [default: all]
    #[arg(long, value_name = "N")]
    table: Option<usize>,
    /// Part of the requests that is not counted
    #[arg(long, value_name = "PART", default_value_t = 0.25, value_parser = warm_up)]
    warm_up: f64,
    /// Draw the throughput, against the number of nodes or, of one number, in the course of the run
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Machines {
    /// Those of the simulations in the paper of 1998
    #[default]
    Paper,
    /// Those of the prototypes, with Apache
    Prototype,
    /// Those of today, with NVMe drives
    Today,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum MechanismName {
    #[default]
    Single,
    Multiple,
    Forwarding,
    Relay,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum FrontEndsName {
    /// Somebody for whom it costs nothing
    #[default]
    Free,
    /// One machine that does nothing else
    Single,
    /// Every back-end
    Distributed,
}

#[derive(Args)]
struct Make {
    /// Where to put them
    #[arg(long, value_name = "DIR", default_value = "figures")]
    out: PathBuf,
    /// Only these groups
    #[arg(long, value_name = "GROUP", value_delimiter = ',', value_parser = group)]
    only: Vec<usize>,
    /// Number of requests of each run
    #[arg(long, value_name = "N", default_value_t = 500_000)]
    requests: usize,
    /// What is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Make do with so many times fewer targets and less memory: faster, and coarser
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32))]
    scale: u32,
}

fn policy(text: &str) -> Result<PolicyKind, String> {
    text.parse::<PolicyKind>().map_err(|e| e.to_string())
}

/// The name and the value; whether it fits to the others is seen when all are there.
fn param(text: &str) -> Result<(&'static str, u32), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    let known = Params::ALL.iter().find(|p| p.name == name);
    let known = known.ok_or("there is no such parameter")?;
    let value = known.parse(value).ok_or("that is no value of it")?;
    Ok((known.name, value))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "it must be a number")?;
    match rate > 0.0 && rate <= 1e9 {
        true => Ok(rate),
        false => Err("it must be above 0 and not above a billion".into()),
    }
}

fn warm_up(text: &str) -> Result<f64, String> {
    let part: f64 = text.parse().map_err(|_| "it must be a number")?;
    match (0.0..=0.9).contains(&part) {
        true => Ok(part),
        false => Err("it is a part of 1, 0.9 at most".into()),
    }
}

fn group(text: &str) -> Result<usize, String> {
    let names = || GROUPS.iter().map(|g| g.name);
    names().position(|name| name == text).ok_or_else(|| {
        let about = GROUPS
            .iter()
            .map(|g| format!("\n  {:12} {}", g.name, g.about));
        format!("there are:{}", about.collect::<String>())
    })
}

/// Does what the command line says; were all shapes there?
pub fn main() -> Result<bool, Box<dyn Error>> {
    match Cli::parse().command {
        Command::Run(run) => run.checked().run().map(|()| true),
        Command::Figures(make) => make.run(),
        Command::Workload(source) => source.describe().map(|()| true),
    }
}

impl Source {
    fn trace(&self) -> Result<Trace, Box<dyn Error>> {
        if let Some(path) = &self.log {
            let read = clf::read(path, self.requests);
            return read.map_err(|e| format!("{}: {e}", path.display()).into());
        }
        let shape = match self.workload {
            Synthetic::Rice => RICE,
            Synthetic::Ibm => IBM,
        };
        Ok(shape.trace(self.requests, self.seed).check()?)
    }

    fn describe(&self) -> Result<(), Box<dyn Error>> {
        let trace = self.trace()?;
        let mut out = stdout();
        writeln!(out, "requests              {}", trace.requests.len())?;
        writeln!(out, "targets               {}", trace.sizes.len())?;
        writeln!(
            out,
            "size of all targets   {:.0} MB",
            trace.bytes() as f64 / 1e6
        )?;
        writeln!(
            out,
            "mean response         {:.1} KB",
            trace.mean_transfer() / 1e3
        )?;
        writeln!(out, "requests/connection   {:.1}", trace.per_connection())?;
        for part in [0.97, 0.98, 0.99] {
            let needed = trace.needed_for(part) as f64 / 1e6;
            writeln!(
                out,
                "{:.0} % of all requests   are for {needed:.0} MB",
                part * 100.0
            )?;
        }
        Ok(())
    }
}

impl Run {
    /// Ends the program if options do not go together.
    fn checked(self) -> Self {
        let fail = |problem: String| -> ! {
            Cli::command()
                .error(ErrorKind::ValueValidation, problem)
                .exit()
        };
        if let Err(e) = Params::DEFAULT.with(self.set.iter().copied()) {
            fail(format!("--set: {e}"));
        }
        let of_queue = self.set.iter().find(|(name, _)| name.starts_with("queue-"));
        if let (Some((name, _)), None) = (of_queue, self.rate) {
            fail(format!(
                "--set {name}: without --rate connections come when there is room, and none waits"
            ));
        }
        self
    }

    fn run(&self) -> Result<(), Box<dyn Error>> {
        let mut trace = self.source.trace()?;
        if !self.persistent {
            trace = trace.http10();
        }
        let mut lab = Lab::new(trace.requests.len(), self.source.seed);
        if stderr().is_terminal() {
            let runs = self.policy.len() * self.nodes.len();
            lab.show((runs * trace.requests.len()) as u64);
        }
        let mut rows = Vec::new();
        let mut table = csv::Writer::from_writer(stdout());
        table.write_record(Report::NAMES)?;
        for &policy in &self.policy {
            for &nodes in &self.nodes {
                lab.begin(&format!("{policy}, {nodes} nodes"));
                let report = lab.run(&self.setup(nodes, policy), &trace);
                table.write_record(report.fields(policy, nodes))?;
                table.flush()?;
                if self.plot.is_some() {
                    rows.push(Row {
                        policy,
                        nodes,
                        report,
                    });
                }
            }
        }
        lab.end();
        if let Some(path) = &self.plot {
            one_run::figure("run", &rows).draw_into(path)?;
        }
        Ok(())
    }

    fn setup(&self, nodes: u16, policy: PolicyKind) -> Setup {
        let mut hardware: Hardware = match self.hardware {
            Machines::Paper => PAPER,
            Machines::Prototype => PROTOTYPE,
            Machines::Today => TODAY,
        };
        hardware.cache = self.cache.map_or(hardware.cache, |mb| mb << 20);
        hardware.disks = self.disks.unwrap_or(hardware.disks);
        Setup {
            params: self.set.clone(),
            table: self.table,
            hardware,
            replacement: if self.lru {
                Replacement::Lru
            } else {
                Replacement::Gds
            },
            mechanism: match self.mechanism {
                MechanismName::Single => Mechanism::Single,
                MechanismName::Multiple => Mechanism::Multiple,
                MechanismName::Forwarding => Mechanism::Forwarding,
                MechanismName::Relay => Mechanism::Relay,
            },
            front_ends: match self.front_ends {
                FrontEndsName::Free => FrontEnds::Free,
                FrontEndsName::Single => FrontEnds::Single,
                FrontEndsName::Distributed => FrontEnds::Distributed,
            },
            rate: self.rate,
            seed: self.source.seed,
            warm_up: self.warm_up,
            bin: BIN,
            ..Setup::new(nodes, policy)
        }
    }
}

impl Report {
    const NAMES: [&'static str; 18] = [
        "policy",
        "nodes",
        "requests/s",
        "Mbit/s",
        "misses",
        "disk reads",
        "idle",
        "cpu",
        "disk",
        "front-end",
        "dispatcher",
        "refused",
        "delay ms",
        "imbalance",
        "forwarded",
        "moved",
        "changes",
        "requests",
    ];

    fn fields(&self, policy: PolicyKind, nodes: u16) -> [String; 18] {
        [
            policy.to_string(),
            nodes.to_string(),
            format!("{:.0}", self.throughput),
            format!("{:.1}", self.bits / 1e6),
            format!("{:.4}", self.miss_ratio),
            format!("{:.4}", self.disk_reads),
            format!("{:.3}", self.idle),
            format!("{:.3}", self.cpu),
            format!("{:.3}", self.disk),
            format!("{:.3}", self.front_end),
            format!("{:.3}", self.dispatcher),
            format!("{:.4}", self.refused),
            format!("{:.2}", self.delay_ms),
            format!("{:.2}", self.imbalance),
            format!("{:.3}", self.forwarded),
            format!("{:.3}", self.moved),
            self.changes.to_string(),
            self.requests.to_string(),
        ]
    }
}

impl Make {
    fn run(&self) -> Result<bool, Box<dyn Error>> {
        let mut lab = Lab::new(self.requests, self.seed);
        lab.scale = self.scale;
        let is_made = |i: usize| self.only.is_empty() || self.only.contains(&i);
        if stderr().is_terminal() {
            let made = GROUPS.iter().enumerate().filter(|(i, _)| is_made(*i));
            let runs: u64 = made.map(|(_, group)| group.runs).sum();
            lab.show(runs * self.requests as u64);
        }
        let mut out = stdout();
        writeln!(out, "seed {}, {} requests", self.seed, self.requests)?;
        let mut figures = Vec::new();
        for (i, group) in GROUPS.iter().enumerate() {
            if is_made(i) {
                for figure in (group.make)(&lab) {
                    figure.save(&self.out)?;
                    figures.push(figure);
                }
            }
        }
        lab.end();
        writeln!(
            out,
            "{} figures are in {}",
            figures.len(),
            self.out.display()
        )?;
        let checks = shapes::check(&figures);
        for check in &checks {
            let verdict = check.verdict.name();
            writeln!(out, "{verdict:8} {}: {}", check.claim, check.seen)?;
        }
        Ok(checks.iter().all(|check| check.verdict != Verdict::Fails))
    }
}
