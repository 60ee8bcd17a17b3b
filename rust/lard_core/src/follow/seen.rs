// SPDX-License-Identifier: GPL-2.0

//! What was read of a client that is checked, for as long as it may come again.
//!
//! A segment can be lost between the front-end and the server, or the server's TCP throws it away, for
//! its timestamp for instance, and a client can see to that. Then it sends the bytes again, and they may
//! be others: what was checked is not what the server reads. So what decided is remembered, which is
//! heads and the frames of chunks, and is compared. Data may change, since nothing depends on it.
//!
//! The memory is small. What is older than it counts as changed; honest clients send again only what
//! is not acknowledged, and that is little while they wait for an answer.

use super::super::tcp::Seq;

/// Pieces in a row that are remembered: a head is one, and so is what stands between two chunks' data.
const RUNS: usize = 32;

/// Bytes in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    from: Seq,
    len: u32,
}

impl Run {
    const NONE: Run = Run {
        from: Seq(0),
        len: 0,
    };

    const fn end(self) -> Seq {
        self.from.add(self.len)
    }
}

/// Which bytes are remembered. They themselves lie in a ring of the caller's, who passes the same one
/// to every call. All positions are within 2^31 of each other.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Oldest first.
    runs: [Run; RUNS],
    used: usize,
    /// Where in the ring the oldest byte lies, and how many there are.
    start: usize,
    len: usize,
    /// What lies before this was read as well, and is not remembered.
    forgotten: Option<Seq>,
}

impl Seen {
    pub(super) const fn new() -> Self {
        Seen {
            runs: [Run::NONE; RUNS],
            used: 0,
            start: 0,
            len: 0,
            forgotten: None,
        }
    }

    /// Has nothing been noted since the last [`Seen::clear`]?
    pub(super) const fn is_empty(&self) -> bool {
        self.used == 0 && self.forgotten.is_none()
    }

    /// The server has everything: nothing of it can come again to any effect.
    pub(super) fn clear(&mut self) {
        *self = Seen::new();
    }

    /// Notes bytes that were read; none of them lie before one that was noted.
    pub(super) fn note(&mut self, ring: &mut [u8], at: Seq, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at.add(len32(bytes));
        let kept = bytes.len().min(ring.len());
        let new = bytes
            .get(bytes.len().saturating_sub(kept)..)
            .unwrap_or_default();
        if kept < bytes.len() {
            self.clear();
            self.forgotten = Some(end.sub(len32(new)));
        }
        if new.is_empty() {
            return;
        }
        let at = end.sub(len32(new));
        let room = ring.len().saturating_sub(self.len);
        self.forget(ring.len(), kept.saturating_sub(room));
        let last = self.used.checked_sub(1).and_then(|i| self.runs.get_mut(i));
        match last {
            Some(run) if run.end() == at => run.len = run.len.saturating_add(len32(new)),
            _ => self.begin(ring.len(), at, len32(new)),
        }
        for b in new {
            let place = place(self.start, self.len, ring.len());
            if let Some(place) = ring.get_mut(place) {
                *place = *b;
            }
            self.len = self.len.saturating_add(1);
        }
    }

    /// Another run.
    fn begin(&mut self, ring: usize, from: Seq, len: u32) {
        if self.used == RUNS {
            let oldest = self.runs.first().map_or(0, |run| run.len as usize);
            self.forget(ring, oldest);
        }
        if let Some(place) = self.runs.get_mut(self.used) {
            *place = Run { from, len };
            self.used = self.used.saturating_add(1);
        }
    }

    /// Forgets so many of the oldest bytes.
    fn forget(&mut self, ring: usize, count: usize) {
        let mut left = count.min(self.len);
        self.start = place(self.start, left, ring);
        self.len = self.len.saturating_sub(left);
        while left > 0 {
            let Some(run) = self.runs.first_mut().filter(|_| self.used > 0) else {
                return;
            };
            // CAST: no more than the run has.
            let n = left.min(run.len as usize) as u32;
            *run = Run {
                from: run.from.add(n),
                len: run.len.saturating_sub(n),
            };
            self.forgotten = Some(run.from);
            left = left.saturating_sub(n as usize);
            if run.len == 0 {
                self.runs.rotate_left(1);
                self.used = self.used.saturating_sub(1);
            }
        }
    }

