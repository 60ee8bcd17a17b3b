// SPDX-License-Identifier: GPL-2.0

//! What kind of program a file is, as far as it matters for loading a library into it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Of another word size or machine than this one?
    pub is_foreign: bool,
    /// Loaded by the dynamic linker?
    pub is_dynamic: bool,
    /// Written in Go, whose programs make system calls themselves?
    pub is_go: bool,
}

/// A file that can be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program.
    Program(Program),
    /// A script, and the program that reads it.
    Script(String),
    /// Something else.
    Unknown,
}

/// What Go leaves in every program.
const GO_MARK: &[u8] = b"\xff Go buildinf:";
/// Programs are searched this far for it.
const GO_LIMIT: u64 = 256 << 20;
/// The kernel reads no more of a script's first line.
const SCRIPT_LINE: usize = 256;

const HEADER: usize = 64;
const ENTRY: usize = 56;
const PT_INTERP: u32 = 3;

#[cfg(target_pointer_width = "64")]
const OWN_CLASS: u8 = 2;
#[cfg(target_pointer_width = "32")]
const OWN_CLASS: u8 = 1;

/// Looks at the file at `path`.
pub fn examine(path: &Path) -> io::Result<Kind> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    (&mut file)
        .take(SCRIPT_LINE as u64)
        .read_to_end(&mut head)?;
    if let Some(rest) = head.strip_prefix(b"#!") {
        let line = rest.split(|&octet| octet == b'\n').next().unwrap_or(rest);
        let line = String::from_utf8_lossy(line);
        let interpreter = line.split_whitespace().next().unwrap_or_default();
        return Ok(Kind::Script(interpreter.to_string()));
    }
    let Some(header) = head.get(..HEADER).filter(|h| h.starts_with(b"\x7fELF")) else {
        return Ok(Kind::Unknown);
    };
    if header.get(4) != Some(&OWN_CLASS) || machine(header) != own_machine() {
        return Ok(Kind::Program(Program {
            is_foreign: true,
            is_dynamic: true,
            is_go: false,
        }));
    }
    Ok(Kind::Program(Program {
        is_foreign: false,
        is_dynamic: has_interpreter(&mut file, header)?,
        is_go: has_go_mark(&mut file)?,
    }))
}

fn machine(header: &[u8]) -> Option<u16> {
    number(header, 18, 2).and_then(|n| u16::try_from(n).ok())
}

/// That of the program that runs: itself.
fn own_machine() -> Option<u16> {
    let mut header = [0; HEADER];
    File::open("/proc/self/exe")
        .and_then(|mut file| file.read_exact(&mut header))
        .ok()?;
    machine(&header)
}

/// A number of `size` octets in this machine's order.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(size)?)?;
    let mut whole = [0; 8];
    let place = if cfg!(target_endian = "little") {
        whole.get_mut(..size)
    } else {
        whole.get_mut(8usize.checked_sub(size)?..)
    };
    place?.copy_from_slice(part);
    Some(u64::from_ne_bytes(whole))
}

/// Walks the program headers of a 64-bit file; a 32-bit system has the file called dynamic.
fn has_interpreter(file: &mut File, header: &[u8]) -> io::Result<bool> {
    if OWN_CLASS != 2 {
        return Ok(true);
    }
    let (Some(offset), Some(count)) = (number(header, 32, 8), number(header, 56, 2)) else {
        return Ok(false);
    };
    file.seek(SeekFrom::Start(offset))?;
    for _ in 0..count {
        let mut entry = [0; ENTRY];
        if file.read_exact(&mut entry).is_err() {
            return Ok(false);
        }
        if number(&entry, 0, 4) == Some(u64::from(PT_INTERP)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_go_mark(file: &mut File) -> io::Result<bool> {
    file.seek(SeekFrom::Start(0))?;
    let mut rest = file.take(GO_LIMIT);
    let mut window = Vec::new();
    let mut block = vec![0; 1 << 16];
    loop {
        let got = rest.read(&mut block)?;
        if got == 0 {
            return Ok(false);
        }
        window.extend_from_slice(block.get(..got).unwrap_or_default());
        if window.windows(GO_MARK.len()).any(|part| part == GO_MARK) {
            return Ok(true);
        }
        // The mark may lie across two blocks.
        let keep = window.len().min(GO_MARK.len() - 1);
        window.drain(..window.len() - keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(name: &str, content: &[u8]) -> std::path::PathBuf {
        let name = format!("lard-elf-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        File::create(&path).unwrap().write_all(content).unwrap();
        path
    }

    #[track_caller]
    fn kind(name: &str, content: &[u8]) -> Kind {
        let path = file(name, content);
        let kind = examine(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        kind
    }

    #[test]
    fn an_ordinary_program_is_dynamic_and_not_go() {
        match examine(Path::new("/bin/sh")).unwrap() {
            Kind::Program(program) => assert_eq!(
                program,
                Program {
                    is_foreign: false,
                    is_dynamic: true,
                    is_go: false,
                }
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scripts_name_their_interpreter() {
        assert_eq!(
            kind("script", b"#! /usr/bin/env  bash\necho\n"),
            Kind::Script("/usr/bin/env".into())
        );
        assert_eq!(kind("empty", b"#!"), Kind::Script(String::new()));
        assert_eq!(kind("text", b"echo hello"), Kind::Unknown);
        assert_eq!(kind("short", b"\x7fELF"), Kind::Unknown);
    }

    #[test]
    fn damaged_programs_are_examined_without_harm() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let whole = &whole[..4096];
        let mut seed = 7u32;
        for round in 0..200 {
            let mut bytes = whole.to_vec();
            for _ in 0..20 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                bytes[(seed >> 8) as usize % 64] = seed as u8;
            }
            let path = file(&format!("damaged{round}"), &bytes);
            // An error is a fine answer.
            let _ = examine(&path);
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn the_mark_of_go_is_found_across_blocks() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let mut bytes = whole[..4096].to_vec();
        bytes.resize((1 << 16) - 5, 0);
        bytes.extend_from_slice(GO_MARK);
        match kind("go", &bytes) {
            Kind::Program(program) => assert!(program.is_go),
            other => panic!("{other:?}"),
        }
    }
}
