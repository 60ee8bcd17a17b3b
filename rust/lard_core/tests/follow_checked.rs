// SPDX-License-Identifier: GPL-2.0

//! Connections on which nothing passes that was not read: what ends them, and what does not.

use lard_core::follow::{Follow, Forbidden, Take};
use lard_core::http::{HeadParser, Status};
use lard_core::tcp::{Flags, Options, Segment, Seq};

const BASE: Seq = Seq(u32::MAX - 20);
const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const BAD: &str = "GET /10.1.0.3/a HTTP/1.1\r\nHost: h\r\n\r\n";

struct Client {
    follow: Follow,
    ring: Vec<u8>,
    at: Seq,
}

fn segment(seq: Seq, len: usize) -> Segment {
    Segment {
        src_port: 1,
        dst_port: 2,
        seq,
        ack: Seq(0),
        flags: Flags::ACK,
        window: 1,
        header_len: 20,
        payload_len: len as u32,
        options: Options::default(),
    }
}

impl Client {
    /// A connection that was handed over with `first`, a head, and `behind` it.
    fn new(first: &str, behind: &str) -> Self {
        let mut parser = HeadParser::new(4_096);
        assert_eq!(parser.feed(first.as_bytes()), Status::Complete(first.len()));
        let mut follow = Follow::new(&parser, BASE, 4_096, true);
        follow.read(&mut [], behind.as_bytes());
        let at = BASE.add((first.len() + behind.len()) as u32);
        follow.moved(at);
        Client {
            follow,
            ring: vec![0; 256],
            at,
        }
    }

    /// What becomes of a segment that is not held if it begins a request. `true` if it passes.
    fn send_at(&mut self, seq: Seq, bytes: &str) -> bool {
        let seg = segment(seq, bytes.len());
        if let Some((offset, len)) = self.follow.repeated(&seg, false) {
            let again = &bytes.as_bytes()[offset as usize..][..len as usize];
            if !self.follow.agrees(&self.ring, seq.add(offset), again) {
                return false;
            }
        }
        let offset = match self.follow.on_segment(&seg) {
            Take::Pass => return true,
            Take::Read(offset) | Take::Gather(offset) => offset,
            other => panic!("{other:?}"),
        };
        self.follow.stay();
        let new = &bytes.as_bytes()[offset as usize..];
        for piece in new.chunks(7) {
            self.follow.read(&mut self.ring, piece);
        }
        self.follow.forbidden().is_none()
    }

    fn send(&mut self, bytes: &str) -> bool {
        let at = self.at;
        self.at = at.add(bytes.len() as u32);
        self.send_at(at, bytes)
    }
}

#[test]
fn what_ends_a_connection() {
    let reserved = Some(Forbidden::Reserved);
    let unread = Some(Forbidden::Unread);
    let post = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n";
    let chunked = "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let upgrade = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    let closing = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let content = "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n";
    let connect = "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n";
    let head = "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n";
    for (first, then, ends) in [
        (GET, vec![GET, GET], None),
        (GET, vec![BAD], reserved),
        (GET, vec![GET, "\r\n", BAD], reserved),
        (
            GET,
            vec!["GET http://h/%31.2.3.4 HTTP/1.1\r\nHost: h\r\n\r\n"],
            reserved,
        ),
        (
            GET,
            vec!["POST /1.2.3.4?x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n"],
            reserved,
        ),
        (
            GET,
            vec!["GET /a/../b HTTP/1.1\r\nHost: h\r\n\r\n"],
            reserved,
        ),
        (
            GET,
            vec!["GET /a?/../1.2.3.4 HTTP/1.1\r\nHost: h\r\n\r\n"],
            None,
        ),
        (post, vec!["GET", GET], None),
        (post, vec!["abc", BAD], reserved),
        (chunked, vec!["3\r\nGET\r\n0\r\n\r\n", GET], None),
        (chunked, vec!["3\r\nGET\r\n0\r\n\r\n", BAD], reserved),
        (chunked, vec!["3;\n"], unread),
        (head, vec![head, GET, head, GET], None),
        (head, vec![head, BAD], reserved),
        (upgrade, vec![], None),
        (upgrade, vec!["x"], unread),
        (connect, vec!["x"], unread),
        (content, vec!["x"], unread),
        (closing, vec!["\r\n"], None),
        (closing, vec![GET], unread),
        (GET, vec![closing, "\nG"], unread),
        (GET, vec![upgrade, GET], unread),
        (GET, vec!["GET /\r\n"], unread),
        (GET, vec!["\u{16}\u{3}\u{1}"], unread),
        (
            GET,
            vec!["GET / HTTP/1.1\r\nHost: h\r\n x: y\r\n\r\n"],
            unread,
        ),
    ] {
        let mut client = Client::new(first, "");
        for (number, bytes) in then.iter().enumerate() {
            let passes = client.send(bytes);
            let last = number + 1 == then.len();
            assert!(passes || last, "{first:?} {then:?}: ends before {bytes:?}");
            assert_eq!(passes, !last || ends.is_none(), "{first:?} {then:?}");
        }
        assert_eq!(client.follow.forbidden(), ends, "{first:?} {then:?}");
    }
}

