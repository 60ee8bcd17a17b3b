// SPDX-License-Identifier: GPL-2.0

//! The front-end's connections: one hash table from the client's packets to what becomes of them.
//!
//! # Layout
//!
//! An array of buckets, each a short chain under a lock of its own. The bucket's index is part of
//! the connection's id, so a message of the control connections finds its entry without a second
//! index. Nothing is allocated on look-up; an entry in forwarding state is one small object.
//!
//! # Timers
//!
//! Every entry has a deadline, and every group of [`GROUP`] buckets remembers a time before which
//! none of its entries is due; every range of [`RANGE`] groups does, too. Packets push an entry's
//! deadline later without touching the group, so a busy connection costs nothing; the tick visits
//! only ranges, and in them groups, whose time has come and computes it anew. There is no timer
//! object an entry.
//!
//! # Locking
//!
//! Under a bucket's lock questions and hand-offs are queued, routes looked up, and the locks taken that
//! [`crate::netns`] has below it; nothing is sent or injected. Buckets are taken from softirq and, with
//! bottom halves off, from kernel threads; two at a time never.

#![forbid(unsafe_code)]

use kernel::alloc::flags::{GFP_ATOMIC, GFP_KERNEL};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel_net::hash::HashKey;
use kernel_net::skb::Skb;
use kernel_net::sync::{BhGuard, BhLock, ModuleRef};
use lard_core::addr::{ConnId, NodeId, Tuple};
use lard_core::time::Instant;

use crate::front_end::{now, State};
use crate::line::Line;
use crate::open::{quiet, Open};
use crate::persist::Origin;
use crate::stats::{Counter, Stats};

/// Buckets that share one "nothing is due before" time. Few, since each is locked when it has come,
/// and with short connections it comes for nearly every one.
const GROUP: usize = 4;

/// Groups that share another one, so that the tick finds out with few looks that nothing is due.
const RANGE: usize = 32;

/// log2 of the number of buckets: 65,536 of 16 bytes. A hundred thousand connections make chains
/// of one or two entries. At most 20 bits fit a connection id.
const BUCKET_BITS: u32 = 16;

pub(crate) const BUCKETS: usize = 1 << BUCKET_BITS;

/// One connection of a client.
pub(crate) struct Entry {
    next: Chain,
    id: ConnId,
    tuple: Tuple,
    born: Instant,
    deadline: Instant,
    pub(crate) state: State,
    /// Packets to pass on in their order, while somebody does.
    line: Option<KBox<Line>>,
    /// The module cannot be unloaded while somebody depends on it.
    _module: ModuleRef,
}

type Chain = Option<KBox<Entry>>;

/// A connection that is passed on is this object and nothing else, and there can be millions; it has a
/// slab of this size.
const _: () = assert!(size_of::<Entry>() <= 128);

impl Entry {
    pub(crate) fn id(&self) -> ConnId {
        self.id
    }

    pub(crate) fn tuple(&self) -> &Tuple {
        &self.tuple
    }

    /// The connection before its hand-off, if it is not over yet.
    pub(crate) fn open_mut(&mut self) -> Option<(Tuple, &mut Open)> {
        match &mut self.state {
            State::Open(open) => Some((self.tuple, open)),
            State::Forward(_) => None,
        }
    }

    /// Packets that waited are the connection's next ones. Returns whether the caller has to see to
    /// them, with [`FrontEnd::pass_on`](crate::front_end::FrontEnd::pass_on); else somebody does already.
    #[must_use]
    pub(crate) fn put_first(&mut self, stats: &Stats, packets: KVec<Skb>, from: Origin) -> bool {
        if packets.is_empty() {
            return false;
        }
        let nobody = self.line.is_none();
        if nobody {
            self.line = KBox::new(Line::new(), quiet()).ok();
        }
        match &mut self.line {
            Some(line) => line.put_first(stats, packets, from),
            // It is as if they had been lost.
            None => stats.add(Counter::NoMemory, packets.len() as u64),
        }
        nobody && self.line.is_some()
    }

    /// The line that a packet from the network has to get in, if there is one.
    pub(crate) fn line(&mut self) -> Option<&mut Line> {
        self.line.as_deref_mut()
    }

    /// Takes the next packet to be passed on; with the last one the line is gone.
    pub(crate) fn next_in_line(&mut self) -> Option<(Skb, Origin)> {
        let next = self.line.as_mut()?.next();
        if next.is_none() {
            self.line = None;
        }
        next
    }

    /// When its first packet came.
    pub(crate) fn born(&self) -> Instant {
        self.born
    }

