// SPDX-License-Identifier: GPL-2.0

//! Replays the corpus of the fuzz targets through the functions that the targets call, and random
//! mutations of it, so that every `cargo test` is a short fuzz run.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "there it is a library")]
mod targets;

use proptest::prelude::*;
use proptest::sample::Index;
use std::path::PathBuf;

/// The files of a target's corpus, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target]
        .iter()
        .collect();
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a directory entry").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read(&path).expect("a readable file"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus of {target} is empty");
    files
}

/// What can happen to a file: some bytes changed, some cut out, some of another file put in.
#[derive(Clone, Debug)]
struct Mutation {
    file: Index,
    changes: Vec<(Index, u8)>,
    cut: Option<(Index, u8)>,
    splice: Option<(Index, Index, Index)>,
}

fn mutation() -> impl Strategy<Value = Mutation> {
    (
        any::<Index>(),
        prop::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        any::<Option<(Index, u8)>>(),
        any::<Option<(Index, Index, Index)>>(),
    )
        .prop_map(|(file, changes, cut, splice)| Mutation {
            file,
            changes,
            cut,
            splice,
        })
}

fn mutate(files: &[(String, Vec<u8>)], m: &Mutation) -> Vec<u8> {
    let mut bytes = m.file.get(files).1.clone();
    for (at, to) in &m.changes {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = *to;
        }
    }
    if let Some((at, len)) = &m.cut {
        let at = at.index(bytes.len() + 1);
        let end = bytes.len().min(at + usize::from(*len));
        bytes.drain(at..end);
    }
    if let Some((file, from, at)) = &m.splice {
        let other = &file.get(files).1;
        let tail = &other[from.index(other.len() + 1)..];
        let at = at.index(bytes.len() + 1);
        bytes.splice(at..at, tail.iter().copied());
    }
    bytes
}

macro_rules! replay {
    ($($target:ident),*) => {
        $(
            mod $target {
                use super::*;

                #[test]
                fn the_corpus_passes() {
                    for (name, bytes) in corpus(stringify!($target)) {
                        println!("{name}");
                        targets::$target(&bytes);
                        // Every prefix, but not of the long ones.
                        for len in 0..bytes.len().min(1_000) {
                            targets::$target(&bytes[..len]);
                        }
                    }
                }

                #[test]
                fn mutations_pass() {
                    let files = corpus(stringify!($target));
                    let config = ProptestConfig::with_cases(4_000);
                    proptest!(config, |(m in mutation())| targets::$target(&mutate(&files, &m)));
                }
            }
        )*
    };
}

replay!(
    head_parser,
    framing,
    responses,
    follow,
    rewrite,
    http2,
    segment_parser,
    frames,
    rules,
    content
);
