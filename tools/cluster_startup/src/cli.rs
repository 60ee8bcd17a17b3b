// SPDX-License-Identifier: GPL-2.0

//! The command line.
//!
//! The components' options have one dash and several letters (`-FE`, `-fp`), which clap would read
//! as several options of one letter. They are given to clap as long ones; what clap prints is
//! turned back.

use crate::error::{Error, Result, EXIT_USAGE};
use crate::kernel::{Roles, MAX_VIPS, MAX_WEIGHT};
use crate::membership::message::is_name;
use crate::service::{join_tags, Service};
use clap::builder::PossibleValuesParser;
use clap::{value_parser, Arg, ArgAction, ArgMatches, Command};
use lard_core::classify::{Rule, MAX_RULES};
use lard_core::policy::PolicyKind;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::path::PathBuf;

/// Port at which nodes call each other: one of the few numbers near the family's that nobody uses.
pub const CONTROL_PORT: u16 = 7021;
/// Ports of the example everybody starts from.
const FRONT_END_PORT: u16 = 8080;
const BACK_END_PORT: u16 = 7080;
/// Where the dispatcher keeps what lasts.
const STATE_DIR: &str = "/var/lib/lard";
/// Octets in a parameter's name, in its value and in a rule; the module takes no more.
const MAX_TEXT: usize = 255;
/// Options of one dash and several letters.
const SINGLE_DASH: [&str; 5] = ["FE", "BE", "fp", "bp", "da"];

/// What the user wants.
#[derive(Debug)]
pub enum Wish {
    /// Be a node.
    Node(Box<NodeOptions>),
    /// Show this node and the others.
    Status { json: bool },
    /// Show counters.
    Stats { json: bool, all: bool },
    /// Show connections.
    Connections { json: bool },
    /// Drain a node, or use it again.
    Drain { node: String, undo: bool },
    /// Change a node's weight.
    Weight { node: String, weight: u32 },
    /// Change parameters; list them when there is nothing to change.
    Set {
        changes: Vec<(String, String)>,
        json: bool,
    },
    /// Show rules.
    Rules { json: bool },
    /// Replace rules.
    SetRules { rules: Vec<String> },
    /// Show what the front-ends have in common.
    Service { json: bool },
    /// Replace it; the key only if one was named.
    SetService(Service),
    /// Leave the cluster.
    Stop { force: bool },
}

/// How to be a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOptions {
    pub roles: Roles,
    pub fe_port: Option<u16>,
    pub be_port: Option<u16>,
    pub dispatcher: Option<(String, Option<u16>)>,
    pub internal: Option<String>,
    pub control_port: u16,
    pub secret_file: Option<PathBuf>,
    pub name: Option<String>,
    pub policy: Option<String>,
    pub params: Vec<(String, String)>,
    pub weight: u32,
    pub rules: Vec<String>,
    pub service: Service,
    pub tags: String,
    pub vips: Vec<Ipv4Addr>,
    pub allow: Vec<SocketAddrV4>,
    pub any_listener: bool,
    pub bind_addr: Option<Ipv4Addr>,
    pub disk: Option<PathBuf>,
    pub nfs: Option<PathBuf>,
    pub cluster_id: Option<u64>,
    pub state_dir: PathBuf,
}