    /// When the tick will look at the entry; see [`Bucket::set_deadline`] for moving it.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// The table of one namespace.
pub(crate) struct ConnTable {
    buckets: KVVec<BhLock<Chain>>,
    /// A time a group.
    due: KVVec<Atomic<u64>>,
    /// A time a range. Whoever lowers a group's lowers its range's after it, and the tick takes a
    /// range's before it reads its groups', all fully ordered: no time is lost in between.
    range_due: KVVec<Atomic<u64>>,
    key: HashKey,
    node: Atomic<u32>,
    generation: Atomic<u32>,
    len: Atomic<u32>,
}

/// A locked bucket: what can be done to the entries of one hash value.
pub(crate) struct Bucket<'a> {
    chain: BhGuard<'a, Chain>,
    table: &'a ConnTable,
    index: usize,
}

impl ConnTable {
    /// An empty table. May sleep.
    pub(crate) fn new() -> Result<Self> {
        let mut buckets = KVVec::with_capacity(BUCKETS, GFP_KERNEL)?;
        for _ in 0..BUCKETS {
            buckets.push(kernel_net::new_bh_lock!(None, c"lard:bucket"), GFP_KERNEL)?;
        }
        let mut due = KVVec::with_capacity(BUCKETS / GROUP, GFP_KERNEL)?;
        for _ in 0..BUCKETS / GROUP {
            due.push(Atomic::new(u64::MAX), GFP_KERNEL)?;
        }
        let mut range_due = KVVec::with_capacity(BUCKETS / GROUP / RANGE, GFP_KERNEL)?;
        for _ in 0..BUCKETS / GROUP / RANGE {
            range_due.push(Atomic::new(u64::MAX), GFP_KERNEL)?;
        }
        Ok(Self {
            buckets,
            due,
            range_due,
            key: HashKey::random(),
            node: Atomic::new(0),
            // A restarted front-end must not re-use the ids its peers still hold.
            generation: Atomic::new(kernel_net::random::u32()),
            len: Atomic::new(0),
        })
    }

    /// Sets the node that the ids of new entries name. Ids of before are unknown from then on; a
    /// node that joins again keeps its number.
    pub(crate) fn set_node(&self, node: NodeId) {
        self.node.store(u32::from(node.0), Relaxed);
    }

    fn node(&self) -> NodeId {
        // CAST: it was stored from one.
        NodeId(self.node.load(Relaxed) as u16)
    }

    /// Entries in the table.
    pub(crate) fn len(&self) -> u32 {
        self.len.load(Relaxed)
    }

    /// Locks the bucket of a connection.
    pub(crate) fn bucket(&self, tuple: &Tuple) -> Option<Bucket<'_>> {
        self.lock(self.key.hash(words(tuple)) as usize & (BUCKETS - 1))
    }

    /// Locks the bucket that an id of this table names; `None` for an id of another node or table.
    pub(crate) fn bucket_of(&self, id: ConnId) -> Option<Bucket<'_>> {
        if id.node() != self.node() {
            return None;
        }
        self.lock(id.bucket() as usize)
    }

    fn lock(&self, index: usize) -> Option<Bucket<'_>> {
        Some(Bucket {
            chain: self.buckets.get(index)?.lock(),
            table: self,
            index,
        })
    }

    /// Drops all entries. Link by link: the compiler's own drop would recurse along a chain.
    pub(crate) fn clear(&self) {
        for bucket in self.buckets.iter() {
            let mut chain = bucket.lock().take();
            while let Some(mut entry) = chain {
                chain = entry.next.take();
                self.len.fetch_add(u32::MAX, Relaxed);
            }
        }
    }

    /// Collects up to the capacity of `ids` of entries that are due. Returns whether there may be
    /// more. Takes bucket locks one after the other.
    pub(crate) fn due(&self, now: Instant, ids: &mut KVec<ConnId>) -> bool {
        ids.clear();
        let ranges = self.range_due.iter().zip(self.due.chunks(RANGE));
        for (range, (range_due, groups)) in ranges.enumerate() {
            if range_due.load(Relaxed) > now.as_micros() {
                continue;
            }
            // Whoever inserts meanwhile lowers the time again.
            range_due.xchg(u64::MAX, Full);
            let mut earliest = u64::MAX;
            for (group, due) in groups.iter().enumerate() {
                if due.load(Relaxed) <= now.as_micros()
                    && !self.due_in_group(range * RANGE + group, due, now, ids)
                {
                    lower(range_due, 0);
                    return true;
                }
                earliest = earliest.min(due.load(Relaxed));
            }
            lower(range_due, earliest);
        }
        false
    }

    /// The same in one group, whose time is `due`; `false` when `ids` is full before its end.
    fn due_in_group(
        &self,
        group: usize,
        due: &Atomic<u64>,
        now: Instant,
        ids: &mut KVec<ConnId>,
    ) -> bool {
        // As above; the lock of the entry's bucket orders it.
        due.store(u64::MAX, Relaxed);
        let mut earliest = u64::MAX;
        for index in group * GROUP..(group + 1) * GROUP {
            let Some(bucket) = self.lock(index) else {
                continue;
            };
            let mut chain = bucket.chain.as_ref();
            while let Some(entry) = chain {
                if entry.deadline <= now {
                    if ids.len() == ids.capacity() {
                        lower(due, 0);
                        return false;
                    }
                    // Within the capacity, so it allocates nothing and cannot fail.
                    let _ = ids.push(entry.id, GFP_ATOMIC);
                }
                earliest = earliest.min(entry.deadline.as_micros());
                chain = entry.next.as_ref();
            }
        }
        lower(due, earliest);
        true
    }

    /// Calls `f` for each entry, a bucket at a time, for `most` buckets from `from` on, until it returns
    /// `false`; returns the bucket to go on from, or `None` at the end of the table.
    pub(crate) fn visit(
        &self,
        from: usize,
        most: usize,
        mut f: impl FnMut(&Entry) -> bool,
    ) -> Option<usize> {
        let end = from.saturating_add(most).min(BUCKETS);
        for index in from..end {
            let Some(bucket) = self.lock(index) else {
                break;
            };
            let mut chain = bucket.chain.as_ref();
            while let Some(entry) = chain {
                if !f(entry) {
                    return Some(index);
                }
                chain = entry.next.as_ref();
            }
        }
        (end < BUCKETS).then_some(end)
    }
}

