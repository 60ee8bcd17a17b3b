// SPDX-License-Identifier: GPL-2.0

//! The fields of a head, for those that are not known beforehand.
//!
//! Only for heads that [`HeadParser`](super::HeadParser) has found complete: lines end with CRLF, names
//! are tokens, nothing is folded.

/// The fields of a head, in order: name, and value without the white space around it.
///
/// ```text
/// HTTP-message = start-line CRLF *( field-line CRLF ) CRLF …      ; RFC 9112, 2.1
/// field-line   = field-name ":" OWS field-value OWS               ; RFC 9112, 5
/// ```
///
/// (An iterator of its own: a chain of the library's has a name that is too long for the kernel's
/// tools.)
#[derive(Clone, Debug)]
pub struct Fields<'h> {
    left: &'h [u8],
}

impl<'h> Fields<'h> {
    /// The fields of `head`.
    pub fn of(head: &'h [u8]) -> Self {
        let mut fields = Fields { left: head };
        // Empty lines may stand before the request line (RFC 9112, 2.2).
        while fields.line().is_some_and(<[u8]>::is_empty) {}
        fields
    }

    /// The next line, without its end; `None` behind the last one.
    fn line(&mut self) -> Option<&'h [u8]> {
        let end = self.left.iter().position(|b| *b == b'\n')?;
        let (line, left) = self.left.split_at_checked(end)?;
        self.left = left.get(1..)?;
        Some(line.trim_ascii_end())
    }
}

impl<'h> Iterator for Fields<'h> {
    type Item = (&'h [u8], &'h [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.line()?;
        let field = split(line, b':');
        if field.is_none() {
            // The empty line. What is behind it is no field.
            self.left = &[];
        }
        field
    }
}

/// The value of the first field with this name, in whatever case it is written.
pub fn field<'h>(head: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    let (_, value) = Fields::of(head).find(|(n, _)| n.eq_ignore_ascii_case(name))?;
    Some(value)
}

/// The value of the first cookie with this name.
///
/// ```text
/// cookie-string = cookie-pair *( ";" SP cookie-pair )             ; RFC 6265, 4.2.1
/// cookie-pair   = cookie-name "=" cookie-value
/// ```
pub fn cookie<'h>(head: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    for (field, value) in Fields::of(head) {
        if !field.eq_ignore_ascii_case(b"cookie") {
            continue;
        }
        for pair in value.split(|b| *b == b';') {
            if let Some((_, value)) = split(pair, b'=').filter(|(n, _)| *n == name) {
                return Some(value);
            }
        }
    }
    None
}

/// What stands before and behind `at`, without the white space around.
fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = text.iter().position(|b| *b == at)?;
    let (before, behind) = text.split_at_checked(i)?;
    let (_, behind) = behind.split_first()?;
    Some((before.trim_ascii(), behind.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"\r\nGET /a:b HTTP/1.1\r\nHost: h\r\nX-User:  joe \r\nx-user: jim\r\n\
        Cookie: a=1; session=xyz==;b\r\nCookie: session=other; late=\r\n\r\nbody: no\r\n";

    #[test]
    fn fields_are_found_by_name() {
        assert_eq!(Fields::of(HEAD).count(), 5);
        assert_eq!(field(HEAD, b"host"), Some(&b"h"[..]));
        assert_eq!(field(HEAD, b"x-USER"), Some(&b"joe"[..]));
        assert_eq!(field(HEAD, b"body"), None);
        assert_eq!(field(HEAD, b"GET /a"), None);
    }

    #[test]
    fn cookies_are_found_by_name() {
        assert_eq!(cookie(HEAD, b"a"), Some(&b"1"[..]));
        assert_eq!(cookie(HEAD, b"session"), Some(&b"xyz=="[..]));
        assert_eq!(cookie(HEAD, b"late"), Some(&b""[..]));
        assert_eq!(cookie(HEAD, b"Session"), None);
        assert_eq!(cookie(HEAD, b"b"), None);
    }

    #[test]
    fn what_is_no_head_has_no_fields() {
        for bytes in [&b""[..], b"\r\n", b"\r\n\r\n", b"GET / HTTP/1.1", b"\n:\n:"] {
            let _ = Fields::of(bytes).count();
            assert_eq!(field(bytes, b"x"), None);
        }
    }
}
