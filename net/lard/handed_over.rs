// SPDX-License-Identifier: GPL-2.0

//! A connection that changes hands: what HANDOFF says of it, and what of it stays with the front-end.

#![forbid(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel_net::skb::Skb;
use lard_core::addr::{ConnId, NodeId, Tuple};
use lard_core::tcp::{Forwarding, Segment, Snapshot};
use lard_core::time::Instant;
use lard_core::wire;

use crate::forward::BackEnd;
use crate::front_end::now;
use crate::hand_off::Chosen;
use crate::netns::Node;
use crate::open::{HandingOff, Open, Stage};
use crate::packet::{Flow, Packet};
use crate::stats::Counter;

/// A connection that was being given to a back-end, as one that is passed on.
pub(crate) struct HandedOver {
    pub(crate) state: Forwarding,
    pub(crate) to: Arc<BackEnd>,
    pub(crate) snapshot: Snapshot,
    pub(crate) chosen: Chosen,
    /// Packets that waited, and have something for the back-end.
    pub(crate) parked: KVec<Skb>,
}

impl Open {
    /// The hand-off to `to`, if that is what the connection waits for.
    pub(crate) fn handing_off_to(&mut self, to: NodeId) -> Option<&mut HandingOff> {
        match &mut self.stage {
            Stage::HandingOff(handing_off) if handing_off.to.node() == to => Some(handing_off),
            _ => None,
        }
    }

    /// The hand-off under way is over: what there is of it, with what the packets say that waited.
    pub(crate) fn hand_over(&mut self, node: &Node) -> Option<HandedOver> {
        let Stage::HandingOff(handing_off) = &self.stage else {
            return None;
        };
        let HandingOff {
            to,
            snapshot,
            chosen,
            ended,
        } = handing_off.clone();
        let mut state = match node.services.tells_idle() {
            true => Forwarding::new(&snapshot, now()).watched(),
            false => Forwarding::new(&snapshot, now()),
        };
        if let Some(how) = ended {
            state.ended(how, now());
        }
        let mut parked = self.take_parked();
        parked.retain(|skb| {
            let Some((_, segment)) = look(skb) else {
                node.stats.inc(Counter::NoMemory);
                return false;
            };
            state.on_segment(&segment, now());
            // What was handed over need not be passed on as well.
            segment.payload_len == 0 || segment.seq_end().after(snapshot.rcv_nxt)
        });
        Some(HandedOver {
            state,
            to,
            snapshot,
            chosen,
            parked,
        })
    }
}

/// Everything the back-end needs to continue the connection.
pub(crate) fn handoff<'a>(
    conn: ConnId,
    tuple: &Tuple,
    snapshot: &Snapshot,
    expires: Instant,
    movable: bool,
    data: &'a [u8],
) -> wire::Handoff<'a> {
    wire::Handoff {
        conn,
        tuple: *tuple,
        irs: snapshot.irs.0,
        iss: snapshot.iss.0,
        expires,
        mss: snapshot.mss,
        window: snapshot.window,
        wscale: snapshot.wscale_ok.then_some(wire::WindowScale {
            snd: snapshot.snd_wscale,
            rcv: snapshot.rcv_wscale,
        }),
        sack: snapshot.sack_ok,
        timestamps: snapshot.ts_ok.then_some(wire::Timestamps {
            recent: snapshot.ts_recent,
            sent: snapshot.last_tsval,
            unit: wire::TsUnit::Millis,
        }),
        fin: snapshot.fin,
        movable,
        data,
    }
}

/// A parked packet once more; it was looked at before it was parked, so that `None` is want of memory.
pub(crate) fn look(skb: &mut Skb) -> Option<(Flow, Segment)> {
    let Packet::Tcp(flow) = Packet::look(skb) else {
        return None;
    };
    let segment = flow.segment(skb).ok()?;
    Some((flow, segment))
}
