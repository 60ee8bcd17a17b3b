// SPDX-License-Identifier: GPL-2.0

//! What the policies of LARD are worth: a trace-driven simulator of a cluster.
//!
//! The policies are those of the kernel module, from the same source; what they decide about is a
//! model: machines with a CPU, disks and a cache, as the papers on LARD simulate them.
//!
//! # Layout
//!
//! * `workload` – requests; `synthetic` and `clf` – where they come from
//! * `hardware`, `cache`, `machine` – the model of a machine
//! * `setup` – what is simulated; `cluster` – the simulation; `event` – its clock
//! * `batching` – the dispatcher's node and its messages
//! * `figures`, `plot` – series of runs, and their tables and drawings
//! * `shapes` – what must be seen in the figures
//! * `cli`, `lab` – the command line; how it runs things

mod batching;
mod cache;
mod clf;
mod cli;
mod cluster;
mod event;
mod figures;
mod hardware;
mod lab;
mod machine;
mod plot;
mod setup;
mod shapes;
mod synthetic;
mod workload;

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Who reads the output has seen enough.
        Err(e) if is_closed_pipe(e.as_ref()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lard_sim: {e}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(e: &(dyn Error + 'static)) -> bool {
    successors(Some(e), |&e| e.source())
        .filter_map(|e| e.downcast_ref::<io::Error>())
        .any(|e| e.kind() == ErrorKind::BrokenPipe)
}