    /// Is nothing in `bytes`, which were read before, different from what was read? Not if that is not
    /// known any more.
    pub(super) fn agrees(&self, ring: &[u8], at: Seq, bytes: &[u8]) -> bool {
        if self.forgotten.is_some_and(|before| at.before(before)) {
            return false;
        }
        let end = at.add(len32(bytes));
        let mut offset = 0usize;
        for run in self.runs.iter().take(self.used) {
            let (from, to) = (at.max(run.from), end.min(run.end()));
            if to.after(from) {
                let skipped = from.since(run.from) as usize;
                let new = bytes
                    .get(from.since(at) as usize..to.since(at) as usize)
                    .unwrap_or_default();
                let old = (0..).map(|i| {
                    let behind = offset.saturating_add(skipped).saturating_add(i);
                    ring.get(place(self.start, behind, ring.len()))
                });
                if !new.iter().map(Some).eq(old.take(new.len())) {
                    return false;
                }
            }
            offset = offset.saturating_add(run.len as usize);
        }
        true
    }
}

/// The place in a ring so far behind another one.
fn place(start: usize, behind: usize, ring: usize) -> usize {
    let place = start.saturating_add(behind);
    place.checked_rem(ring).unwrap_or_default()
}

fn len32(bytes: &[u8]) -> u32 {
    // CAST: the bytes of one segment.
    bytes.len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_read_is_compared_and_data_is_not() {
        let mut ring = [0; 16];
        let mut seen = Seen::new();
        let at = Seq(u32::MAX - 3);
        assert!(seen.is_empty());
        seen.note(&mut ring, at, b"abcdef");
        seen.note(&mut ring, at.add(10), b"xyz");
        assert!(!seen.is_empty());
        for (from, bytes, same) in [
            (0, &b"abcdef"[..], true),
            (0, b"abcdeF", false),
            (3, b"def????xyz", true),
            (3, b"def????xy!", false),
            (6, b"????", true),
            (5, b"F", false),
            (12, b"z", true),
        ] {
            assert_eq!(seen.agrees(&ring, at.add(from), bytes), same, "{bytes:?}");
        }
        // Sixteen bytes are full: the first of them give way.
        seen.note(&mut ring, at.add(13), b"0123456789");
        assert!(!seen.agrees(&ring, at.add(2), b"c"));
        assert!(seen.agrees(&ring, at.add(3), b"def????xyz0123456789"));
        assert!(!seen.agrees(&ring, at.add(3), b"def????xyz012345678!"));
        seen.clear();
        assert!(seen.is_empty() && seen.agrees(&ring, at, b"other"));
    }

    #[test]
    fn more_than_there_is_room_for_leaves_the_end() {
        let mut ring = [0; 4];
        let mut seen = Seen::new();
        seen.note(&mut ring, Seq(0), b"0123456789");
        assert!(!seen.agrees(&ring, Seq(5), b"5"));
        assert!(seen.agrees(&ring, Seq(6), b"6789") && !seen.agrees(&ring, Seq(6), b"678?"));
        // Without a ring nothing is known.
        let mut seen = Seen::new();
        seen.note(&mut [], Seq(0), b"0");
        assert!(!seen.agrees(&[], Seq(0), b"0"));
    }

    proptest! {
        /// Against all that was noted, with every byte's place.
        #[test]
        fn a_change_is_found_or_the_place_forgotten(
            size in 1usize..40,
            base in any::<u32>(),
            pieces in prop::collection::vec((0u32..4, 1usize..12), 1..60),
            probes in prop::collection::vec((any::<prop::sample::Index>(), 1usize..20, any::<bool>()), 20),
        ) {
            let mut ring = vec![0; size];
            let mut seen = Seen::new();
            let mut all: Vec<Option<u8>> = Vec::new();
            for (number, (gap, len)) in pieces.into_iter().enumerate() {
                all.extend((0..gap).map(|_| None));
                let bytes: Vec<u8> = (0..len).map(|i| (number * 31 + i) as u8).collect();
                seen.note(&mut ring, Seq(base).add(all.len() as u32), &bytes);
                all.extend(bytes.into_iter().map(Some));
            }
            for (index, len, change) in probes {
                let from = index.index(all.len());
                let part = &all[from..(from + len).min(all.len())];
                let mut bytes: Vec<u8> = part.iter().map(|b| b.unwrap_or(7)).collect();
                let place = part.iter().position(Option::is_some);
                if let (Some(place), true) = (place, change) {
                    bytes[place] ^= 1;
                    prop_assert!(!seen.agrees(&ring, Seq(base).add(from as u32), &bytes));
                } else if from >= all.len().saturating_sub(size) && all.len() <= size {
                    prop_assert!(seen.agrees(&ring, Seq(base).add(from as u32), &bytes));
                }
            }
            // The newest are known.
            let known = all.iter().rev().take_while(|b| b.is_some()).count().min(size);
            let tail: Vec<u8> = all[all.len() - known..].iter().map(|b| b.unwrap()).collect();
            prop_assert!(seen.agrees(&ring, Seq(base).add((all.len() - known) as u32), &tail));
        }
    }
}
