// SPDX-License-Identifier: GPL-2.0

//! The resident process around [`Node`]: settings, addresses, ports, signals, systemd.

use crate::cli::NodeOptions;
use crate::disk::Disk;
use crate::error::{say, Error, Result};
use crate::genl::Lard;
use crate::interface::{self, Address, Internal};
use crate::kernel::{Kernel, Settings, MAX_VIPS};
use crate::local;
use crate::membership::auth::Secret;
use crate::membership::dial;
use crate::membership::listen;
use crate::membership::message::is_name;
use crate::membership::node::{Config, Input, Log, Node, Progress, Sharing};
use crate::membership::store::Store;
use crate::nfs::system::Linux;
use crate::nfs::{Ending, Others, Shares, Telling};
use lard_core::policy::{NodeSet, PolicyKind};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError, SyncSender};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Reports that may wait for the node; more than all threads together can have.
const MAX_INPUTS: usize = 512;
/// A secret is a line, not a book.
const MAX_SECRET: u64 = 4096;
/// How often what can change by itself, as name service, is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How soon it is noticed meanwhile that the program should end.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// Is a node until told to stop.
pub fn run(options: &NodeOptions) -> Result<()> {
    let log: Log = Arc::new(say);
    let name = node_name(options.name.as_deref())?;
    let secret = read_secret(options.secret_file.as_deref(), &log)?;
    let disk = options.disk.as_deref().map(Disk::of).transpose()?;
    let (sender, inputs) = sync_channel(MAX_INPUTS);
    listen_for_signals(sender.clone())?;
    let claimed = local::claim()?;
    let lard = Arc::new(Lard::open()?);
    lard.subscribe()?;
    let stop_sender = sender.clone();
    in_thread("stop", move || local::serve(&claimed, &stop_sender))?;

    let Some(internal) = internal_address(options, &inputs, &log)? else {
        return Ok(());
    };
    let listener = listen_at(options, &internal, &log)?;
    if secret.is_empty() {
        log(&format!(
            "no --secret-file: whoever reaches port {} can join the cluster",
            options.control_port
        ));
    }
    let shares = match options.nfs.as_deref() {
        Some(docroot) => Some(Arc::new(Shares::new(
            docroot,
            Linux::new()?,
            Arc::clone(&log),
            telling(&lard),
        )?)),
        None => None,
    };
    let config = Config {
        settings: settings(options, &internal, &log)?,
        name,
        internal: internal.addr,
        is_guess: options.internal.is_none() && options.roles.dispatcher,
        port: options.control_port,
        dispatcher: dispatcher(options),
        secret: secret.clone(),
        cluster_id: options.cluster_id,
        store: Store::new(
            &options.state_dir,
            SocketAddrV4::new(internal.addr, options.control_port),
        ),
        docroot: shares.as_ref().map(|shares| shares.docroot()),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let events = (Arc::clone(&lard), sender.clone(), Arc::clone(&stop));
    in_thread("events", move || {
        let (kernel, sender, stop) = events;
        listen_to_kernel(kernel.as_ref(), &sender, &stop);
    })?;
    if let Some(disk) = disk {
        let watch = (Arc::clone(&lard), Arc::clone(&log), Arc::clone(&stop));
        in_thread("disk", move || {
            let (lard, log, stop) = watch;
            disk.watch(&lard, &log, &stop);
        })?;
    }
    let calls = (sender.clone(), Arc::clone(&log), Arc::clone(&stop));
    in_thread("control", move || {
        let (sender, log, stop) = calls;
        listen::run(&listener, secret, sender, log, &stop);
    })?;
    let told = shares.clone();
    let sharing: Sharing = Arc::new(move |others: &Others| {
        if let Some(shares) = &told {
            shares.set(others);
        }
    });
    let progress = Arc::new(tell_systemd);
    let node = Node::new(config, lard, (sender, inputs), log, progress, sharing);
    let result = match shares {
        Some(shares) => thread::scope(|scope| {
            scope.spawn(|| shares.run());
            let _ending = Ending(shares.as_ref());
            node.run()
        }),
        None => node.run(),
    };
    stop.store(true, Ordering::Relaxed);
    result
}

/// Tells the module whose documents are mounted.
fn telling(lard: &Arc<Lard>) -> Telling {
    let lard = Arc::clone(lard);
    Arc::new(move |mounted: NodeSet| {
        // It refuses this before the node is attached and after it is gone, and hears it again.
        let _ = lard.set_mounted(mounted);
    })
}

fn in_thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.to_string())
        .spawn(run)
        .map(drop)
        .map_err(|error| Error::io("start a thread", &error))
}

