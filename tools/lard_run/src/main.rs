// SPDX-License-Identifier: GPL-2.0

//! `lard_run`: starts an unmodified server with its TCP listeners on LARD's address family.
//!
//! Has the dynamic linker load `liblard_preload.so` into the server (its source is in `preload`),
//! after having looked whether that can work, so that a server never silently listens on the
//! regular stack.

mod elf;

use clap::{value_parser, Arg, ArgAction, ArgMatches, Command};
use elf::Kind;
use nix::errno::Errno;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

/// The library.
const LIBRARY: &str = "liblard_preload.so";
/// Octets in the name of a document root.
const MAX_DOCROOT: usize = 200;
/// A script may be read by a script.
const MAX_SCRIPTS: usize = 4;
/// Bits in a file's mode.
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;

/// A failure, with the remedy.
struct Failure(String);

type Result<T> = std::result::Result<T, Failure>;

fn command() -> Command {
    Command::new("lard_run")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Starts an unmodified server with its TCP listeners on LARD's address family")
        .after_help(
            "Exit codes: 1 the server cannot be started so, 2 command line not understood, else \
             those of the server.\nSee lard_run(8).",
        )
        .arg(
            Arg::new("family")
                .long("family")
                .value_name("N")
                .default_value("21")
                .value_parser(value_parser!(u16).range(1..46))
                .help("The family's number, where the module was loaded with family=N"),
        )
        .arg(
            Arg::new("port")
                .long("port")
                .value_name("PORT")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .value_parser(value_parser!(u16).range(1..))
                .help("Only listeners on this port; repeat for more [default: all ports]"),
        )
        .arg(
            Arg::new("uncached")
                .long("uncached")
                .value_name("DOCROOT")
                .value_parser(value_parser!(PathBuf))
                .help(
                    "Read what is in DOCROOT/ADDRESS, where cluster_startup --nfs mounts other nodes' \
                     documents, past the page cache",
                ),
        )
        .arg(
            Arg::new("debug")
                .long("debug")
                .action(ArgAction::SetTrue)
                .help("Say on standard error which sockets are converted"),
        )
        .arg(
            Arg::new("program")
                .value_name("PROGRAM")
                .required(true)
                .num_args(1..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .value_parser(value_parser!(OsString))
                .help("The server and its arguments"),
        )
}

fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let text = error.render().to_string();
            if error.use_stderr() {
                let _ = std::io::stderr().write_all(text.as_bytes());
                return ExitCode::from(2);
            }
            // A reader that went away is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
    };
    let Err(Failure(text)) = run(&matches);
    say(&text);
    ExitCode::FAILURE
}

/// Says something on standard error. The server starts also where that is gone, and `eprintln!` would
/// panic.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("lard_run: {text}\n").as_bytes());
}

fn failure<T>(text: impl Into<String>) -> Result<T> {
    Err(Failure(text.into()))
}

/// Becomes the server; returns only if that fails.
fn run(matches: &ArgMatches) -> Result<std::convert::Infallible> {
    let mut words = matches
        .get_many::<OsString>("program")
        .unwrap_or_default()
        .cloned();
    let name = words.next().unwrap_or_default();
    let family = matches.get_one::<u16>("family").copied().unwrap_or(21);
    let program = find_program(&name)?;
    let library = find_library()?;
    check_family(family)?;
    check_program(&program)?;
    check_privilege();
    check_passed(
        env::var("LISTEN_PID").ok().as_deref(),
        env::var("LISTEN_FDS").ok().as_deref(),
    );

    let mut server = process::Command::new(&program);
    server.arg0(&name).args(words);
    server.env("LD_PRELOAD", prepended(&library, "LD_PRELOAD"));
    server.env("LARD_FAMILY", family.to_string());
    let ports: Vec<String> = matches
        .get_many::<u16>("port")
        .unwrap_or_default()
        .map(u16::to_string)
        .collect();
    if ports.is_empty() {
        server.env_remove("LARD_PORTS");
    } else {
        server.env("LARD_PORTS", ports.join(","));
    }
    match matches.get_one::<PathBuf>("uncached") {
        Some(docroot) => server.env("LARD_UNCACHED", document_root(docroot)?),
        None => server.env_remove("LARD_UNCACHED"),
    };
    if matches.get_flag("debug") {
        server.env("LARD_DEBUG", "1");
    }
    server.env("GODEBUG", go_settings(env::var_os("GODEBUG")));
    let error = server.exec();
    failure(format!("start {}: {}", program.display(), reason(&error)))
}

fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(raw) => {
            let errno = Errno::from_raw(raw);
            format!("{} ({errno:?})", errno.desc())
        }
        None => error.to_string(),
    }
}

/// The document root as the server names it: without a / at its end.
fn document_root(path: &Path) -> Result<&Path> {
    let is_root = path.is_absolute() && path.is_dir() && path.parent().is_some();
    // Components leave out what does not count.
    let plain = path.components().as_path();
    if is_root && plain.as_os_str().len() <= MAX_DOCROOT {
        return Ok(plain);
    }
    failure(format!(
        "{} cannot be a document root\n  --uncached takes a directory other than /, with its whole \
         path of up to {MAX_DOCROOT} octets, as the server's configuration names it",
        path.display()
    ))
}