/// A command line that ends the program here: text, and the exit code.
#[derive(Debug)]
pub struct Finished {
    /// To be printed; to standard output if the code is 0.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

impl From<Error> for Finished {
    fn from(error: Error) -> Self {
        let code = error.exit_code();
        let hint = match code {
            EXIT_USAGE => "  `cluster_startup --help` shows what can be said\n",
            // As a file that cannot be read: what is said is right.
            _ => "",
        };
        Finished {
            text: format!("cluster_startup: {error}\n{hint}"),
            code,
        }
    }
}

fn port(name: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("PORT")
        .value_parser(value_parser!(u16).range(1..))
}

fn text(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

fn json() -> Arg {
    flag("json").help("Print JSON")
}

fn policies() -> PossibleValuesParser {
    PossibleValuesParser::new(PolicyKind::ALL.map(PolicyKind::name))
}

fn node_argument() -> Arg {
    Arg::new("node")
        .value_name("NODE")
        .required(true)
        .help("Number or name of the node, as in `cluster_startup status`")
}

fn commands() -> [Command; 9] {
    [
        Command::new("status")
            .about("Shows this node and those it knows")
            .arg(json()),
        Command::new("stats")
            .about("Shows the counters that are not zero")
            .arg(json())
            .arg(flag("all").help("Also those that are zero")),
        Command::new("connections")
            .about("Shows the connections of this node")
            .arg(json()),
        Command::new("drain")
            .about("Gives a node no new connections; those it has go on. On the dispatcher's node")
            .arg(node_argument())
            .arg(flag("undo").help("Use the node again")),
        Command::new("weight")
            .about("Changes a node's share under weighted policies. On the dispatcher's node")
            .arg(node_argument())
            .arg(
                Arg::new("weight")
                    .value_name("N")
                    .required(true)
                    .value_parser(value_parser!(u32).range(1..=i64::from(MAX_WEIGHT)))
                    .help("The share, 1 to 1000"),
            ),
        Command::new("set")
            .about("Changes parameters of the module, all or none; without any, lists them")
            .arg(
                Arg::new("change")
                    .value_name("KEY=VALUE")
                    .num_args(0..)
                    .help("Parameter and its new value"),
            )
            .arg(json()),
        Command::new("rules")
            .about("Shows the classification rules, or replaces them all at once")
            .arg(
                text("set", "RULE")
                    .action(ArgAction::Append)
                    .help("Replace the rules by this one; repeat for more"),
            )
            .arg(
                text("file", "FILE")
                    .value_parser(value_parser!(PathBuf))
                    .conflicts_with("set")
                    .help("Replace the rules by those in a file, one a line, # for comments"),
            )
            .arg(json()),
        Command::new("service")
            .about("Shows the target key and the content rules, or replaces them. On the dispatcher's node")
            .arg(
                text("content", "RULE")
                    .action(ArgAction::Append)
                    .help("Replace the content rules by this one; repeat for more"),
            )
            .arg(
                text("file", "FILE")
                    .value_parser(value_parser!(PathBuf))
                    .conflicts_with_all(["content", "clear"])
                    .help("Replace them, and the key if it is there, by what is in a file"),
            )
            .arg(
                flag("clear")
                    .conflicts_with("content")
                    .help("Remove all content rules"),
            )
            .arg(json()),
        Command::new("stop")
            .about("Makes this machine's node leave the cluster; its connections go on")
            .arg(flag("force").help("Cut the connections too")),
    ]
}

fn command() -> Command {
    Command::new("cluster_startup")
        .version(env!("CARGO_PKG_VERSION"))
        .override_help(include_str!("help.txt"))
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .disable_help_subcommand(true)
        .arg(Arg::new("D").short('D').action(ArgAction::SetTrue))
        .args([flag("FE"), flag("BE"), port("fp"), port("bp")])
        .arg(text("da", "HOST"))
        .arg(text("internal", "ADDR|IFACE"))
        .arg(port("control-port"))
        .arg(text("secret-file", "FILE").value_parser(value_parser!(PathBuf)))
        .arg(text("name", "NAME"))
        .arg(text("policy", "POLICY").value_parser(policies()))
        .arg(text("set", "KEY=VALUE").action(ArgAction::Append))
        .arg(text("weight", "N").value_parser(value_parser!(u32).range(1..=i64::from(MAX_WEIGHT))))
        .arg(text("rule", "RULE").action(ArgAction::Append))
        .arg(text("tag", "NAME").action(ArgAction::Append))
        .arg(text("key", "PARTS"))
        .arg(text("content", "RULE").action(ArgAction::Append))
        .arg(
            text("service", "FILE")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with_all(["key", "content"]),
        )
        .arg(
            text("vip", "ADDR")
                .action(ArgAction::Append)
                .value_parser(value_parser!(Ipv4Addr)),
        )
        .arg(
            text("allow", "ADDR:PORT")
                .action(ArgAction::Append)
                .value_parser(value_parser!(SocketAddrV4)),
        )
        .arg(flag("any-listener"))
        .arg(text("bind-addr", "ADDR").value_parser(value_parser!(Ipv4Addr)))
        .arg(text("disk", "PATH").value_parser(value_parser!(PathBuf)))
        .arg(text("nfs", "DOCROOT").value_parser(value_parser!(PathBuf)))
        .arg(text("cluster-id", "ID"))
        .arg(text("state-dir", "DIR").value_parser(value_parser!(PathBuf)))
        .subcommands(commands())
}

/// `-FE` becomes `--FE`, and `-fp=80` becomes `--fp=80`; what follows `--` is left alone.
fn to_long(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut ended = false;
    arguments
        .into_iter()
        .map(|argument| {
            ended = ended || argument == "--";
            let single = argument.to_str().filter(|_| !ended).and_then(|text| {
                let name = text.strip_prefix('-')?;
                let stem = name.split('=').next().unwrap_or(name);
                SINGLE_DASH.contains(&stem).then(|| format!("-{text}"))
            });
            single.map_or(argument, OsString::from)
        })
        .collect()
}

/// In what clap prints, `--FE` is `-FE`.
fn to_single(mut text: String) -> String {
    for name in SINGLE_DASH {
        for end in [" ", "'", "=", "\n", "`", ",", ">"] {
            text = text.replace(&format!("--{name}{end}"), &format!("-{name}{end}"));
        }
    }
    text
}

/// Reads a command line, of which the first word is the program.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> std::result::Result<Wish, Finished> {
    let matches = command()
        .try_get_matches_from(to_long(arguments))
        .map_err(|error| Finished {
            code: if error.use_stderr() { EXIT_USAGE } else { 0 },
            text: to_single(error.render().to_string()),
        })?;
    Ok(wish(&matches)?)
}

fn wish(matches: &ArgMatches) -> Result<Wish> {
    let Some((name, sub)) = matches.subcommand() else {
        return node_options(matches).map(|options| Wish::Node(Box::new(options)));
    };
    let json = || sub.get_flag("json");
    let string = |name: &str| sub.get_one::<String>(name).cloned().unwrap_or_default();
    Ok(match name {
        "status" => Wish::Status { json: json() },
        "stats" => Wish::Stats {
            json: json(),
            all: sub.get_flag("all"),
        },
        "connections" => Wish::Connections { json: json() },
        "drain" => Wish::Drain {
            node: string("node"),
            undo: sub.get_flag("undo"),
        },
        "weight" => Wish::Weight {
            node: string("node"),
            weight: sub.get_one("weight").copied().unwrap_or(1),
        },
        "set" => Wish::Set {
            changes: key_values(sub, "change")?,
            json: json(),
        },
        "rules" => rules_wish(sub)?,
        "service" => service_wish(sub)?,
        "stop" => Wish::Stop {
            force: sub.get_flag("force"),
        },
        other => return Err(Error::usage(format!("there is no command {other}"))),
    })
}

fn key_values(matches: &ArgMatches, option: &str) -> Result<Vec<(String, String)>> {
    let changes = matches.get_many::<String>(option).unwrap_or_default();
    changes.map(|change| key_value(change)).collect()
}

fn key_value(change: &str) -> Result<(String, String)> {
    match change.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            check_length("a parameter's name", key)?;
            check_length("a parameter's value", value)?;
            Ok((key.to_string(), value.to_string()))
        }
        _ => Err(Error::usage(format!(
            "\"{change}\" is not of the form KEY=VALUE"
        ))),
    }
}

