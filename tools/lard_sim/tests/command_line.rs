// SPDX-License-Identifier: GPL-2.0

//! The program as it is called: options that go together, logs, drawings, exit statuses.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::{env, fs, process};

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("lard_sim-{name}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().into()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn lard_sim(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_lard_sim");
    Command::new(program).args(args).output().unwrap()
}

/// How it ends when its output goes there, and what it says.
fn lard_sim_into(out: impl Into<Stdio>, args: &[&str]) -> (Option<i32>, String) {
    let program = env!("CARGO_BIN_EXE_lard_sim");
    let mut command = Command::new(program);
    let output = command.args(args).stdout(out).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// The columns of a table by their names, for each line.
fn column(output: &Output, name: &str) -> Vec<f64> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().unwrap().split(',').collect();
    let at = names.iter().position(|n| *n == name).unwrap();
    lines
        .map(|line| line.split(',').nth(at).unwrap().parse().unwrap())
        .collect()
}

/// A small run with more options.
fn run(args: &[&str]) -> Output {
    let small = ["run", "--requests", "20000", "--nodes", "4"];
    lard_sim(&[&small[..], args].concat())
}

/// What it says when it does not understand.
fn refusal(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn parameters_are_taken_together() {
    let lard = ["--policy", "lard"];
    // Either alone would contradict the default of the other one.
    for set in [["t-low=70", "t-high=100"], ["t-high=24", "t-low=20"]] {
        let output = run(&[&lard[..], &["--set", set[0], "--set", set[1]]].concat());
        assert_eq!(column(&output, "nodes"), [4.0]);
    }
    assert!(refusal(&["--set", "t-low=70"]).contains("t-low must be below t-high"));
    assert!(refusal(&["--set", "k-s=0"]).contains("k-s"));
    assert!(refusal(&["--set", "t-low=many"]).contains("no value"));
    assert!(refusal(&["--set", "speed=1"]).contains("no such parameter"));
    assert!(refusal(&["--set", "t-low"]).contains("NAME=VALUE"));
}

#[test]
fn the_admission_limit_counts() {
    let delay = |limit: &str| {
        let set = format!("max-connections={limit}");
        column(&run(&["--policy", "lard", "--set", &set]), "delay ms")[0]
    };
    // Of a closed workload the limit is how many clients there are.
    let (few, papers) = (delay("8"), delay("auto"));
    assert!(few < papers / 5.0, "{few} {papers}");
    assert_eq!(delay("off"), papers);

    // Of an open one, who comes beyond it waits, and is sent away after a while.
    let open = ["--policy", "wrr", "--rate", "5000"];
    let with = |words: &[&str]| {
        let words = words.iter().flat_map(|word| ["--set", *word]);
        let output = run(&[&open[..], &words.collect::<Vec<_>>()].concat());
        (
            column(&output, "refused")[0],
            column(&output, "delay ms")[0],
        )
    };
    let (refused, unlimited) = with(&["max-connections=off"]);
    assert_eq!(refused, 0.0);
    let (refused, delay) = with(&["max-connections=8", "queue-time-ms=50"]);
    assert!(
        refused > 0.5 && delay < unlimited / 4.0,
        "{refused} {delay} {unlimited}"
    );
    let (refused, delay) = with(&["max-connections=8", "queue-max=0"]);
    assert!(
        refused > 0.5 && delay < unlimited / 4.0,
        "{refused} {delay} {unlimited}"
    );
    // The papers' limit is for the policies with their thresholds.
    assert_eq!(with(&["max-connections=auto", "queue-max=0"]).0, 0.0);

    let said = refusal(&["--set", "queue-max=5"]);
    assert!(said.contains("--rate"), "{said}");
    assert!(refusal(&["--rate", "0"]).contains("above 0"));
    for part in ["0.95", "-1", "NaN"] {
        let said = refusal(&[&format!("--warm-up={part}")]);
        assert!(said.contains("0.9 at most"), "{said}");
    }
}

#[test]
fn one_seed_has_one_result() {
    let hard = [
        "--persistent",
        "--mechanism",
        "forwarding",
        "--policy",
        "extlard,lardr",
        "--front-ends",
        "distributed",
        "--rate",
        "900",
    ];
    let with = |seed| run(&[&hard[..], &["--seed", seed]].concat());
    let (first, second) = (with("7"), with("7"));
    assert!(first.status.success(), "{first:?}");
    assert_eq!(first.stdout, second.stdout);
    assert_ne!(first.stdout, with("8").stdout);
}

#[test]
fn a_log_is_worked_through() {
    let place = Place::new("log");
    let log = place.file("access.log");
    let lines: String = (0..3_000)
        .map(|i| {
            let (second, minute) = (i % 60, i / 60);
            format!(
                "10.0.0.{} - - [12/Mar/2026:10:{minute:02}:{second:02} +0000] \
                 \"GET /f{} HTTP/1.1\" 200 {}\n",
                i % 200,
                i % 37,
                1_000 + i % 37,
            )
        })
        .collect();
    fs::write(&log, lines).unwrap();
    let output = lard_sim(&[
        "run",
        "--log",
        &log,
        "--nodes",
        "1,2",
        "--policy",
        "lard",
        "--warm-up",
        "0",
    ]);
    assert_eq!(column(&output, "nodes"), [1.0, 2.0]);
    let requests = column(&output, "requests");
    assert!(requests.iter().all(|r| *r > 2_900.0), "{requests:?}");
    // One node reads each target once; two may have a few of them on both.
    let reads = column(&output, "disk reads");
    let reads: Vec<_> = reads
        .iter()
        .zip(requests)
        .map(|(r, n)| (r * n).round())
        .collect();
    assert!(
        reads[0] == 37.0 && (37.0..50.0).contains(&reads[1]),
        "{reads:?}"
    );
    let missing = lard_sim(&["run", "--log", &place.file("none")]);
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("none"), "{said}");
}

