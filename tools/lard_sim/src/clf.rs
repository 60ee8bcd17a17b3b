// SPDX-License-Identifier: GPL-2.0

//! Access logs in the Common or Combined Log Format, plain or compressed with gzip.
//!
//! ```text
//! 192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326 …
//! ```
//!
//! What counts are GET requests that were answered with 200 or 304. The size of a target is the
//! largest that was ever sent of it; a log that says nothing about a target but "not modified" does
//! not know its size, and such targets are left out.
//!
//! A log does not say which requests shared a connection. As in \[2\]: requests of one client less than
//! 15 seconds apart are on one connection, and those that follow the first one within a second have
//! come together.

use super::workload::{Request, Start, Trace};
use flate2::read::MultiGzDecoder;
use rustc_hash::FxHashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Seconds without a request after which a client closes its connection.
const KEEP_ALIVE: i64 = 15;

/// Seconds from the first request of a batch to the last.
const BATCH: i64 = 1;

/// Reads a log; `limit` requests at most.
pub fn read(path: &Path, limit: usize) -> io::Result<Trace> {
    let mut file = BufReader::new(File::open(path)?);
    let is_gzip = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let plain: Box<dyn Read> = match is_gzip {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    parse(BufReader::new(plain), limit)?.check()
}

/// A line that counts.
struct Line<'l> {
    client: &'l [u8],
    second: i64,
    target: &'l [u8],
    /// 0 if nothing was sent.
    size: u32,
}

fn parse(mut log: impl BufRead, limit: usize) -> io::Result<Trace> {
    let mut numbers: FxHashMap<Box<[u8]>, u32> = FxHashMap::default();
    let mut clients: FxHashMap<Box<[u8]>, u32> = FxHashMap::default();
    let mut trace = Trace::default();
    // Client, second, target.
    let mut lines: Vec<(u32, i64, u32)> = Vec::new();
    let mut text = Vec::new();
    while lines.len() < limit && log.read_until(b'\n', &mut text)? > 0 {
        if let Some(line) = Line::parse(&text) {
            let target = number(&mut numbers, line.target);
            let client = number(&mut clients, line.client);
            if target as usize == trace.sizes.len() {
                trace.sizes.push(0);
            }
            let size = &mut trace.sizes[target as usize];
            *size = line.size.max(*size);
            lines.push((client, line.second, target));
        }
        text.clear();
    }
    trace.requests = connections(&lines, clients.len(), &trace.sizes);
    Ok(trace)
}

fn number(known: &mut FxHashMap<Box<[u8]>, u32>, name: &[u8]) -> u32 {
    if let Some(number) = known.get(name) {
        return *number;
    }
    // CAST: a log of four thousand million targets does not fit into memory.
    let number = known.len() as u32;
    known.insert(name.into(), number);
    number
}

/// Sorts requests into connections. A connection comes where its first request was.
fn connections(lines: &[(u32, i64, u32)], clients: usize, sizes: &[u32]) -> Vec<Request> {
    struct Last {
        connection: usize,
        second: i64,
        /// Of the batch: its first second.
        batch: i64,
        /// The first request of the connection makes no batch with what follows.
        is_first: bool,
    }
    let mut open: Vec<Option<Last>> = (0..clients).map(|_| None).collect();
    let mut connections: Vec<Vec<Request>> = Vec::new();
    for &(client, second, target) in lines {
        if sizes[target as usize] == 0 {
            continue;
        }
        let last = &mut open[client as usize];
        let continues = last.as_ref().filter(|l| second - l.second < KEEP_ALIVE);
        let start = match continues {
            None => Start::Connection,
            Some(l) if !l.is_first && second - l.batch <= BATCH => Start::Same,
            Some(l) => Start::Batch(((second - l.second).max(0) * 1_000_000) as u32),
        };
        let connection = continues.map_or(connections.len(), |l| l.connection);
        let batch = match start {
            Start::Same => continues.map_or(second, |l| l.batch),
            Start::Connection | Start::Batch(_) => second,
        };
        if start == Start::Connection {
            connections.push(Vec::new());
        }
        connections[connection].push(Request { target, start });
        *last = Some(Last {
            connection,
            second,
            batch,
            is_first: start == Start::Connection,
        });
    }
    connections.into_iter().flatten().collect()
}

impl<'l> Line<'l> {
    fn parse(text: &'l [u8]) -> Option<Self> {
        let client = text
            .split(|b| *b == b' ')
            .next()
            .filter(|c| !c.is_empty())?;
        // The date is before the request. A user's name may have brackets, and quotes only escaped.
        let end = text.windows(3).position(|w| w == b"] \"")?;
        let begin = text[..end].iter().rposition(|b| *b == b'[')?;
        let date = &text[begin + 1..end];
        let (request, rest) = split(&text[end + 3..], b'"')?;
        let mut words = request.split(|b| *b == b' ');
        let target = words
            .next()
            .filter(|w| *w == b"GET")
            .and_then(|_| words.next())?;
        let mut words = rest
            .split(|b| b.is_ascii_whitespace())
            .filter(|w| !w.is_empty());
        let status = words.next().filter(|w| matches!(*w, b"200" | b"304"))?;
        let size = words
            .next()
            .and_then(|w| std::str::from_utf8(w).ok()?.parse().ok());
        Some(Line {
            client,
            second: seconds(date)?,
            target,
            size: size.filter(|_| status == b"200").unwrap_or(0),
        })
    }
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = text.iter().position(|b| *b == at)?;
    Some((&text[..i], &text[i + 1..]))
}

