// SPDX-License-Identifier: GPL-2.0

//! The numbers of `Documentation/netlink/specs/lard.yaml`: a command's or attribute's number is its
//! place in its list, counted from 1. A test compares the two.

/// Name of the family.
pub const FAMILY: &str = "lard";
/// Its version.
pub const VERSION: u8 = 1;
/// Name of the group events are sent to.
pub const EVENTS: &str = "events";

macro_rules! numbered {
    ($(#[$doc:meta])* $module:ident : $type:ty { $($name:ident = $number:literal),* $(,)? }) => {
        $(#[$doc])*
        // The lists are whole, used or not: a test compares them with the specification.
        #[allow(dead_code)]
        pub mod $module {
            $(#[allow(missing_docs)] pub const $name: $type = $number;)*
            /// Names and numbers, as the specification has them.
            #[cfg(test)]
            pub const ALL: &[(&str, $type)] = &[$((stringify!($name), $number)),*];
        }
    };
}

numbered! {
    /// Operations.
    command: u8 {
        ATTACH = 1, DETACH = 2, PEER_ADD = 3, PEER_DEL = 4, SELF_GET = 5, NODE_GET = 6,
        NODE_SET = 7, CONN_GET = 8, STATS_GET = 9, RULE_SET = 10, RULE_GET = 11, PARAM_SET = 12,
        PARAM_GET = 13, PEER_READY = 14, PEER_LOST = 15, NODE_CHANGE = 16, SERVICE_SET = 17,
        SERVICE_GET = 18, DISK_SET = 19, MOUNTS_SET = 20,
    }
}

numbered! {
    /// Attributes of an address and port.
    endpoint: u16 { ADDR = 1, PORT = 2 }
}

numbered! {
    /// Attributes of a node.
    node: u16 {
        NODE_ID = 1, CLUSTER_ID = 2, NAME = 3, ROLES = 4, FE_PORT = 5, BE_PORT = 6, BE_ADDR = 7,
        INTERNAL_ADDR = 8, INTERNAL_IFNAME = 9, ANY_LISTENER = 10, WEIGHT = 11, POLICY = 12,
        HASH_KEY = 13, RULE = 14, DISPATCHER = 15, FORCE = 16, FD = 17, STATE = 18, LINK = 19,
        REASON = 20, LOAD = 21, ASSIGNED = 22, FRAMES_IN = 23, FRAMES_OUT = 24, BYTES_IN = 25,
        BYTES_OUT = 26, WRITES = 27, QUEUED = 28, RTT_US = 29, CLOCK_OFFSET_US = 30,
        HEARD_MS = 31, VIP = 32, ALLOW = 33, ENTRIES = 34, CHILDREN = 35, OWNER = 36,
        STOPPING = 37, KEY = 38, CONTENT = 39, TAGS = 40, DISK_QUEUE = 41, LIMIT = 42, WAITING = 43,
        SHARES = 44, IDLE = 45, OPEN = 46, HALF_OPEN = 47, HEAD_MEMORY = 48, MOUNTED = 49,
    }
}

numbered! {
    /// Attributes of a connection.
    conn: u16 {
        ID = 1, STATE = 2, CLIENT = 3, VIP = 4, NODE_ID = 5, AGE_MS = 6, IDLE_MS = 7,
    }
}

numbered! {
    /// Attributes of a counter.
    stat: u16 { NAME = 1, VALUE = 2 }
}

numbered! {
    /// Attributes of a classification rule.
    rule: u16 { INDEX = 1, TEXT = 2, RULE = 3 }
}

numbered! {
    /// Attributes of what the front-ends have in common.
    service: u16 { INDEX = 1, TEXT = 2, CONTENT = 3, KEY = 4 }
}

numbered! {
    /// Attributes of one parameter to change.
    param_entry: u16 { NAME = 1, VALUE = 2 }
}

numbered! {
    /// Attributes of a parameter.
    param: u16 { NAME = 1, VALUE = 2, SET = 3, DEFAULT = 4, MIN = 5, MAX = 6 }
}

/// Words for `node-state`.
pub const NODE_STATES: [&str; 4] = ["unknown", "up", "drain", "down"];
/// Words for `link-state`.
pub const LINK_STATES: [&str; 5] = ["none", "local", "greeting", "ready", "closing"];
/// Words for `conn-state`.
pub const CONN_STATES: [&str; 8] = [
    "half-open",
    "head",
    "asking",
    "handing-off",
    "forwarding",
    "replying",
    "closing",
    "adopted",
];

/// The word for `number`, or the number.
pub fn word(words: &[&str], number: u32) -> String {
    usize::try_from(number)
        .ok()
        .and_then(|index| words.get(index))
        .map_or_else(|| number.to_string(), |word| word.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const YAML: &str = include_str!("../../../../Documentation/netlink/specs/lard.yaml");
    const MODULE: &str = include_str!("../../../../net/lard/netlink/numbers.rs");

    /// The lists of the specification: "definitions/node-state", "attribute-sets/node", "operations".
    /// The file is our own, so indentation is enough to read it by.
    fn lists() -> HashMap<String, Vec<String>> {
        let mut lists: HashMap<String, Vec<String>> = HashMap::new();
        let (mut section, mut set) = (String::new(), String::new());
        for line in YAML.lines() {
            let text = line.trim_start();
            let indent = line.len() - text.len();
            if indent == 0 && text.ends_with(':') {
                section = text.trim_end_matches(':').to_string();
            } else if let Some(name) = text.strip_prefix("name: ") {
                match (section.as_str(), indent) {
                    ("definitions" | "attribute-sets", 4) => set = format!("{section}/{name}"),
                    ("definitions" | "attribute-sets", 8) => {
                        lists.entry(set.clone()).or_default().push(name.into())
                    }
                    ("operations", 6) => {
                        lists.entry(section.clone()).or_default().push(name.into())
                    }
                    _ => {}
                }
            }
        }
        lists
    }

    #[track_caller]
    fn check<T: Copy + Into<u32>>(list: &str, ours: &[(&str, T)]) {
        let lists = lists();
        let theirs = &lists[list];
        assert_eq!(ours.len(), theirs.len(), "{list}");
        for ((index, theirs), (ours, number)) in (1u32..).zip(theirs).zip(ours) {
            assert_eq!(ours.to_lowercase().replace('_', "-"), *theirs, "{list}");
            assert_eq!((*number).into(), index, "{list}: {theirs}");
        }
    }

    #[test]
    fn numbers_are_those_of_the_specification() {
        check("operations", command::ALL);
        check("attribute-sets/endpoint", endpoint::ALL);
        check("attribute-sets/node", node::ALL);
        check("attribute-sets/conn", conn::ALL);
        check("attribute-sets/stat", stat::ALL);
        check("attribute-sets/rule", rule::ALL);
        check("attribute-sets/service", service::ALL);
        check("attribute-sets/param-entry", param_entry::ALL);
        check("attribute-sets/param", param::ALL);
        let lists = lists();
        assert_eq!(lists["definitions/node-state"], NODE_STATES);
        assert_eq!(lists["definitions/link-state"], LINK_STATES);
        assert_eq!(lists["definitions/conn-state"], CONN_STATES);
        assert!(YAML.contains(&format!("name: {EVENTS}")));
    }

    /// The constants of the module's own copy: by module of Rust, "" for those outside of any.
    fn module() -> HashMap<&'static str, Vec<(&'static str, u32)>> {
        let mut lists: HashMap<&str, Vec<(&str, u32)>> = HashMap::new();
        let mut list = "";
        for line in MODULE.lines() {
            if let Some(name) = line.strip_prefix("pub(super) mod ") {
                list = name.trim_end_matches(" {");
            } else if line == "}" {
                list = "";
            } else if let Some((_, constant)) = line.split_once(" const ") {
                let (name, value) = constant.split_once(": ").unwrap();
                let (_, number) = value.split_once(" = ").unwrap();
                let number = number.trim_end_matches(';').parse().unwrap();
                lists.entry(list).or_default().push((name, number));
            }
        }
        lists
    }

    #[test]
    fn numbers_of_the_module_are_those_of_the_specification() {
        let mut module = module();
        for (index, (name, number)) in (0u32..).zip(module.remove("").unwrap()) {
            let word = name.strip_prefix("STATE_").unwrap().to_lowercase();
            assert_eq!(
                (word.as_str(), number),
                (NODE_STATES[index as usize], index)
            );
        }
        check("operations", &module.remove("cmd").unwrap());
        for set in [
            "node", "conn", "endpoint", "stat", "rule", "service", "param",
        ] {
            let numbers = module.remove(set).unwrap();
            check(&format!("attribute-sets/{set}"), &numbers);
        }
        assert!(module.is_empty(), "{:?}", module.keys());
    }
}
