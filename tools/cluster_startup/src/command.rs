// SPDX-License-Identifier: GPL-2.0

//! The commands that ask the module something or change it, and end.

use crate::cli::Wish;
use crate::error::{Error, Result};
use crate::genl::view::{ConnView, NodeChange, NodeView, SelfView};
use crate::genl::Lard;
use crate::kernel::Kernel;
use crate::local;
use lard_core::addr::NodeId;
use lard_core::policy::UNIT;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Does what `wish` says; what remains is being a node.
pub fn run(wish: Wish) -> Result<()> {
    match wish {
        Wish::Node(options) => crate::resident::run(&options),
        Wish::Status { json } => status(json),
        Wish::Stats { json, all } => stats(json, all),
        Wish::Connections { json } => {
            let connections = Lard::open()?.connections()?;
            if json {
                return print_json(&connections);
            }
            print(&connection_table(&connections))
        }
        Wish::Drain { node, undo } => {
            let lard = Lard::open()?;
            let change = NodeChange {
                drain: Some(!undo),
                weight: None,
            };
            change_node(&lard, &node, change)
        }
        Wish::Weight { node, weight } => {
            let lard = Lard::open()?;
            let change = NodeChange {
                drain: None,
                weight: Some(weight),
            };
            change_node(&lard, &node, change)
        }
        Wish::Set { changes, json } => set(&changes, json),
        Wish::Rules { json } => {
            let rules = Lard::open()?.rules()?;
            if json {
                return print_json(&rules);
            }
            print(
                &rules
                    .iter()
                    .fold(String::new(), |all, rule| all + rule + "\n"),
            )
        }
        Wish::SetRules { rules } => Lard::open()?.set_rules(&rules),
        Wish::Service { json } => service(json),
        Wish::SetService(service) => Lard::open()?.set_service(&service),
        Wish::Stop { force } => stop(force),
    }
}

/// A reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write the answer", &error))
        }
        _ => Ok(()),
    }
}

fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new("write the answer").detail(error.to_string()))?;
    print(&(text + "\n"))
}

#[derive(Serialize)]
struct Status {
    node: Option<SelfView>,
    nodes: Vec<NodeView>,
    content: Vec<String>,
}

fn status(json: bool) -> Result<()> {
    let lard = Lard::open()?;
    let node = match lard.this_node() {
        Ok(node) => node,
        // Not being a node is an answer, for a program; a person is told what to do.
        Err(error) if json && error.is(libc::ENOTCONN) => None,
        Err(error) => return Err(error),
    };
    let (nodes, content) = if node.is_some() {
        (lard.nodes()?, lard.content()?)
    } else {
        Default::default()
    };
    if json {
        return print_json(&Status {
            node,
            nodes,
            content,
        });
    }
    print(&status_text(node.as_ref(), &nodes, &content))
}

#[derive(Serialize)]
struct ServiceView {
    key: Option<String>,
    content: Vec<String>,
}

/// In the form of the file that it could be read from again.
fn service(json: bool) -> Result<()> {
    let lard = Lard::open()?;
    let key = lard.this_node()?.and_then(|node| node.key);
    let content = lard.content()?;
    if json {
        return print_json(&ServiceView { key, content });
    }
    let mut text = key.map_or_else(String::new, |key| format!("key {key}\n"));
    for line in content {
        text += &line;
        text.push('\n');
    }
    print(&text)
}

fn status_text(node: Option<&SelfView>, nodes: &[NodeView], content: &[String]) -> String {
    let mut text = String::new();
    if let Some(node) = node {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "node {} ({}) of cluster {}: {}",
            node.id, node.name, node.cluster_id, node.roles
        );
        for (name, port) in [
            ("clients at port", node.front_end_port),
            ("servers at port", node.back_end_port),
        ] {
            if let Some(port) = port {
                let _ = write!(text, ", {name} {port}");
            }
        }
        if let Some(policy) = &node.policy {
            let _ = write!(text, ", policy {policy}");
        }
        text.push('\n');
        if let Some(key) = &node.key {
            let _ = writeln!(text, "target key: {key}");
        }
        for line in content {
            let _ = writeln!(text, "content: {line}");
        }
        let _ = writeln!(
            text,
            "connections: {} at the front-end, {} at the back-end",
            node.entries, node.children
        );
        if node.open > 0 {
            let _ = writeln!(
                text,
                "requests that wait at the front-end: {}, with {} octets; half-open: {}",
                node.open, node.head_memory, node.half_open
            );
        }
        if let Some(waiting) = node.waiting {
            let _ = match node.limit {
                Some(limit) => writeln!(text, "admission: {limit} connections, {waiting} wait"),
                None => writeln!(text, "admission: no limit, {waiting} wait"),
            };
        }
        if !node.owned {
            text.push_str(
                "no process owns this node: it forwards what it has and takes nothing new; start \
                 cluster_startup again\n",
            );
        } else if node.stopping {
            text.push_str("stopping: it takes no new connections\n");
        } else if let Some(away) = dispatcher_away(node, nodes) {
            let _ = writeln!(
                text,
                "the dispatcher, node {away}, is out of reach: requests are placed by consistent hashing"
            );
        }
    }
    let rows = nodes.iter().map(|node| {
        vec![
            node.id.to_string(),
            node.name.clone(),
            node.roles.clone(),
            node.internal_addr.clone().unwrap_or_else(|| "-".into()),
            node.state.clone(),
            node.link.clone(),
            show(node.weight),
            show_load(node),
            show(node.idle),
            show(node.assigned),
            show(node.disk_queue),
            show(node.rtt_us),
            match node.tags.is_empty() {
                true => "-".into(),
                false => node.tags.join(","),
            },
        ]
    });
    let heads = [
        "ID", "NAME", "ROLES", "ADDRESS", "STATE", "LINK", "WEIGHT", "LOAD", "IDLE", "ASSIGNED",
        "DISK", "RTT-US", "TAGS",
    ];
    text + &table(&heads, rows)
}