fn listen_for_signals(sender: SyncSender<Input>) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = [SIGTERM, SIGINT, SIGHUP]
        .into_iter()
        .filter(|signal| !is_ignored(&status, *signal));
    let mut signals =
        Signals::new(wanted).map_err(|error| Error::io("listen for signals", &error))?;
    in_thread("signals", move || {
        for signal in signals.forever() {
            let why = match signal {
                SIGINT => "interrupted",
                SIGHUP => "hung up",
                _ => "terminated",
            };
            if sender.send(Input::Stop(why.to_string())).is_err() {
                return;
            }
        }
    })
}

/// Was the signal ignored when the program started? So `nohup` has it with SIGHUP, and a shell with SIGINT
/// for what its scripts run in the background.
fn is_ignored(status: &str, signal: i32) -> bool {
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    ignored.is_some_and(|ignored| signal != SIGTERM && ignored >> (signal - 1) & 1 != 0)
}

/// Passes the module's events on until `stop`.
pub fn listen_to_kernel(kernel: &dyn Kernel, sender: &SyncSender<Input>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let input = match kernel.next_event(Duration::from_secs(1)) {
            Ok(Some(event)) => Input::Kernel(event),
            Ok(None) => continue,
            Err(error) => {
                let _ = sender.send(Input::Deaf(error));
                return;
            }
        };
        if sender.send(input).is_err() {
            return;
        }
    }
}

/// systemd need not be there.
fn tell_systemd(progress: Progress) {
    let _ = match progress {
        Progress::Ready(status) => {
            sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)])
        }
        Progress::Status(status) => sd_notify::notify(&[NotifyState::Status(&status)]),
        Progress::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
    };
}

/// The host's name serves, with what cannot stand in a name left out.
fn node_name(given: Option<&str>) -> Result<String> {
    if let Some(name) = given {
        return Ok(name.to_string());
    }
    let host = nix::unistd::gethostname()
        .map_err(|errno| Error::new("get the host's name").errno(errno as i32))?;
    let host = host.to_string_lossy();
    let name: String = host
        .chars()
        .filter(|c| is_name(&c.to_string()))
        .take(crate::kernel::MAX_NAME)
        .collect();
    Ok(if name.is_empty() { "node".into() } else { name })
}