#[test]
fn a_first_packet_that_holds_more_than_a_request_is_looked_at_as_well() {
    for (behind, ends) in [
        (GET, None),
        (BAD, Some(Forbidden::Reserved)),
        ("\u{1}", Some(Forbidden::Unread)),
    ] {
        assert_eq!(
            Client::new(GET, behind).follow.forbidden(),
            ends,
            "{behind:?}"
        );
    }
}

#[test]
fn what_was_read_does_not_change() {
    let mut client = Client::new(GET, "");
    let at = client.at;
    assert!(client.send("GET /aa.b.c.d/a HTTP"));
    assert!(!client.send_at(at, "GET /10.1.0.3/a HTTP"));
    assert!(client.send_at(at, "GET /aa.b.c.d/a HTTP"));
    assert!(client.send_at(at.add(4), "/aa.b.c.d/"));
    // A longer one, whose beginning is another.
    assert!(!client.send_at(at, "GET /10.1.0.3/a HTTP/1.1\r\n"));
    assert!(client.send_at(at, "GET /aa.b.c.d/a HTTP/1.1\r\nHost: h\r\n\r\n"));
    // What was handed over is the server's, whatever comes.
    assert!(client.send_at(BASE, BAD.split_at(20).0));
    // Data is nothing that decides.
    let mut client = Client::new(GET, "");
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n";
    client.send(post);
    let body = client.at;
    assert!(client.send("12345") && client.send_at(body, "abcde"));
    assert!(!client.send_at(body.sub(1), "_abcde"));
    client.at = body.add(5);
    assert!(client.send(GET));
    assert!(client.send_at(body, "xyz__") && !client.send_at(body, "xyz__get"));
    client.follow.moved(client.at);
    assert!(client.send_at(body, "xyz__get"));
}

#[test]
fn nothing_passes_out_of_order_but_data() {
    let mut client = Client::new(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\n",
    );
    let early = segment(client.at.add(20), 5);
    assert_eq!(client.follow.on_segment(&early), Take::Drop);
    assert_eq!(client.follow.forbidden(), None);
    let mut client = Client::new(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\n",
        "",
    );
    assert!(client.send_at(client.at.add(20), "data"));
    assert!(client.send_at(client.at, "more"));
}

#[test]
fn sequence_numbers_are_not_stretched() {
    // Behind a chunk's frame more than 2 GiB of data.
    let mut client = Client::new(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        "",
    );
    assert!(client.send("7fffffff\r\n"));
    for _ in 0..2 {
        client.follow.skip(1 << 30);
    }
    assert_eq!(client.follow.forbidden(), Some(Forbidden::Unread));
    // A body by its length, which is the server's from its first byte on, may have any.
    let length = 1u64 << 40;
    let post = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    let mut client = Client::new(&post, "");
    for _ in 0..20 {
        client.follow.skip(1 << 30);
    }
    assert_eq!(client.follow.forbidden(), None);
}