/// As execvp(3) finds it.
fn find_program(name: &OsStr) -> Result<PathBuf> {
    let can_run = |path: &Path| {
        path.metadata()
            .is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0)
    };
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        if can_run(&path) {
            return Ok(path);
        }
        return failure(format!("{} is not a program", path.display()));
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    match env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|path| can_run(path))
    {
        Some(found) => Ok(found),
        None => failure(format!(
            "there is no program {} in PATH ({})",
            name.to_string_lossy(),
            path.to_string_lossy()
        )),
    }
}

/// Where `LARD_PRELOAD` says, else beside this program, else in `../lib/lard` from there.
fn find_library() -> Result<PathBuf> {
    let library = match env::var_os("LARD_PRELOAD") {
        Some(path) => {
            let path = PathBuf::from(path);
            if !path.is_file() {
                return failure(format!(
                    "$LARD_PRELOAD names {}, which is not a file",
                    path.display()
                ));
            }
            path
        }
        None => {
            let own = env::current_exe()
                .map_err(|error| Failure(format!("find this program: {}", reason(&error))))?;
            let beside = own.parent().unwrap_or(Path::new("/"));
            let places = [
                beside.join(LIBRARY),
                beside.join("../lib/lard").join(LIBRARY),
            ];
            match places.iter().find(|path| path.is_file()) {
                Some(found) => found.clone(),
                None => {
                    return failure(format!(
                        "{LIBRARY} is neither {} nor {}\n  put it there, or say with $LARD_PRELOAD \
                         where it is",
                        places[0].display(),
                        places[1].display()
                    ))
                }
            }
        }
    };
    let library = library
        .canonicalize()
        .map_err(|error| Failure(format!("find {}: {}", library.display(), reason(&error))))?;
    if library
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|c| b": ".contains(c))
    {
        return failure(format!(
            "the dynamic linker cannot load {}: the path has a blank or colon in it\n  copy the \
             library to another place, and say with $LARD_PRELOAD where it is",
            library.display()
        ));
    }
    Ok(library)
}

/// Can sockets of the family be made? The first attempt may load the module by its alias.
fn check_family(family: u16) -> Result<()> {
    // SAFETY: socket(2) demands nothing.
    let fd = unsafe { libc::socket(family.into(), libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd >= 0 {
        // SAFETY: it was just made and nobody else knows it.
        unsafe { libc::close(fd) };
        return Ok(());
    }
    let errno = Errno::last();
    let what = format!(
        "make a socket of family {family}: {} ({errno:?})",
        errno.desc()
    );
    match errno {
        Errno::EAFNOSUPPORT => failure(format!(
            "{what}\n  the module lard is not loaded, or has another family: load it (`make load`, \
             `modprobe lard`), or say --family N"
        )),
        Errno::ESOCKTNOSUPPORT | Errno::EPROTONOSUPPORT => failure(format!(
            "{what}\n  another protocol has this number (21 is that of RDS): `modprobe -r rds`, then \
             `modprobe lard`; or load lard with family=N and say --family N"
        )),
        _ => failure(what),
    }
}

/// Will the dynamic linker load the library into it?
fn check_program(program: &Path) -> Result<()> {
    let mut path = program.to_path_buf();
    for _ in 0..=MAX_SCRIPTS {
        let kind = elf::examine(&path)
            .map_err(|error| Failure(format!("read {}: {}", path.display(), reason(&error))))?;
        let found = match kind {
            Kind::Script(interpreter) => {
                path = PathBuf::from(interpreter);
                continue;
            }
            Kind::Unknown => return Ok(()),
            Kind::Program(found) => found,
        };
        let remedy = "start the server without lard_run, and cluster_startup with --any-listener";
        if found.is_go {
            // Its listeners work with --any-listener, if they are not MPTCP: that is taken care of.
            say(&format!(
                "{} is written in Go, whose programs make system calls themselves: its \
                 listeners stay on the regular stack\n  start cluster_startup with --any-listener",
                path.display()
            ));
            return Ok(());
        }
        if found.is_foreign {
            return failure(format!(
                "{} is for another machine or word size than {LIBRARY}\n  {remedy}",
                path.display()
            ));
        }
        if !found.is_dynamic {
            return failure(format!(
                "{} is statically linked, no library can be loaded into it\n  {remedy}",
                path.display()
            ));
        }
        if gains_privileges(&path) {
            return failure(format!(
                "{} gains privileges when it starts, so the dynamic linker loads no foreign library \
                 into it\n  start it as the user it becomes, or {remedy}",
                path.display()
            ));
        }
        return Ok(());
    }
    failure(format!("{} is a script of scripts", program.display()))
}

/// Set-user-ID, set-group-ID or file capabilities, where they change something.
fn gains_privileges(path: &Path) -> bool {
    let Ok(file) = path.metadata() else {
        return false;
    };
    let user = nix::unistd::geteuid();
    let set_user = file.mode() & SET_UID != 0 && file.uid() != user.as_raw();
    let set_group = file.mode() & SET_GID != 0 && file.gid() != nix::unistd::getegid().as_raw();
    set_user || set_group || (!user.is_root() && has_capabilities(path))
}

fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    let name = c"security.capability";
    // SAFETY: both strings are terminated; without a buffer only the length is asked for.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    length > 0
}

/// Listening on the family needs a capability; without it `listen()` will fail.
fn check_privilege() {
    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;
    let effective = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        });
    if effective.is_some_and(|caps| caps & (NET_ADMIN | NET_RAW) == 0) {
        say(
            "listening on the family needs CAP_NET_ADMIN or CAP_NET_RAW, which this \
             process does not have: listen() will fail\n  run it as root; servers give the privilege \
             up by themselves"
        );
    }
}