/// The time in `10/Oct/2000:13:55:36 -0700`, in seconds from some day. The zone does not matter: one
/// log has one.
fn seconds(date: &[u8]) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut parts = std::str::from_utf8(date).ok()?.split(['/', ':', ' ']);
    // So narrow that nothing below can overflow.
    let day: u8 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = MONTHS.iter().position(|m| *m == month)? as i64;
    let year: u16 = parts.next()?.parse().ok()?;
    let mut numbers = parts.map(|p| p.parse::<u8>().ok());
    let mut next = || numbers.next().flatten().map(i64::from);
    let (hour, minute, second) = (next()?, next()?, next()?);
    let (day, year) = (i64::from(day), i64::from(year));
    // Days since 1 March of year 0: leap days are the last of their year then.
    let (y, m) = if month < 2 {
        (year - 1, month + 10)
    } else {
        (year, month - 2)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use std::io::Write;

    const LOG: &str = r#"
a - - [28/Feb/2000:23:59:50 +0000] "GET /page HTTP/1.0" 200 5000
a - - [28/Feb/2000:23:59:51 +0000] "GET /1.gif HTTP/1.0" 200 100 "http://x/" "Agent"
b - - [28/Feb/2000:23:59:51 +0000] "GET /page HTTP/1.0" 304 -
a - - [28/Feb/2000:23:59:52 +0000] "GET /2.gif HTTP/1.0" 200 200
a - - [28/Feb/2000:23:59:52 +0000] "POST /form HTTP/1.0" 200 9
a - - [28/Feb/2000:23:59:53 +0000] "GET /gone HTTP/1.0" 404 9
a - - [29/Feb/2000:00:00:02 +0000] "GET /next HTTP/1.0" 200 6000
b - - [29/Feb/2000:00:00:06 +0000] "GET /page HTTP/1.0" 200 5000
c - - [29/Feb/2000:00:00:06 +0000] "GET /unknown HTTP/1.0" 304 -
this is no line
"#;

    #[test]
    fn connections_are_found_in_a_log() {
        let trace = parse(LOG.as_bytes(), usize::MAX).unwrap();
        let starts: Vec<_> = trace.requests.iter().map(|r| r.start).collect();
        let size = |r: &Request| trace.sizes[r.target as usize];
        let sizes: Vec<_> = trace.requests.iter().map(size).collect();
        use Start::*;
        assert_eq!(
            starts,
            [
                Connection,
                Batch(1_000_000),
                Same,
                Batch(10_000_000),
                Connection,
                Connection
            ]
        );
        assert_eq!(sizes, [5_000, 100, 200, 6_000, 5_000, 5_000]);
    }

    #[test]
    fn lines_may_be_as_odd_as_clients_like() {
        let second = |text: &str| Line::parse(text.as_bytes()).map(|line| line.second);
        let with = |user: &str, date: &str| {
            second(&format!(r#"a - {user} [{date}] "GET /x HTTP/1.0" 200 1"#))
        };
        let date = "28/Feb/2000:23:59:50 +0000";
        let plain = with("-", date);
        assert_eq!(plain, seconds(date.as_bytes()));
        for user in [
            "[",
            "]",
            "[x] y",
            r#"[01/Jan/1999:00:00:00 +0000] \""#,
            "é",
            "\0",
        ] {
            assert_eq!(with(user, date), plain, "{user}");
        }
        for date in [
            "28/Feb/9223372036854775807:23:59:50 +0000",
            "28/Feb/-9223372036854775808:23:59:50 +0000",
            "9223372036854775807/Feb/2000:23:59:50 +0000",
            "28/Feb/2000:9223372036854775807:59:50 +0000",
            "28/Feb/2000:23:59:-1 +0000",
            "28/Feb/2000:23:59",
            "28/Feb/2000",
            "é/Feb/2000:23:59:50 +0000",
            "",
        ] {
            assert_eq!(with("-", date), None, "{date}");
        }
        for date in ["0/Jan/0:0:0:0 +0000", "255/Dec/65535:255:255:255 +0000"] {
            assert!(with("-", date).is_some(), "{date}");
        }
        for line in ["", "a", "] \"", "[] \"", "a [] \"\"", "a - - ] \"[\" 200"] {
            assert_eq!(second(line), None, "{line}");
        }
    }

    #[test]
    fn logs_are_read_compressed_or_not() {
        let dir = std::env::temp_dir().join(format!("lard_sim-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(LOG.as_bytes()).unwrap();
        for (name, bytes) in [("a.log", LOG.into()), ("a.log.gz", gzip.finish().unwrap())] {
            let path = dir.join(name);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path, usize::MAX).unwrap().requests.len(), 6);
            assert_eq!(read(&path, 2).unwrap().requests.len(), 2);
        }
        std::fs::write(dir.join("empty"), "").unwrap();
        assert!(read(&dir.join("empty"), usize::MAX).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn dates_are_counted_over_leap_days() {
        let at = |text: &str| seconds(text.as_bytes()).unwrap();
        let day = at("29/Feb/2000:00:00:00 +0000") - at("28/Feb/2000:00:00:00 +0000");
        assert_eq!(day, 86_400);
        let two = at("01/Mar/1900:00:00:00 +0000") - at("28/Feb/1900:00:00:00 +0000");
        assert_eq!(two, 86_400);
        let year = at("01/Jan/2001:00:00:00 +0000") - at("31/Dec/2000:23:59:59 +0000");
        assert_eq!(year, 1);
    }
}