#[test]
fn a_run_is_drawn() {
    let place = Place::new("plot");
    let svg = place.file("run.svg");
    for (nodes, axis) in [
        ("2,4", ">\nnodes\n<"),
        ("4", ">\npart of all requests so far\n<"),
    ] {
        let output = lard_sim(&[
            "run",
            "--requests",
            "20000",
            "--policy",
            "lc,lard",
            "--nodes",
            nodes,
            "--plot",
            &svg,
        ]);
        assert_eq!(column(&output, "nodes").len(), 2 * nodes.split(',').count());
        let drawn = fs::read_to_string(&svg).unwrap();
        assert!(
            drawn.contains("polyline") && drawn.contains(axis),
            "{drawn}"
        );
        for line in [">\nlc\n<", ">\nlard\n<"] {
            assert!(drawn.contains(line), "{drawn}");
        }
    }
    let nowhere = run(&["--plot", &place.file("no/such/place.svg")]);
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn the_exit_status_says_whether_all_shapes_are_there() {
    let place = Place::new("figures");
    let figures = |requests| {
        let out = place.file(requests);
        lard_sim(&[
            "figures",
            "--only",
            "dispatcher",
            "--requests",
            requests,
            "--out",
            &out,
        ])
    };
    let enough = figures("30000");
    assert!(enough.status.success(), "{enough:?}");
    // So few that no queue forms before they are over.
    let too_few = figures("10");
    assert_eq!(too_few.status.code(), Some(1), "{too_few:?}");
    let said = String::from_utf8(too_few.stdout).unwrap();
    assert!(said.contains("NOT OK"), "{said}");
    assert!(PathBuf::from(place.file("10"))
        .join("dispatcher-delay.svg")
        .exists());
    assert_eq!(
        lard_sim(&["figures", "--only", "none"]).status.code(),
        Some(2)
    );
}

#[test]
fn output_that_nobody_takes_is_no_panic() {
    let place = Place::new("output");
    let out = place.file("figures");
    let figures = ["figures", "--only", "dispatcher", "--out", &out];
    for args in [&["run"][..], &["workload"], &figures] {
        let args = [args, &["--requests", "1000"]].concat();
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        assert_eq!(
            lard_sim_into(OwnedFd::from(writer), &args),
            (Some(0), String::new())
        );
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let (status, said) = lard_sim_into(full, &args);
        assert_eq!(status, Some(1), "{said}");
        assert!(
            said.starts_with("lard_sim: ") && said.contains("No space"),
            "{said}"
        );
    }
}