/// Listeners that a service manager has bound (sd_listen_fds(3)) are none of ours; the server, which will
/// be this process, takes them as they are.
fn check_passed(pid: Option<&str>, count: Option<&str>) -> bool {
    let is_ours = pid.is_some_and(|pid| pid == process::id().to_string());
    let passed = is_ours && count.is_some_and(|count| count != "0");
    if passed {
        say(
            "listeners that the service manager passes stay on the regular stack\n  have the server \
             bind its port itself, without a socket unit, or start cluster_startup with --any-listener",
        );
    }
    passed
}

/// The library before those that are loaded already.
fn prepended(library: &Path, variable: &str) -> OsString {
    let mut list = library.as_os_str().to_os_string();
    if let Some(before) = env::var_os(variable).filter(|before| !before.is_empty()) {
        list.push(":");
        list.push(before);
    }
    list
}

/// Go listens with MPTCP from 1.24 on, and connections cannot be handed to such listeners.
fn go_settings(before: Option<OsString>) -> OsString {
    let mut settings = before.unwrap_or_default();
    if settings.to_string_lossy().contains("multipathtcp=") {
        return settings;
    }
    if !settings.is_empty() {
        settings.push(",");
    }
    settings.push("multipathtcp=0");
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_end_where_the_program_begins() {
        let matches = command()
            .try_get_matches_from([
                "lard_run",
                "--port",
                "80,443",
                "--port=8080",
                "nginx",
                "-g",
                "x",
            ])
            .unwrap();
        let ports: Vec<u16> = matches.get_many("port").unwrap().copied().collect();
        assert_eq!(ports, [80, 443, 8080]);
        let words: Vec<&OsString> = matches.get_many("program").unwrap().collect();
        assert_eq!(words, ["nginx", "-g", "x"]);
        assert_eq!(matches.get_one::<u16>("family"), Some(&21));
        for bad in [&["lard_run"][..], &["lard_run", "--port", "0", "x"]] {
            let error = command().try_get_matches_from(bad).unwrap_err();
            assert!(error.use_stderr());
        }
        command().debug_assert();
    }

    #[test]
    fn a_document_root_is_a_directory_with_its_whole_path() {
        let root = |path: &'static str| document_root(Path::new(path)).ok();
        assert_eq!(root("/usr/bin/"), Some(Path::new("/usr/bin")));
        for bad in ["/", "usr", "/no/such/place", "/bin/sh"] {
            assert_eq!(root(bad), None, "{bad}");
        }
    }

    #[test]
    fn listeners_of_a_service_manager_are_noticed() {
        let own = process::id().to_string();
        assert!(check_passed(Some(&own), Some("2")));
        for (pid, count) in [
            (None, None),
            (Some(&*own), None),
            (Some(&*own), Some("0")),
            (Some("1"), Some("2")),
        ] {
            assert!(!check_passed(pid, count), "{pid:?} {count:?}");
        }
    }

    #[test]
    fn go_is_told_once() {
        assert_eq!(go_settings(None), "multipathtcp=0");
        assert_eq!(go_settings(Some("a=b".into())), "a=b,multipathtcp=0");
        assert_eq!(go_settings(Some("multipathtcp=1".into())), "multipathtcp=1");
    }

    #[test]
    fn programs_are_found_as_the_shell_finds_them() {
        assert!(find_program(OsStr::new("sh")).is_ok_and(|path| path.ends_with("sh")));
        assert!(find_program(OsStr::new("/bin/sh")).is_ok());
        assert!(find_program(OsStr::new("no-such-program")).is_err());
        assert!(find_program(OsStr::new("/etc/passwd")).is_err());
    }

    #[test]
    fn what_cannot_be_converted_is_named() {
        assert!(check_program(Path::new("/bin/sh")).is_ok());
        // No protocol has this number.
        let Err(Failure(text)) = check_family(45) else {
            panic!("family 45 exists");
        };
        assert!(
            text.contains("EAFNOSUPPORT") && text.contains("make load"),
            "{text}"
        );
    }
}