fn check_length(what: &str, text: &str) -> Result<()> {
    if text.len() > MAX_TEXT {
        let start: String = text.chars().take(20).collect();
        return Err(Error::usage(format!(
            "{what} has {MAX_TEXT} octets at most, \"{start}...\" has {}",
            text.len()
        )));
    }
    Ok(())
}

fn rules_wish(sub: &ArgMatches) -> Result<Wish> {
    let rules: Vec<String> = if let Some(file) = sub.get_one::<PathBuf>("file") {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Error::io(format!("read {}", file.display()), &error))?;
        text.lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim())
            .filter(|line| !line.is_empty())
            .map(str::to_string)
            .collect()
    } else if let Some(rules) = sub.get_many::<String>("set") {
        rules.cloned().collect()
    } else {
        return Ok(Wish::Rules {
            json: sub.get_flag("json"),
        });
    };
    check_rules(&rules)?;
    Ok(Wish::SetRules { rules })
}

fn service_wish(sub: &ArgMatches) -> Result<Wish> {
    Ok(if let Some(file) = sub.get_one::<PathBuf>("file") {
        Wish::SetService(Service::read(file)?)
    } else if let Some(content) = sub.get_many::<String>("content") {
        Wish::SetService(Service::from_options(None, content.cloned().collect())?)
    } else if sub.get_flag("clear") {
        Wish::SetService(Service::default())
    } else {
        Wish::Service {
            json: sub.get_flag("json"),
        }
    })
}

