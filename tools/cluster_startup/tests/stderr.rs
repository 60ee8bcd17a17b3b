// SPDX-License-Identifier: GPL-2.0

//! A standard error that takes nothing, as that of a service whose reader died.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

#[test]
fn what_cannot_be_said_changes_nothing() {
    for (words, code) in [
        (&["--no-such-option"][..], 2),
        (&["-BE"], 2),
        (&["-D", "--secret-file", "/no/such/file"], 1),
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status = Command::new(env!("CARGO_BIN_EXE_cluster_startup"))
            .args(words)
            .stdin(Stdio::null())
            .stderr(full)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
}