/// The dispatcher that a front-end cannot ask.
fn dispatcher_away(node: &SelfView, nodes: &[NodeView]) -> Option<u16> {
    let dispatcher = node.dispatcher.filter(|id| *id != node.id)?;
    node.front_end_port?;
    let is_there = nodes
        .iter()
        .any(|other| other.id == dispatcher && other.link == "ready");
    (!is_there).then_some(dispatcher)
}

/// The load of a node, with the parts of connections that are not its own.
fn show_load(node: &NodeView) -> String {
    match (node.load, node.shares) {
        (Some(load), Some(shares)) if shares > 0 => {
            format!("{:.2}", load as f64 + shares as f64 / f64::from(UNIT))
        }
        (load, _) => show(load),
    }
}

fn connection_table(connections: &[ConnView]) -> String {
    let rows = connections.iter().map(|conn| {
        vec![
            conn.id.clone(),
            conn.state.clone(),
            conn.client.clone(),
            conn.vip.clone(),
            conn.node
                .map_or_else(|| "-".to_string(), |node| node.to_string()),
            show(conn.age_ms),
            show(conn.idle_ms),
        ]
    });
    let heads = ["ID", "STATE", "CLIENT", "VIP", "NODE", "AGE-MS", "IDLE-MS"];
    table(&heads, rows)
}

fn stats(json: bool, all: bool) -> Result<()> {
    let stats = Lard::open()?.stats()?;
    if json {
        let map: serde_json::Map<String, serde_json::Value> = stats
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        return print_json(&map);
    }
    let rows = stats
        .into_iter()
        .filter(|(_, value)| all || *value != 0)
        .map(|(name, value)| vec![name, value.to_string()]);
    print(&table(&[], rows))
}

fn set(changes: &[(String, String)], json: bool) -> Result<()> {
    let lard = Lard::open()?;
    if !changes.is_empty() {
        return lard.set_params(changes);
    }
    let params = lard.params()?;
    if json {
        return print_json(&params);
    }
    let rows = params.iter().map(|param| {
        vec![
            param.name.clone(),
            param.value.clone(),
            param.default.clone().unwrap_or_else(|| "-".into()),
            show(param.min),
            show(param.max),
        ]
    });
    print(&table(&["NAME", "VALUE", "DEFAULT", "MIN", "MAX"], rows))
}

/// The node that `text` names, by number or by name.
fn find_node(nodes: &[NodeView], text: &str) -> Result<NodeId> {
    if let Ok(id) = text.parse::<u16>() {
        if nodes.iter().any(|node| node.id == id) {
            return Ok(NodeId(id));
        }
    }
    let mut named = nodes.iter().filter(|node| node.name == text);
    match (named.next(), named.next()) {
        (Some(node), None) => Ok(NodeId(node.id)),
        (Some(_), Some(_)) => Err(Error::new(format!("find node {text}"))
            .detail("several nodes have this name")
            .remedy("give the number; `cluster_startup status` shows it")),
        (None, _) => Err(Error::new(format!("find node {text}"))
            .detail("this node knows no such node")
            .remedy("`cluster_startup status` shows the nodes")),
    }
}

fn change_node(lard: &Lard, text: &str, change: NodeChange) -> Result<()> {
    let id = find_node(&lard.nodes()?, text)?;
    lard.set_node(id, change)
}

