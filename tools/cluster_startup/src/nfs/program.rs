// SPDX-License-Identifier: GPL-2.0

//! Programs of the system that are run to their end, with a limit of time.

use crate::error::{Error, Result};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Where administrators' programs are, for a user whose PATH does not say so.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
/// How often it is looked whether a program has ended.
const INTERVAL: Duration = Duration::from_millis(10);
/// More output than this is not looked at.
const MAX_OUTPUT: u64 = 1 << 20;

/// A program that is there.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

impl Program {
    /// The program of this name; `package` is where Debian has it.
    pub fn find(name: &str, package: &str) -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(DIRECTORIES.iter().map(PathBuf::from))
            .map(|directory| directory.join(name))
            .find(|path| path.is_file())
            .map(Program)
            .ok_or_else(|| {
                Error::new(format!("find the program {name}"))
                    .errno(libc::ENOENT)
                    .remedy(format!(
                        "install the package that has it (Debian: {package})"
                    ))
            })
    }

    /// Runs it; what it says on standard output, or why it failed in its own words.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A], limit: Duration) -> Result<String> {
        let words: Vec<_> = arguments
            .iter()
            .map(|word| word.as_ref().to_string_lossy())
            .collect();
        let what = format!("run {} {}", self.0.display(), words.join(" "));
        // A group of its own: a signal from the keyboard is for cluster_startup, which knows what has
        // to be done first, and at the limit its children end with it.
        let mut child = Command::new(&self.0)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| Error::io(&what, &error))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = collect(stdout).and_then(|output| {
            let errors = collect(stderr)?;
            Ok((output, errors, wait(&mut child, limit)?))
        });
        let (output, errors, status) = match ended {
            Ok((output, errors, Some(status))) => (output, errors, status),
            Ok((.., None)) => {
                end(child);
                return Err(Error::new(what)
                    .errno(libc::ETIMEDOUT)
                    .detail(format!("it did not end within {} s", limit.as_secs())));
            }
            Err(error) => {
                end(child);
                return Err(Error::io(what, &error));
            }
        };
        let said = errors.join().unwrap_or_default();
        if status.success() {
            return Ok(output.join().unwrap_or_default());
        }
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        Err(Error::new(what).detail(match said.is_empty() {
            true => status.to_string(),
            false => said,
        }))
    }
}

/// Reads beside the wait, so that a program is never stopped by a full pipe.
fn collect(
    stream: Option<impl Read + Send + 'static>,
) -> std::io::Result<thread::JoinHandle<String>> {
    thread::Builder::new().spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.by_ref().take(MAX_OUTPUT).read_to_end(&mut text);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// Its exit status; `None` if it has to be killed.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(INTERVAL);
    }
}

/// Kills it and its children.
fn end(mut child: Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    // One that the kernel holds ends later, so it is waited for beside; what nobody waits for counts
    // as a task for as long as this process lives.
    let _ = thread::Builder::new().spawn(move || child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<String> {
        Program::find("sh", "dash")
            .unwrap()
            .run(&["-c", script], limit)
    }

    #[test]
    fn output_and_failures_are_told() {
        let long = Duration::from_secs(20);
        assert_eq!(sh("echo a; echo b >&2", long).unwrap(), "a\n");
        let said = sh("echo 'access  denied' >&2; exit 32", long)
            .unwrap_err()
            .to_string();
        assert!(said.contains("access denied"), "{said}");
        assert!(sh("exit 3", long).unwrap_err().to_string().contains("3"));
        // More than a pipe holds.
        let much = sh(
            "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2",
            long,
        )
        .unwrap();
        assert_eq!(much.len(), 300_000);
    }

    #[test]
    fn one_that_does_not_end_is_killed_with_its_children() {
        let file = std::env::temp_dir().join(format!("lard-program-{}", std::process::id()));
        let script = format!("echo $$ > {}; sleep 60 & wait", file.display());
        let error = sh(&script, Duration::from_secs(2)).unwrap_err();
        assert!(error.is(libc::ETIMEDOUT), "{error}");
        // Not even a zombie is left.
        let pid = std::fs::read_to_string(&file).unwrap();
        let place = PathBuf::from("/proc").join(pid.trim());
        let limit = Instant::now() + Duration::from_secs(20);
        while place.exists() {
            assert!(Instant::now() < limit, "{}", place.display());
            thread::sleep(INTERVAL);
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn one_that_is_not_there_is_named_with_its_package() {
        let said = Program::find("no-such-program", "some-package")
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("no-such-program") && said.contains("some-package"),
            "{said}"
        );
    }
}