/// The content of the file without the end of its last line.
fn read_secret(path: Option<&Path>, log: &Log) -> Result<Secret> {
    let Some(path) = path else {
        return Ok(Secret::default());
    };
    let failed = |error: io::Error| {
        Error::io(format!("read the secret in {}", path.display()), &error)
            .remedy("--secret-file takes a file with the same content on all nodes")
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        log(&format!(
            "others can read {}: `chmod 600` it",
            path.display()
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    while bytes.last().is_some_and(|last| b"\r\n".contains(last)) {
        bytes.pop();
    }
    if bytes.is_empty() || bytes.len() as u64 > MAX_SECRET {
        return Err(Error::new(format!("read the secret in {}", path.display()))
            .detail(format!("it must have 1 to {MAX_SECRET} octets")));
    }
    Ok(Secret::new(bytes))
}

fn dispatcher(options: &NodeOptions) -> Option<(String, u16)> {
    let (host, port) = options.dispatcher.clone()?;
    Some((host, port.unwrap_or(options.control_port)))
}

/// The address the command line means, else the one from which the dispatcher is reached, on its own
/// node a guess; `None` when told to stop while waiting until there is one.
fn internal_address(
    options: &NodeOptions,
    inputs: &Receiver<Input>,
    log: &Log,
) -> Result<Option<Internal>> {
    if let Some(text) = &options.internal {
        return interface::named(&interface::addresses()?, text).map(Some);
    }
    let (dispatcher, guesses) = (dispatcher(options), Arc::clone(log));
    let look = move || match &dispatcher {
        Some((host, port)) => dial::resolve(host, *port)
            .and_then(dial::source_for)
            .map(|addr| Internal {
                addr,
                interface: None,
            })
            .map_err(|why| {
                format!("waiting for the dispatcher at {host}:{port} ({why}), retrying")
            }),
        None => {
            let all = interface::addresses().map_err(|error| error.to_string())?;
            guess(&all, &guesses).ok_or_else(|| {
                "waiting for an address that other machines reach, retrying; `--internal 127.0.0.1` \
                 is for a machine alone"
                    .to_string()
            })
        }
    };
    let mut said = String::new();
    wait_for(look, inputs, |line| {
        if line != said {
            log(line);
            tell_systemd(Progress::Status(line.to_string()));
            line.clone_into(&mut said);
        }
    })
}

/// What `look` finds, which may take long, as name service does where its servers are silent: it is called
/// in a thread of its own, and again after a pause when it finds nothing, which `waiting` is told. `None`
/// when told to stop.
fn wait_for<T: Send + 'static>(
    mut look: impl FnMut() -> std::result::Result<T, String> + Send + 'static,
    inputs: &Receiver<Input>,
    mut waiting: impl FnMut(&str),
) -> Result<Option<T>> {
    let (sender, found) = sync_channel(0);
    in_thread("look", move || loop {
        let result = look();
        let is_found = result.is_ok();
        if sender.send(result).is_err() || is_found {
            return;
        }
        thread::sleep(RETRY);
    })?;
    loop {
        match found.recv_timeout(STOP_CHECK) {
            Ok(Ok(result)) => return Ok(Some(result)),
            Ok(Err(line)) => waiting(&line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::new("find this node's internal address")
                    .remedy("--internal says which it is"))
            }
        }
        if let Ok(Input::Stop(_)) = inputs.try_recv() {
            return Ok(None);
        }
    }
}

fn guess(all: &[Address], log: &Log) -> Option<Internal> {
    let internal = interface::guessed(all)?;
    if all.iter().filter(|own| !own.loopback).count() > 1 {
        log(&format!(
            "internal address {} assumed until the first node calls; --internal names one",
            internal.addr
        ));
    }
    Some(internal)
}

/// The control port: at the internal address. Where that is only a guess, which is on the
/// dispatcher's node, at all addresses, so that the others find it under the name they were given.
fn listen_at(options: &NodeOptions, internal: &Internal, log: &Log) -> Result<TcpListener> {
    let guessed = options.internal.is_none() && options.roles.dispatcher;
    let addr = if guessed {
        Ipv4Addr::UNSPECIFIED
    } else {
        internal.addr
    };
    let place = SocketAddrV4::new(addr, options.control_port);
    let listener = TcpListener::bind(place).map_err(|error| {
        Error::io(format!("listen for other nodes at {place}"), &error)
            .remedy("--control-port chooses another port, the same on all nodes")
    })?;
    log(&format!("listening for other nodes at {place}"));
    Ok(listener)
}

fn settings(options: &NodeOptions, internal: &Internal, log: &Log) -> Result<Settings> {
    let mut rules = options.rules.clone();
    let mut vips = Vec::new();
    if let Some(port) = options.fe_port {
        if rules.is_empty() {
            rules.push(format!("accept to local port {port}"));
        }
        vips = if options.vips.is_empty() {
            interface::virtual_addresses(&interface::addresses()?, port)
        } else {
            let own = options.vips.iter();
            own.map(|addr| SocketAddrV4::new(*addr, port)).collect()
        };
        if let Some(left_out) = vips.get(MAX_VIPS) {
            log(&format!(
                "of {} addresses {MAX_VIPS} are announced; connections to {left_out} and behind are refused by \
                 other nodes: --vip names those that clients use",
                vips.len()
            ));
            vips.truncate(MAX_VIPS);
        }
    }
    let policy = options
        .policy
        .clone()
        .unwrap_or_else(|| PolicyKind::default().name().to_string());
    Ok(Settings {
        roles: options.roles,
        fe_port: options.fe_port,
        be_port: options.be_port,
        be_addr: options.bind_addr,
        internal: Some(internal.addr),
        interface: internal.interface.clone(),
        any_listener: options.any_listener,
        weight: options.weight,
        policy: options.roles.dispatcher.then_some(policy),
        params: options.params.clone(),
        rules,
        service: options.service.clone(),
        tags: options.tags.clone(),
        mounts: options.nfs.is_some(),
        vips,
        allow: options.allow.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_takes_long_to_find_keeps_nobody_from_stopping() {
        let (sender, inputs) = sync_channel(1);
        sender.send(Input::Stop("told".into())).unwrap();
        let started = Instant::now();
        let silent = || {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        };
        assert_eq!(wait_for(silent, &inputs, |_| {}).unwrap(), None);
        assert!(started.elapsed() < Duration::from_secs(10));
        // What is there is not waited for, and what is not there is said and looked for again.
        assert_eq!(wait_for(|| Ok(7), &inputs, |_| {}).unwrap(), Some(7));
        let (mut times, mut said) = (0, Vec::new());
        let later = move || {
            times += 1;
            match times {
                1 => Err("not yet".to_string()),
                _ => Ok(8),
            }
        };
        let result = wait_for(later, &inputs, |line| said.push(line.to_string()));
        assert_eq!(
            (result.unwrap(), &*said),
            (Some(8), &["not yet".into()][..])
        );
    }

    #[test]
    fn signals_that_were_ignored_stay_so() {
        let status = "Name:\tx\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000005001\n";
        assert!(is_ignored(status, SIGHUP) && !is_ignored(status, SIGINT));
        assert!(is_ignored("SigIgn:\t0000000000000002\n", SIGINT));
        // Whoever stops a service means it.
        assert!(!is_ignored(status, SIGTERM) && !is_ignored("", SIGHUP));
    }
}