fn stop(force: bool) -> Result<()> {
    let stopped = local::stop()?;
    let lard = match Lard::open() {
        Ok(lard) => lard,
        // Without the module there is no node.
        Err(_) if stopped => return Ok(()),
        Err(error) => return Err(error),
    };
    if lard.attached()?.is_none() {
        if stopped {
            return Ok(());
        }
        return Err(Error::new("stop this machine's node").detail("it is not a node"));
    }
    match lard.detach(force) {
        Ok(()) => Ok(()),
        Err(error) if error.is(libc::ENOTCONN) => Ok(()),
        // Takes nothing new; what it has goes on.
        Err(error) if error.is(libc::EBUSY) => match lard.alive()? {
            0 => Ok(()),
            alive => print(&format!(
                "{alive} connections go on until they end by themselves; `cluster_startup stop \
                 --force` cuts them\n"
            )),
        },
        Err(error) => Err(error),
    }
}

fn show(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_string(), |number| number.to_string())
}

/// Columns as wide as their widest cell, two blanks apart; no blanks at the end of a line.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    if !heads.is_empty() {
        lines.push(heads.iter().map(|head| head.to_string()).collect());
    }
    lines.extend(rows);
    let mut widths: Vec<usize> = Vec::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            match widths.get_mut(column) {
                Some(width) => *width = (*width).max(cell.len()),
                None => widths.push(cell.len()),
            }
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(row, "{cell:width$}  ");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u16, name: &str) -> NodeView {
        NodeView {
            id,
            name: name.into(),
            roles: "FE,BE".into(),
            internal_addr: Some("10.0.0.2".into()),
            state: "up".into(),
            link: "ready".into(),
            weight: Some(1),
            tags: vec!["static".into()],
            load: None,
            shares: None,
            idle: None,
            assigned: Some(7),
            disk_queue: Some(2),
            frames_in: 0,
            frames_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            writes: 0,
            queued: 0,
            rtt_us: None,
            clock_offset_us: None,
            heard_ms: None,
        }
    }

    #[test]
    fn a_table_has_straight_columns_and_no_trailing_blanks() {
        let text = status_text(None, &[node(2, "a"), node(3, "a-longer-name")], &[]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let column = lines[0].find("ROLES").unwrap();
        assert!(lines[1..]
            .iter()
            .all(|line| line[column..].starts_with("FE,BE")));
        assert!(lines.iter().all(|line| !line.ends_with(' ')));
    }

    #[test]
    fn a_front_end_says_that_its_dispatcher_is_away() {
        let front_end = SelfView {
            id: 2,
            cluster_id: "1".into(),
            name: "a".into(),
            roles: "FE,BE".into(),
            front_end_port: Some(8080),
            back_end_port: Some(7080),
            internal_addr: None,
            any_listener: false,
            policy: None,
            dispatcher: Some(1),
            key: None,
            vips: Vec::new(),
            entries: 0,
            children: 0,
            open: 0,
            half_open: 0,
            head_memory: 0,
            limit: None,
            waiting: None,
            owned: true,
            stopping: false,
        };
        let says = |this: &SelfView, nodes: &[NodeView]| {
            status_text(Some(this), nodes, &[])
                .contains("node 1, is out of reach: requests are placed by consistent hashing")
        };
        let closing = NodeView {
            link: "closing".into(),
            ..node(1, "d")
        };
        assert!(!says(&front_end, &[node(1, "d"), node(2, "a")]));
        assert!(says(&front_end, &[closing, node(2, "a")]));
        assert!(says(&front_end, &[node(2, "a")]));
        let back_end = SelfView {
            front_end_port: None,
            ..front_end
        };
        assert!(!says(&back_end, &[node(2, "a")]));
    }

    #[test]
    fn loads_show_parts_of_connections() {
        let load = |load, shares| {
            let (load, shares) = (Some(load), Some(shares));
            show_load(&NodeView {
                load,
                shares,
                ..node(2, "a")
            })
        };
        assert_eq!(load(3, 0), "3");
        assert_eq!(load(3, 65_536 / 3), "3.33");
        assert_eq!(load(0, 65_536 / 2), "0.50");
        assert_eq!(show_load(&node(2, "a")), "-");
    }

    #[test]
    fn nodes_are_found_by_number_and_by_name() {
        let nodes = [node(2, "web"), node(3, "db"), node(4, "db"), node(5, "3")];
        assert_eq!(find_node(&nodes, "2").unwrap(), NodeId(2));
        assert_eq!(find_node(&nodes, "web").unwrap(), NodeId(2));
        assert_eq!(find_node(&nodes, "3").unwrap(), NodeId(3));
        assert!(find_node(&nodes, "db")
            .unwrap_err()
            .to_string()
            .contains("several"));
        assert!(find_node(&nodes, "nobody").is_err());
    }
}
