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

/// How many of the first bytes can be part of a field's value: as [`run`] says, eight at a time.
pub(super) fn value_run(bytes: &[u8]) -> usize {
    let words = bytes.chunks_exact(8).map_while(|word| word.try_into().ok());
    let plain = 8 * words.take_while(|word| is_plain(*word)).count();
    plain + run(bytes.get(plain..).unwrap_or_default(), VALUE)
}

/// Is none of these bytes below 32, and none 127? All such bytes but the tab are no part of a value.
fn is_plain(bytes: [u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGHEST: u64 = ONES << 7;
    let word = u64::from_ne_bytes(bytes);
    let deleted = word ^ (ONES * 127);
    // A byte less than n < 128 is one that has no highest bit, and gets one when n is taken off. A
    // borrow can only come from such a byte.
    let low = word.wrapping_sub(ONES * 32) & !word;
    let delete = deleted.wrapping_sub(ONES) & !deleted;
    (low | delete) & HIGHEST == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_at_a_time_find_the_same_end() {
        for b in 0..=255 {
            for place in 0..20 {
                for filler in [b'a', 0x80, 0xff, b' ', b'\t', 126] {
                    let mut bytes = [filler; 20];
                    bytes[place] = b;
                    assert_eq!(value_run(&bytes), run(&bytes, VALUE), "{bytes:?}");
                }
            }
        }
    }
}