/// Rules are checked here, by the module's own parser, because the module can only say that one of
/// them is wrong.
fn check_rules(rules: &[String]) -> Result<()> {
    if rules.len() > MAX_RULES {
        return Err(Error::usage(format!(
            "there can be {MAX_RULES} rules, these are {}",
            rules.len()
        )));
    }
    for text in rules {
        check_length("a rule", text)?;
        if let Err(error) = text.parse::<Rule>() {
            return Err(Error::usage(format!("rule \"{text}\": {error}")).remedy(
                "a rule reads: accept|pass [if IFACE,...] [from PREFIX] [to local|PREFIX] [port N]",
            ));
        }
    }
    Ok(())
}

fn node_options(matches: &ArgMatches) -> Result<NodeOptions> {
    let string = |name: &str| matches.get_one::<String>(name).cloned();
    let roles = Roles {
        dispatcher: matches.get_flag("D"),
        front_end: matches.get_flag("FE"),
        back_end: matches.get_flag("BE"),
    };
    if roles.is_empty() {
        return Err(Error::usage(
            "say which components this node has: -D, -FE or -BE, or give a command",
        ));
    }
    for (present, needed, option) in [
        (roles.front_end, "-FE", "fp"),
        (roles.front_end, "-FE", "rule"),
        (roles.front_end, "-FE", "vip"),
        (roles.back_end, "-BE", "bp"),
        (roles.back_end, "-BE", "allow"),
        (roles.back_end, "-BE", "bind-addr"),
        (roles.back_end, "-BE", "disk"),
        (roles.back_end, "-BE", "nfs"),
        (roles.dispatcher, "-D", "policy"),
        (roles.dispatcher, "-D", "cluster-id"),
        (roles.dispatcher, "-D", "state-dir"),
        (roles.dispatcher, "-D", "service"),
        (roles.dispatcher, "-D", "content"),
        (roles.dispatcher, "-D", "key"),
        (roles.back_end, "-BE", "tag"),
    ] {
        if !present && matches.contains_id(option) {
            let dashes = if SINGLE_DASH.contains(&option) {
                "-"
            } else {
                "--"
            };
            return Err(Error::usage(format!(
                "{dashes}{option} means something only with {needed}"
            )));
        }
    }
    if matches.get_flag("any-listener") && !roles.back_end {
        return Err(Error::usage("--any-listener means something only with -BE"));
    }
    if !roles.dispatcher && !matches.contains_id("da") {
        return Err(Error::usage(
            "say with -da HOST which node runs the dispatcher, or give -D to run it here",
        ));
    }
    if roles.dispatcher && matches.contains_id("da") {
        return Err(Error::usage(
            "-D runs the dispatcher here, so -da has no meaning; a cluster has one dispatcher",
        ));
    }
    let rules: Vec<String> = matches
        .get_many::<String>("rule")
        .unwrap_or_default()
        .cloned()
        .collect();
    check_rules(&rules)?;
    let service = match matches.get_one::<PathBuf>("service") {
        Some(file) => Service::read(file)?,
        None => {
            let content = matches.get_many::<String>("content").unwrap_or_default();
            Service::from_options(string("key"), content.cloned().collect())?
        }
    };
    let vips = addresses(matches, "vip", "a front-end can have")?;
    let allow = addresses(matches, "allow", "a back-end can allow")?;
    let name = string("name");
    if let Some(name) = name.as_deref().filter(|name| !is_name(name)) {
        return Err(Error::usage(format!(
            "\"{name}\" cannot be a node's name: 1 to 63 letters, digits, '-', '_' or '.'"
        )));
    }
    let or_default = |role: bool, option: &str, default: u16| {
        role.then(|| matches.get_one::<u16>(option).copied().unwrap_or(default))
    };
    Ok(NodeOptions {
        roles,
        fe_port: or_default(roles.front_end, "fp", FRONT_END_PORT),
        be_port: or_default(roles.back_end, "bp", BACK_END_PORT),
        dispatcher: string("da").as_deref().map(host_port).transpose()?,
        internal: string("internal"),
        control_port: matches
            .get_one::<u16>("control-port")
            .copied()
            .unwrap_or(CONTROL_PORT),
        secret_file: matches.get_one::<PathBuf>("secret-file").cloned(),
        name,
        policy: string("policy"),
        params: key_values(matches, "set")?,
        weight: matches.get_one::<u32>("weight").copied().unwrap_or(1),
        rules,
        service,
        tags: join_tags(matches.get_many::<String>("tag").unwrap_or_default())?,
        vips,
        allow,
        any_listener: matches.get_flag("any-listener"),
        bind_addr: matches.get_one::<Ipv4Addr>("bind-addr").copied(),
        disk: matches.get_one::<PathBuf>("disk").cloned(),
        nfs: matches.get_one::<PathBuf>("nfs").cloned(),
        cluster_id: string("cluster-id")
            .as_deref()
            .map(cluster_id)
            .transpose()?,
        state_dir: matches
            .get_one::<PathBuf>("state-dir")
            .cloned()
            .unwrap_or_else(|| STATE_DIR.into()),
    })
}

