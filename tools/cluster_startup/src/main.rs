// SPDX-License-Identifier: GPL-2.0

//! `cluster_startup`: one process a node makes the control connections of a LARD cluster and gives
//! them to the module; the same program shows and changes what the cluster does.
//!
//! `cli` reads the command line; `resident` is the process that stays, around `membership`, which
//! knows the module only as the trait in `kernel`; `service` reads what the front-ends have in common;
//! `genl` is the module; `disk` is what it is told of the web server's disk; `nfs` has the
//! other back-ends' documents beside the own ones; `command` does the rest.

mod cli;
mod command;
mod disk;
mod error;
mod genl;
mod interface;
mod kernel;
mod local;
mod membership;
mod nfs;
mod resident;
mod service;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match cli::parse(std::env::args_os()) {
        Ok(wish) => command::run(wish),
        Err(finished) if finished.code == 0 => {
            // A reader that went away is no failure.
            let _ = std::io::stdout().write_all(finished.text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(finished) => {
            let _ = std::io::stderr().write_all(finished.text.as_bytes());
            return ExitCode::from(finished.code);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error::say(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}