impl<'a> Bucket<'a> {
    pub(crate) fn find(&mut self, tuple: &Tuple) -> Option<&mut Entry> {
        self.find_by(|e| e.tuple == *tuple)
    }

    pub(crate) fn find_id(&mut self, id: ConnId) -> Option<&mut Entry> {
        self.find_by(|e| e.id == id)
    }

    fn find_by(&mut self, is: impl Fn(&Entry) -> bool) -> Option<&mut Entry> {
        let mut chain = self.chain.as_mut();
        while let Some(entry) = chain {
            if is(entry) {
                return Some(entry);
            }
            chain = entry.next.as_mut();
        }
        None
    }

    /// Adds a connection that is not in the bucket yet. `None` without memory.
    pub(crate) fn insert(
        &mut self,
        tuple: Tuple,
        state: State,
        deadline: Instant,
    ) -> Option<ConnId> {
        let generation = self.table.generation.fetch_add(1, Relaxed);
        let id = ConnId::new(self.table.node(), self.index as u32, generation);
        let _module = ModuleRef::try_get()?;
        let entry = Entry {
            next: None,
            id,
            tuple,
            born: now(),
            deadline,
            state,
            line: None,
            _module,
        };
        let mut entry = KBox::new(entry, quiet()).ok()?;
        entry.next = self.chain.take();
        *self.chain = Some(entry);
        self.table.len.fetch_add(1, Relaxed);
        self.lower_group(deadline);
        Some(id)
    }

    /// Takes a connection out; the caller drops it after the bucket.
    pub(crate) fn remove(&mut self, id: ConnId) -> Option<KBox<Entry>> {
        let mut link: &mut Chain = &mut self.chain;
        while link.as_ref().is_some_and(|e| e.id != id) {
            match link {
                Some(entry) => link = &mut entry.next,
                None => return None,
            }
        }
        let mut entry = link.take()?;
        *link = entry.next.take();
        self.table.len.fetch_add(u32::MAX, Relaxed);
        Some(entry)
    }

    /// Sets when the tick looks at the connection, earlier or later.
    pub(crate) fn set_deadline(&mut self, id: ConnId, deadline: Instant) {
        if let Some(entry) = self.find_id(id) {
            entry.deadline = deadline;
            self.lower_group(deadline);
        }
    }

    fn lower_group(&self, deadline: Instant) {
        let group = self.index / GROUP;
        let times = [
            self.table.due.get(group),
            self.table.range_due.get(group / RANGE),
        ];
        for due in times.into_iter().flatten() {
            lower(due, deadline.as_micros());
        }
    }
}

/// What is hashed of a connection. The VIP is the administrator's choice, so mixing the upper half of
/// its address with the client's leaves the client's all its variety; of IPv4 both are constant.
fn words(tuple: &Tuple) -> [u64; 4] {
    let [client_high, client_low] = tuple.client.addr.to_words();
    let [vip_high, vip_low] = tuple.vip.addr.to_words();
    let ports = u64::from(tuple.client.port) << 16 | u64::from(tuple.vip.port);
    [
        client_high ^ vip_high.rotate_left(32),
        client_low,
        vip_low,
        ports,
    ]
}

/// Lowers `due` to `to` unless it is lower already.
fn lower(due: &Atomic<u64>, to: u64) {
    let mut seen = due.load(Relaxed);
    while to < seen {
        match due.cmpxchg(seen, to, Full) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

impl Drop for ConnTable {
    fn drop(&mut self) {
        self.clear();
    }
}