/// The addresses that an option names, which are few.
fn addresses<T: Clone + Send + Sync + 'static>(
    matches: &ArgMatches,
    option: &str,
    limit: &str,
) -> Result<Vec<T>> {
    let named = matches.get_many::<T>(option).unwrap_or_default();
    let all: Vec<T> = named.cloned().collect();
    if all.len() > MAX_VIPS {
        let n = all.len();
        let error = format!("{limit} {MAX_VIPS} addresses, these are {n}");
        return Err(Error::usage(error));
    }
    Ok(all)
}

fn host_port(text: &str) -> Result<(String, Option<u16>)> {
    if text.parse::<Ipv6Addr>().is_ok() || text.starts_with('[') {
        return Err(Error::usage(format!(
            "-da {text}: nodes call each other over IPv4 only"
        )));
    }
    let (host, port) = match text.split_once(':') {
        None => (text, None),
        Some((host, port)) => match port.parse() {
            Ok(port) if port != 0 => (host, Some(port)),
            _ => {
                return Err(Error::usage(format!(
                    "\"{port}\" in -da {text} is not a port"
                )))
            }
        },
    };
    if host.is_empty() {
        return Err(Error::usage("-da needs the name or address of a node"));
    }
    Ok((host.to_string(), port))
}

fn cluster_id(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    match u64::from_str_radix(digits, 16) {
        Ok(id) if id != 0 => Ok(id),
        _ => Err(Error::usage(format!(
            "\"{text}\" cannot be a cluster's number: 1 to 16 hexadecimal digits, not 0"
        ))),
    }
}

#[cfg(test)]
mod tests;
