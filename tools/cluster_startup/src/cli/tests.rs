// SPDX-License-Identifier: GPL-2.0

//! Command lines that are understood, and those that are not.

use super::*;

fn read(line: &str) -> std::result::Result<Wish, Finished> {
    read_all(&line.split_whitespace().collect::<Vec<_>>())
}

fn read_all(words: &[&str]) -> std::result::Result<Wish, Finished> {
    let program = std::iter::once(&"cluster_startup");
    parse(program.chain(words).map(OsString::from))
}

#[track_caller]
fn node(line: &str) -> NodeOptions {
    match read(line) {
        Ok(Wish::Node(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn refused(line: &str) -> String {
    refused_all(&line.split_whitespace().collect::<Vec<_>>())
}

#[track_caller]
fn refused_all(words: &[&str]) -> String {
    match read_all(words) {
        Err(finished) if finished.code == EXIT_USAGE => finished.text,
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn the_seeds_command_lines_are_understood_to_the_letter() {
    let dispatcher = node("-D");
    assert_eq!(dispatcher.roles.to_bits(), 1);
    assert_eq!((dispatcher.fe_port, dispatcher.be_port), (None, None));
    let both = node("-FE -fp 8080 -BE -bp 7080 -da host1-ifc2.cs.rice.edu");
    assert_eq!(both.roles.to_bits(), 6);
    assert_eq!((both.fe_port, both.be_port), (Some(8080), Some(7080)));
    assert_eq!(
        both.dispatcher,
        Some(("host1-ifc2.cs.rice.edu".to_string(), None))
    );
    assert_eq!(both.control_port, CONTROL_PORT);
}

#[test]
fn parameters_may_be_set_from_the_start() {
    let options = node("-D --set mode=move --policy lardr --set t-low=30");
    let change = |key: &str, value: &str| (key.to_string(), value.to_string());
    assert_eq!(
        options.params,
        [change("mode", "move"), change("t-low", "30")]
    );
    assert_eq!(node("-D").params, []);
}

#[test]
fn any_combination_of_components_in_any_order() {
    for (line, bits) in [
        ("-D -FE", 3),
        ("-BE -D", 5),
        ("-BE -FE -D", 7),
        ("-da n -BE", 4),
        ("-da n -FE", 2),
        ("-fp 80 -FE -da n:99 -BE", 6),
    ] {
        assert_eq!(node(line).roles.to_bits(), bits, "{line}");
    }
    assert_eq!(
        node("-FE -da n:99").dispatcher,
        Some(("n".into(), Some(99)))
    );
    assert_eq!(node("-FE -fp=81 -da n").fe_port, Some(81));
    let defaults = node("-D -FE -BE");
    assert_eq!(
        (defaults.fe_port, defaults.be_port),
        (Some(8080), Some(7080))
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_the_remedy() {
    assert!(refused("").contains("-D, -FE or -BE"));
    assert!(refused("-FE").contains("-da HOST"));
    assert!(refused("-D -da n").contains("one dispatcher"));
    assert!(refused("-D -fp 80").contains("-fp means something only with -FE"));
    assert!(refused("-D -bp 80").contains("only with -BE"));
    assert!(refused("-BE -da n --policy wrr").contains("only with -D"));
    assert!(refused("-D --any-listener").contains("only with -BE"));
    assert!(refused("-D --allow 10.0.0.1:80").contains("--allow means something only with -BE"));
    assert!(refused("-BE -da n --allow 10.0.0.1").contains("ADDR:PORT"));
    let many = " --allow 10.0.0.1:80".repeat(17);
    assert!(refused(&format!("-BE -da n{many}")).contains("allow 16 addresses, these are 17"));
    assert!(refused("-D --nfs /srv").contains("--nfs means something only with -BE"));
    assert!(refused("-D --policy best").contains("wrr"));
    assert!(refused("-D --cluster-id 0").contains("cannot be"));
    assert!(refused("-FE -da n:x").contains("not a port"));
    for literal in ["::1", "fe80::1:7021", "[::1]:7021"] {
        assert!(refused(&format!("-FE -da {literal}")).contains("IPv4 only"));
    }
    assert!(refused("-D status").contains("cluster_startup"));
    for line in [
        "-XX",
        "-D -fp",
        "-FE -fp 0 -da n",
        "-FE -fp 70000 -da n",
        "frob",
    ] {
        refused(line);
    }
    assert!(refused("-D --name a_b;c").contains("cannot be a node's name"));
    assert!(refused("set a").contains("KEY=VALUE"));
    assert!(refused("-D --set mode").contains("KEY=VALUE"));
    assert!(refused_all(&["rules", "--set", "accept from 10.0.0.1/8"]).contains("accept|pass"));
    let text = refused("-FE -fp x -da n");
    assert!(text.contains("-fp") && !text.contains("--fp"), "{text}");
}

#[test]
fn a_file_that_cannot_be_read_is_no_misunderstanding() {
    let finished =
        parse(["cluster_startup", "rules", "--file", "/no/such/file"].map(OsString::from))
            .unwrap_err();
    assert_eq!(finished.code, crate::error::EXIT_FAILURE);
    assert!(finished.text.contains("ENOENT") && !finished.text.contains("--help"));
}

#[test]
fn what_is_too_long_for_the_module_is_refused() {
    let long = "x".repeat(70_000);
    for line in [
        format!("set x={long}"),
        format!("set {long}=x"),
        format!("-D --set x={long}"),
    ] {
        assert!(refused(&line).contains("255 octets at most"));
    }
    let rule = "accept".to_string() + &" ".repeat(70_000) + "port 80";
    assert!(refused_all(&["rules", "--set", &rule]).contains("255 octets at most"));
    let comment = format!("tag a # {long}");
    refused_all(&["service", "--content", &comment]);
}

#[test]
fn commands_have_their_arguments() {
    assert!(matches!(
        read("status --json"),
        Ok(Wish::Status { json: true })
    ));
    assert!(matches!(
        read("stats"),
        Ok(Wish::Stats {
            json: false,
            all: false
        })
    ));
    match read("set dead-after-ms=3000 a=b=c") {
        Ok(Wish::Set { changes, .. }) => assert_eq!(
            changes,
            [
                ("dead-after-ms".to_string(), "3000".to_string()),
                ("a".to_string(), "b=c".to_string())
            ]
        ),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        read("stop --force"),
        Ok(Wish::Stop { force: true })
    ));
    assert!(matches!(read("rules"), Ok(Wish::Rules { json: false })));
}

#[test]
fn the_seeds_rules_are_understood() {
    let words = [
        "-FE",
        "-da",
        "n",
        "--rule",
        "pass from 192.168.2.75",
        "--rule",
        "accept if fxp0,fxp1 from 192.0.0.0/8",
    ];
    match read_all(&words) {
        Ok(Wish::Node(options)) => assert_eq!(options.rules.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn help_shows_every_option_and_exits_with_success() {
    for line in ["--help", "-h"] {
        let help = read(line).unwrap_err();
        assert_eq!(help.code, 0);
        for arg in command().get_arguments() {
            let id = arg.get_id().as_str();
            let shown = if SINGLE_DASH.contains(&id) || id.len() == 1 {
                format!("-{id}")
            } else {
                format!("--{id}")
            };
            let words: Vec<&str> = help.text.split([' ', '\n', ',', '[', ']']).collect();
            assert!(words.contains(&shown.as_str()), "{shown}");
        }
        for sub in commands() {
            assert!(help.text.contains(&format!("\n  {}", sub.get_name())));
        }
        assert!(help.text.lines().all(|line| line.len() <= 100));
    }
    for sub in commands() {
        let help = read(&format!("{} --help", sub.get_name())).unwrap_err();
        assert_eq!(help.code, 0);
        assert!(help.text.contains("Usage:"));
    }
    let version = read("--version").unwrap_err();
    assert_eq!(
        (version.code, version.text.starts_with("cluster_startup ")),
        (0, true)
    );
}

#[test]
fn the_service_is_the_dispatchers_and_tags_are_back_ends() {
    let words = [
        "-D",
        "--key",
        "path",
        "--content",
        "prefix /a tag a",
        "--content",
        "tag b",
    ];
    let Ok(Wish::Node(options)) = read_all(&words) else {
        panic!("{words:?}");
    };
    assert_eq!(options.service.key.as_deref(), Some("path"));
    assert_eq!(options.service.content, ["prefix /a tag a", "tag b"]);
    assert_eq!(node("-BE -da n --tag a,b --tag c").tags, "a,b,c");
    assert_eq!(node("-D -BE").tags, "");
    assert!(refused("-FE -da n --key path").contains("only with -D"));
    assert!(refused("-D --tag a").contains("only with -BE"));
    assert!(refused("-BE -da n --tag a/b").contains("a tag is"));
    assert!(refused("-D --key url").contains("host, path, query"));
    let said = refused_all(&["-D", "--content", "suffix .gif"]);
    assert!(
        said.contains("column 12: the line must end with tag"),
        "{said}"
    );
    assert!(refused_all(&["-D", "--service", "f", "--key", "path"]).contains("cannot be used"));
    match read_all(&["service", "--content", "tag a"]) {
        Ok(Wish::SetService(Service { key: None, content })) => assert_eq!(content, ["tag a"]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(read("service --clear"), Ok(Wish::SetService(_))));
    assert!(matches!(
        read("service --json"),
        Ok(Wish::Service { json: true })
    ));
    assert!(refused("service --clear --file f").contains("cannot be used"));
}

#[test]
fn the_sample_of_a_service_can_be_read() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../samples/content/two-and-two"
    );
    match read_all(&["-D", "--service", file]) {
        Ok(Wish::Node(options)) => assert_eq!(options.service.content.len(), 5),
        other => panic!("{other:?}"),
    }
}
