// SPDX-License-Identifier: GPL-2.0

//! The cases of Documentation/networking/lard-framing.rst, one for each row of its tables: what is
//! sent, and what is decided, on the first request of a connection and on a later one.

use lard_core::http::{target, Event, Framer, HeadParser, Status};
use std::collections::BTreeMap;
use Bytes::{Chunks, Fields, Long, Whole};

const LIMIT: usize = 8_192;

/// What stands before and behind a case.
const PLAIN: &[u8] = b"GET /plain HTTP/1.1\r\nHost: h\r\n\r\n";

/// What a case sends.
enum Bytes {
    /// All of it.
    Whole(&'static [u8]),
    /// A POST with these fields, and what is behind its head.
    Fields(&'static [u8], &'static [u8]),
    /// What is behind the head of a POST that announces chunks.
    Chunks(&'static [u8]),
    /// The first, so many times `a`, and the rest.
    Long(&'static Bytes, usize, &'static [u8]),
}

impl Bytes {
    fn get(&self) -> Vec<u8> {
        const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\n";
        match self {
            Whole(bytes) => bytes.to_vec(),
            Fields(fields, behind) => [POST, fields, b"\r\n", behind].concat(),
            Chunks(body) => [POST, b"Transfer-Encoding: chunked\r\n\r\n", body].concat(),
            Long(before, count, behind) => {
                [&before.get()[..], &b"a".repeat(*count), behind].concat()
            }
        }
    }
}

/// Name, bytes, decision on the first request and on a later one.
type Case = (&'static str, Bytes, &'static str, &'static str);

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Content-Length and Transfer-Encoding
    ("cl-te", Fields(b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\nG"), "400 length-conflict", "pinned head: length-conflict"),
    ("te-cl", Fields(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"1\r\nG\r\n0\r\n\r\n"), "400 length-conflict", "pinned head: length-conflict"),
    ("cl-cl", Fields(b"Content-Length: 0\r\nContent-Length: 35\r\n", b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"), "400 content-length", "pinned head: content-length"),
    ("cl-cl-same", Fields(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"abcde"), "400 content-length", "pinned head: content-length"),
    ("cl-list", Fields(b"Content-Length: 5, 5\r\n", b"abcde"), "400 content-length", "pinned head: content-length"),
    ("cl-plus", Fields(b"Content-Length: +5\r\n", b"abcde"), "400 content-length", "pinned head: content-length"),
    ("cl-minus", Fields(b"Content-Length: -5\r\n", b"abcde"), "400 content-length", "pinned head: content-length"),
    ("cl-space", Fields(b"Content-Length: 5 5\r\n", b"abcde"), "400 content-length", "pinned head: content-length"),
    ("cl-hex", Fields(b"Content-Length: 0x5\r\n", b"abcde"), "400 content-length", "pinned head: content-length"),
    ("cl-octal", Fields(b"Content-Length: 010\r\n", b"abcdefgh"), "400 content-length", "pinned head: content-length"),
    ("cl-group", Fields(b"Content-Length: 1_0\r\n", b"abcdefghij"), "400 content-length", "pinned head: content-length"),
    ("cl-exponent", Fields(b"Content-Length: 1e1\r\n", b"abcdefghij"), "400 content-length", "pinned head: content-length"),
    ("cl-quoted", Fields(b"Content-Length: \"5\"\r\n", b"abcde"), "400 content-length", "pinned head: content-length"),
    ("cl-empty", Fields(b"Content-Length:\r\n", b""), "400 content-length", "pinned head: content-length"),
    ("cl-63-bit", Fields(b"Content-Length: 9223372036854775808\r\n", b""), "400 content-length", "pinned head: content-length"),
    ("cl-64-bit", Fields(b"Content-Length: 18446744073709551621\r\n", b"abcde"), "400 content-length", "pinned head: content-length"),
    ("cl-vertical-tab", Fields(b"Content-Length:\x0b5\r\n", b"abcde"), "400 field-value", "pinned head: field-value"),
    ("cl-no-break-space", Fields(b"Content-Length:\xa05\r\n", b"abcde"), "400 content-length", "pinned head: content-length"),
    ("cl-underscore", Fields(b"Content_Length: 5\r\n", b"abcde"), "400 field-name", "pinned head: field-name"),
    ("cl-space-colon", Fields(b"Content-Length : 5\r\n", b"abcde"), "400 space-before-colon", "pinned head: space-before-colon"),
    ("cl-folded-in", Whole(b"POST / HTTP/1.1\r\nHost: h\r\nX: x\r\n Content-Length: 5\r\n\r\nabcde"), "400 fold", "pinned head: fold"),
    ("cl-none", Fields(b"", b""), "followed", "followed"),
    ("cl-zero", Fields(b"Content-Length: 0\r\n", b""), "followed", "followed"),
    ("cl", Fields(b"Content-Length: 35\r\n", b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"), "followed", "followed"),
    ("cl-0-get", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"), "pinned content", "pinned content"),
    ("cl-0-head", Whole(b"HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"), "pinned content", "pinned content"),
    ("cl-0-delete", Whole(b"DELETE / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "pinned content", "pinned content"),
    ("cl-0-trace", Whole(b"TRACE / HTTP/1.1\r\nHost: h\r\nContent-Length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"), "pinned content", "pinned content"),
    ("cl-options", Whole(b"OPTIONS / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"), "followed", "followed"),
    // Transfer-Encoding, disguised (TE.TE)
    ("te", Fields(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"), "followed", "followed"),
    ("te-case", Fields(b"tRANSFER-eNCODING: cHUNKED\r\n", b"0\r\n\r\n"), "followed", "followed"),
    ("te-tab", Fields(b"Transfer-Encoding:\t chunked\t\r\n", b"0\r\n\r\n"), "followed", "followed"),
    ("te-xchunked", Fields(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-chunk", Fields(b"Transfer-Encoding: chunk\r\n", b"0\r\n\r\n"), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-identity", Fields(b"Transfer-Encoding: identity\r\n", b""), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-identity-chunked", Fields(b"Transfer-Encoding: identity, chunked\r\n", b"0\r\n\r\n"), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-chunked-identity", Fields(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-gzip-chunked", Fields(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-twice", Fields(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), "400 transfer-encoding", "pinned head: transfer-encoding"),
    ("te-two-fields", Fields(b"Transfer-Encoding: chunked\r\nTransfer-encoding: x\r\n", b"0\r\n\r\n"), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-two-fields-first", Fields(b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-comma", Fields(b"Transfer-Encoding: ,chunked\r\n", b"0\r\n\r\n"), "400 transfer-encoding", "pinned head: transfer-encoding"),
    ("te-empty", Fields(b"Transfer-Encoding:\r\n", b""), "400 transfer-encoding", "pinned head: transfer-encoding"),
    ("te-quoted", Fields(b"Transfer-Encoding: \"chunked\"\r\n", b"0\r\n\r\n"), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-parameter", Fields(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-two-words", Fields(b"Transfer-Encoding: chunked x\r\n", b"0\r\n\r\n"), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-vertical-tab", Fields(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), "400 field-value", "pinned head: field-value"),
    ("te-nul", Fields(b"Transfer-Encoding: chunked\0\r\n", b"0\r\n\r\n"), "400 field-value", "pinned head: field-value"),
    ("te-high-byte", Fields(b"Transfer-Encoding: chunked\xff\r\n", b"0\r\n\r\n"), "501 transfer-coding", "pinned head: transfer-coding"),
    ("te-fold", Fields(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), "400 transfer-encoding", "pinned head: transfer-encoding"),
    ("te-folded-in", Fields(b"X: x\r\n\tTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), "400 fold", "pinned head: fold"),
    ("te-space-colon", Fields(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), "400 space-before-colon", "pinned head: space-before-colon"),
    ("te-tab-colon", Fields(b"Transfer-Encoding\t: chunked\r\n", b"0\r\n\r\n"), "400 space-before-colon", "pinned head: space-before-colon"),
    ("te-space-name", Fields(b"Transfer Encoding: chunked\r\n", b"0\r\n\r\n"), "400 space-before-colon", "pinned head: space-before-colon"),
    ("te-underscore", Fields(b"Transfer_Encoding: chunked\r\n", b"0\r\n\r\n"), "400 field-name", "pinned head: field-name"),
    ("te-name-nul", Fields(b"Transfer-Encoding\0: chunked\r\n", b"0\r\n\r\n"), "400 field-name", "pinned head: field-name"),
    ("te-name-high-byte", Fields(b"Transfer-Encoding\xa0: chunked\r\n", b"0\r\n\r\n"), "400 field-name", "pinned head: field-name"),
    ("te-no-colon", Fields(b"Transfer-Encoding chunked\r\n", b"0\r\n\r\n"), "400 space-before-colon", "pinned head: space-before-colon"),
    ("te-behind-lf", Fields(b"X: x\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), "400 bare-lf", "pinned head: bare-lf"),
    ("te-behind-cr", Fields(b"X: x\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), "400 bare-cr", "pinned head: bare-cr"),
    ("te-http10", Whole(b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "400 transfer-encoding", "pinned head: transfer-encoding"),
    ("te-other-name", Fields(b"Content-Encoding: chunked\r\n", b""), "followed", "followed"),
    // Chunks
    ("chunk-upper", Chunks(b"A\r\n0123456789\r\n0\r\n\r\n"), "followed", "followed"),
    ("chunk-zeros", Chunks(b"00000003\r\nabc\r\n000\r\n\r\n"), "followed", "followed"),
    ("chunk-many-zeros", Chunks(b"000000003\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-32-bit", Chunks(b"100000003\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-31-bit", Chunks(b"80000000\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-64-bit", Chunks(b"10000000000000003\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-prefix", Chunks(b"0x3\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-plus", Chunks(b"+3\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-minus", Chunks(b"-3\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-group", Chunks(b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-no-size", Chunks(b"\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-other-digit", Chunks(b"3g\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-space-before", Chunks(b" 3\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-space-behind", Chunks(b"3 \r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-tab-behind", Chunks(b"3\t\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-nul-behind", Chunks(b"3\0\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-size-lf", Chunks(b"3\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-size-cr", Chunks(b"3\rabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-size-cr-cr", Chunks(b"3\r\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-data-long", Chunks(b"3\r\nabcd\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-data-lf", Chunks(b"3\r\nabc\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-data-cr", Chunks(b"3\r\nabc\rx0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-data-any-two", Chunks(b"3\r\nabcxx0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-data-none", Chunks(b"3\r\nabc0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("chunk-last-lf", Chunks(b"0\n\n"), "pinned chunk", "pinned chunk"),
    ("chunk-end-lf", Chunks(b"0\r\n\n"), "pinned chunk", "pinned chunk"),
    ("chunk-end-cr", Chunks(b"0\r\n\rx"), "pinned chunk", "pinned chunk"),
    ("chunk-end-none", Chunks(b"0\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"), "pinned chunk", "pinned chunk"),
    // Chunk extensions
    ("extension", Chunks(b"3;name=value;flag\r\nabc\r\n0;last\r\n\r\n"), "followed", "followed"),
    ("extension-empty", Chunks(b"3;\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("extension-no-value", Chunks(b"3;a=\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("extension-space", Chunks(b"3 ; a = b\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("extension-quoted", Chunks(b"3;a=\"b\"\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("extension-lf", Chunks(b"3;a\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("extension-lf-spill", Chunks(b"2;\nxx\r\n23\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("extension-cr", Chunks(b"3;a\rb\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("extension-nul", Chunks(b"3;a\0\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("extension-high-byte", Chunks(b"3;a\xff\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("extension-long", Long(&Chunks(b"3;"), 4097, b"\r\nabc\r\n0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    // Trailers
    ("trailer", Chunks(b"0\r\nChecksum: abc\r\nX:\r\n\r\n"), "followed", "followed"),
    ("trailer-cl", Chunks(b"0\r\nContent-Length: 5\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("trailer-te", Chunks(b"0\r\nTransfer-Encoding: chunked\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("trailer-host", Chunks(b"0\r\nHost: other\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("trailer-connection", Chunks(b"0\r\nConnection: close\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("trailer-underscore", Chunks(b"0\r\nContent_Length: 5\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("trailer-space-colon", Chunks(b"0\r\nX : y\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("trailer-no-colon", Chunks(b"0\r\nX\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("trailer-fold", Chunks(b"0\r\nX: y\r\n z\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("trailer-lf", Chunks(b"0\r\nX: y\n\r\n"), "pinned chunk", "pinned chunk"),
    ("trailer-cr", Chunks(b"0\r\nX: y\rz\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("trailer-nul", Chunks(b"0\r\nX: \0\r\n\r\n"), "pinned chunk", "pinned chunk"),
    ("trailer-long", Long(&Chunks(b"0\r\nX: "), 4096, b"\r\n\r\n"), "pinned chunk", "pinned chunk"),
    // Request line
    ("line-empty-before", Whole(b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"), "followed", "followed"),
    ("line-many-empty", Whole(b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"), "400 empty-lines", "pinned head: empty-lines"),
    ("line-lf-before", Whole(b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"), "400 bare-lf", "pinned head: bare-lf"),
    ("line-cr-before", Whole(b"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n"), "400 bare-cr", "pinned head: bare-cr"),
    ("line-space-before", Whole(b" GET / HTTP/1.1\r\nHost: h\r\n\r\n"), "400 method", "pinned head: method"),
    ("line-two-spaces", Whole(b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n"), "400 target", "pinned head: target"),
    ("line-tab", Whole(b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"), "400 method", "pinned head: method"),
    ("line-space-behind", Whole(b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n"), "400 version", "pinned head: version"),
    ("line-space-target", Whole(b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"), "400 version", "pinned head: version"),
    ("line-lf", Whole(b"GET / HTTP/1.1\nHost: h\r\n\r\n"), "400 bare-lf", "pinned head: bare-lf"),
    ("line-cr-cr", Whole(b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n"), "400 bare-cr", "pinned head: bare-cr"),
    ("line-nul-target", Whole(b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n"), "400 target", "pinned head: target"),
    ("line-high-byte-target", Whole(b"GET /\xe4 HTTP/1.1\r\nHost: h\r\n\r\n"), "400 target", "pinned head: target"),
    ("line-fragment", Whole(b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"), "400 target", "pinned head: target"),
    ("line-cr-target", Whole(b"GET /\rX: HTTP/1.1\r\nHost: h\r\n\r\n"), "400 version", "pinned head: version"),
    ("line-method", Whole(b"G(T / HTTP/1.1\r\nHost: h\r\n\r\n"), "400 method", "pinned head: method"),
    ("line-method-long", Whole(b"XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX / HTTP/1.1\r\nHost: h\r\n\r\n"), "501 method-too-long", "pinned head: method-too-long"),
    ("line-http09", Whole(b"GET /\r\n"), "400 version", "pinned head: version"),
    ("line-http09-version", Whole(b"GET / HTTP/0.9\r\nHost: h\r\n\r\n"), "505 version-unsupported", "pinned head: version-unsupported"),
    ("line-http12", Whole(b"GET / HTTP/1.2\r\nHost: h\r\n\r\n"), "505 version-unsupported", "pinned head: version-unsupported"),
    ("line-http20", Whole(b"GET / HTTP/2.0\r\nHost: h\r\n\r\n"), "505 version-unsupported", "pinned head: version-unsupported"),
    ("line-http110", Whole(b"GET / HTTP/1.10\r\nHost: h\r\n\r\n"), "400 version", "pinned head: version"),
    ("line-http-lower", Whole(b"GET / http/1.1\r\nHost: h\r\n\r\n"), "400 version", "pinned head: version"),
    ("line-absolute", Whole(b"GET http://h/a HTTP/1.1\r\nHost: h\r\n\r\n"), "followed", "followed"),
    ("line-absolute-other", Whole(b"GET http://other/a HTTP/1.1\r\nHost: h\r\n\r\n"), "400 host-mismatch", "pinned head: host-mismatch"),
    ("line-absolute-user", Whole(b"GET http://h@other/a HTTP/1.1\r\nHost: h\r\n\r\n"), "400 host", "pinned head: host"),
    ("line-absolute-scheme", Whole(b"GET ftp://h/a HTTP/1.1\r\nHost: h\r\n\r\n"), "400 target", "pinned head: target"),
    ("line-no-slash", Whole(b"GET a HTTP/1.1\r\nHost: h\r\n\r\n"), "400 target", "pinned head: target"),
    ("line-at", Whole(b"GET @other/ HTTP/1.1\r\nHost: h\r\n\r\n"), "400 target", "pinned head: target"),
    ("line-asterisk", Whole(b"GET * HTTP/1.1\r\nHost: h\r\n\r\n"), "400 target", "pinned head: target"),
    // Fields
    ("field-space-first", Whole(b"GET / HTTP/1.1\r\n Host: h\r\n\r\n"), "400 fold", "pinned head: fold"),
    ("field-fold", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n"), "400 fold", "pinned head: fold"),
    ("field-lf", Whole(b"GET / HTTP/1.1\r\nHost: h\nX: a\r\n\r\n"), "400 bare-lf", "pinned head: bare-lf"),
    ("field-cr", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rY: b\r\n\r\n"), "400 bare-cr", "pinned head: bare-cr"),
    ("field-lf-request", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nX: a\n\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"), "400 bare-lf", "pinned head: bare-lf"),
    ("field-crlf-request", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nX: a%0d%0a%0d%0aGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"), "400 duplicate-host", "pinned head: duplicate-host"),
    ("field-nul", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n"), "400 field-value", "pinned head: field-value"),
    ("field-control", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x1bb\r\n\r\n"), "400 field-value", "pinned head: field-value"),
    ("field-obs-text", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nX: \xe4\r\n\r\n"), "followed", "followed"),
    ("field-space-colon", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n"), "400 space-before-colon", "pinned head: space-before-colon"),
    ("field-no-colon", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n"), "400 field-name", "pinned head: field-name"),
    ("field-no-name", Whole(b"GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n"), "400 field-name", "pinned head: field-name"),
    ("field-name", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nX@: a\r\n\r\n"), "400 field-name", "pinned head: field-name"),
    ("field-end-lf", Whole(b"GET / HTTP/1.1\r\nHost: h\r\n\n"), "400 bare-lf", "pinned head: bare-lf"),
    ("field-end-cr", Whole(b"GET / HTTP/1.1\r\nHost: h\r\n\rx"), "400 bare-cr", "pinned head: bare-cr"),
    ("field-too-large", Long(&Whole(b"GET / HTTP/1.1\r\nHost: h\r\nX: "), 8192, b"\r\n\r\n"), "431 too-large", "pinned head: too-large"),
    ("host-none", Whole(b"GET / HTTP/1.1\r\n\r\n"), "400 no-host", "pinned head: no-host"),
    ("host-two", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nHost: other\r\n\r\n"), "400 duplicate-host", "pinned head: duplicate-host"),
    ("host-list", Whole(b"GET / HTTP/1.1\r\nHost: h, other\r\n\r\n"), "400 host", "pinned head: host"),
    ("host-user", Whole(b"GET / HTTP/1.1\r\nHost: h@other\r\n\r\n"), "400 host", "pinned head: host"),
    ("host-path", Whole(b"GET / HTTP/1.1\r\nHost: h/other\r\n\r\n"), "400 host", "pinned head: host"),
    ("host-port", Whole(b"GET / HTTP/1.1\r\nHost: h:80x\r\n\r\n"), "400 host", "pinned head: host"),
    // The connection
    ("connection-keep", Whole(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), "followed", "followed"),
    ("connection-old", Whole(b"GET / HTTP/1.0\r\n\r\n"), "pinned closing", "pinned closing"),
    ("connection-close", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"), "pinned closing", "pinned closing"),
    ("connection-both", Whole(b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"), "pinned closing", "pinned closing"),
    ("connection-names-length", Fields(b"Connection: Content-Length\r\nContent-Length: 3\r\n", b"abc"), "followed", "followed"),
    ("upgrade", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), "pinned upgrade", "pinned upgrade"),
    ("upgrade-h2c", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"), "pinned upgrade", "pinned upgrade"),
    ("upgrade-h2c-unnamed", Whole(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n"), "pinned upgrade", "pinned upgrade"),
    ("upgrade-http10", Whole(b"GET / HTTP/1.0\r\nConnection: keep-alive, upgrade\r\nUpgrade: websocket\r\n\r\n"), "pinned upgrade", "pinned upgrade"),
    ("connect", Whole(b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"), "pinned connect", "pinned connect"),
    ("connect-body", Whole(b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nContent-Length: 3\r\n\r\nabc"), "400 connect-body", "pinned head: connect-body"),
    ("http2", Whole(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "pinned http2", "pinned head: version-unsupported"),
    ("expect", Fields(b"Expect: 100-continue\r\nContent-Length: 3\r\n", b"abc"), "followed", "followed"),
    ("expect-no-body", Fields(b"Expect: 100-continue\r\n", b""), "pinned expectation", "pinned expectation"),
    ("expect-other", Fields(b"Expect: y 100-continue\r\nContent-Length: 3\r\n", b"abc"), "pinned expectation", "pinned expectation"),
    ("expect-twice", Fields(b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 3\r\n", b"abc"), "pinned expectation", "pinned expectation"),
    ("expect-fold", Fields(b"Expect:\r\n 100-continue\r\nContent-Length: 3\r\n", b"abc"), "400 fold", "pinned head: fold"),
];

/// What is decided about `case` when it comes behind `before`, in pieces of so many bytes.
fn decide(before: &[u8], case: &[u8], piece: usize) -> String {
    let stream = [before, case, PLAIN].concat();
    let mut parser = HeadParser::new(LIMIT);
    let status = parser.feed(&stream);
    if before.is_empty() && !parser.is_http2() {
        let refused = match status {
            Status::Complete(len) => target::key(&stream[..len], &parser).err(),
            Status::Bad(bad) => Some(bad),
            Status::Partial => panic!("there is more than one head"),
        };
        if let Some(bad) = refused {
            return format!("{} {bad}", bad.status());
        }
    }
    let mut framer = Framer::after(&parser);
    let end = before.len() + case.len();
    let mut at = parser.seen().min(stream.len());
    loop {
        let next = &stream[at..stream.len().min(at + piece)];
        let (used, event) = framer.next(Some(&mut parser), next);
        at += used;
        match event {
            Some(Event::Request { head_len }) => {
                let begin = at - usize::from(head_len);
                if begin == end {
                    return "followed".to_string();
                }
                // Only the case itself may be taken for a request.
                let shift = begin - before.len();
                assert!(case[..shift].iter().all(|b| b"\r\n".contains(b)));
                if let Err(bad) = target::key(&stream[begin..at], &parser) {
                    return format!("pinned head: {bad}");
                }
            }
            Some(Event::Pinned(why)) => return format!("pinned {why}"),
            Some(Event::End) => {}
            Some(Event::Begins) | None => {
                assert!(!next.is_empty(), "neither followed nor pinned");
            }
        }
    }
}

#[test]
fn every_case_is_decided_as_it_says() {
    for (name, bytes, first, later) in CASES {
        for piece in [1, 7, usize::MAX / 2] {
            assert_eq!(decide(b"", &bytes.get(), piece), *first, "{name}, first");
            assert_eq!(decide(PLAIN, &bytes.get(), piece), *later, "{name}, later");
        }
    }
}

#[test]
fn the_documentation_has_exactly_these_cases() {
    const TABLES: &str = include_str!("../../../Documentation/networking/lard-framing.rst");
    let mut documented = BTreeMap::new();
    let lines: Vec<&str> = TABLES.lines().map(str::trim).collect();
    for row in lines.windows(4) {
        let Some(name) = row[0].strip_prefix("* - ``") else {
            continue;
        };
        let name = name.trim_end_matches("``");
        let cell = |i: usize| row[i].strip_prefix("- ").expect("a cell on a line");
        let twice = documented.insert(name, (cell(2), cell(3)));
        assert!(twice.is_none(), "{name}");
    }
    let cases = CASES
        .iter()
        .map(|(name, _, first, later)| (*name, (*first, *later)));
    assert_eq!(cases.clone().count(), documented.len());
    assert_eq!(documented, cases.collect());
}
