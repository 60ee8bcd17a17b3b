// SPDX-License-Identifier: GPL-2.0

//! The character classes of the grammar, as one table.

/// `tchar`: what a token is made of.
///
/// ```text
/// tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." /
///         "^" / "_" / "`" / "|" / "~" / DIGIT / ALPHA            ; RFC 9110, 5.6.2
/// ```
pub(super) const TOKEN: u8 = 1;

/// What a request target is made of.
///
/// RFC 3986 allows fewer characters, but browsers send some of the others (`|`, `[`, `^` in a query),
/// and they have one reading. Left out are spaces, controls, bytes above 126, and `#`, which servers
/// do not agree about. This is also what HAProxy takes.
pub(super) const TARGET: u8 = 2;

/// What the value of a field is made of.
///
/// ```text
/// field-value   = *field-content
/// field-content = field-vchar [ 1*( SP / HTAB / field-vchar ) field-vchar ]
/// field-vchar   = VCHAR / obs-text                               ; RFC 9110, 5.5
/// ```
pub(super) const VALUE: u8 = 4;

/// What a registered name is made of, for which IPv4 addresses pass as well.
///
/// ```text
/// reg-name    = *( unreserved / pct-encoded / sub-delims )       ; RFC 3986, 3.2.2
/// unreserved  = ALPHA / DIGIT / "-" / "." / "_" / "~"
/// pct-encoded = "%" HEXDIG HEXDIG
/// sub-delims  = "!" / "$" / "&" / "'" / "(" / ")" / "*" / "+" / "," / ";" / "="
/// ```
pub(super) const REG_NAME: u8 = 8;

/// What stands between the brackets of an IP literal.
///
/// ```text
/// IP-literal = "[" ( IPv6address / IPvFuture  ) "]"              ; RFC 3986, 3.2.2
/// IPvFuture  = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )
/// ```
pub(super) const IP_LITERAL: u8 = 16;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < table.len() {
        // CAST: below 256.
        table[i] = classify(i as u8);
        i += 1;
    }
    table
}

const fn classify(b: u8) -> u8 {
    let alnum = b.is_ascii_alphanumeric();
    let unreserved = alnum || matches!(b, b'-' | b'.' | b'_' | b'~');
    let sub_delim = matches!(
        b,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
    );
    let mut class = 0;
    if alnum
        || matches!(
            b,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
    {
        class |= TOKEN;
    }
    if b.is_ascii_graphic() && b != b'#' {
        class |= TARGET;
    }
    if b >= 0x80 || b.is_ascii_graphic() || matches!(b, b' ' | b'\t') {
        class |= VALUE;
    }
    if unreserved || sub_delim || b == b'%' {
        class |= REG_NAME;
    }
    if unreserved || sub_delim || b == b':' {
        class |= IP_LITERAL;
    }
    class
}

/// Is `b` of one of these classes?
#[inline]
pub(super) fn is(b: u8, class: u8) -> bool {
    CLASSES.get(usize::from(b)).is_some_and(|c| c & class != 0)
}

/// How many of the first bytes are of this class.
#[inline]
pub(super) fn run(bytes: &[u8], class: u8) -> usize {
    let end = bytes.iter().position(|b| !is(*b, class));
    end.unwrap_or(bytes.len())
}
