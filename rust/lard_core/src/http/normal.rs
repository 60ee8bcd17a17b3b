// SPDX-License-Identifier: GPL-2.0

//! One spelling for what can be spelt in several ways without changing its meaning.
//!
//! ```text
//! %7Euser  %7euser  ~user   are one path: an unreserved character needs no escape    ; RFC 3986, 6.2.2.2
//! %2f      %2F              are one as well: hexadecimal digits have no case         ; RFC 3986, 6.2.2.1
//! %2F      /                are two: a reserved character means something
//! ```
//!
//! Nothing else is touched: what `.`, `..`, `//` or a wrong escape mean is for each server to say.

/// The bytes of `spelt` in the one spelling.
pub(super) fn normal(spelt: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut left = spelt;
    // The digits of an escape that stays.
    let mut digits: [Option<u8>; 2] = [None; 2];
    core::iter::from_fn(move || {
        if let Some(digit) = digits.iter_mut().find_map(Option::take) {
            return Some(digit);
        }
        let (&first, rest) = left.split_first()?;
        left = rest;
        if let (b'%', &[high, low, ref behind @ ..]) = (first, rest) {
            if let Some(meant) = value(high).zip(value(low)).map(|(h, l)| h << 4 | l) {
                left = behind;
                if is_unreserved(meant) {
                    return Some(meant);
                }
                digits = [high, low].map(|digit| Some(digit.to_ascii_uppercase()));
            }
        }
        Some(first)
    })
}

/// Does `spelt` begin like this, in whatever spelling?
pub(crate) fn starts_with(spelt: &[u8], prefix: &[u8]) -> bool {
    let mut bytes = normal(spelt);
    normal(prefix).all(|b| bytes.next() == Some(b))
}

/// Does `spelt` end like this, in whatever spelling?
pub(crate) fn ends_with(spelt: &[u8], suffix: &[u8]) -> bool {
    let behind = normal(spelt).count().checked_sub(normal(suffix).count());
    behind.is_some_and(|n| normal(spelt).skip(n).eq(normal(suffix)))
}

/// ```text
/// unreserved = ALPHA / DIGIT / "-" / "." / "_" / "~"              ; RFC 3986, 2.3
/// ```
const fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// The value of a hexadecimal digit, 4 bits.
pub(super) fn value(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spelt: &str, expected: &str) {
        let once: Vec<u8> = normal(spelt.as_bytes()).collect();
        assert_eq!(String::from_utf8_lossy(&once), expected);
        assert_eq!(normal(&once).collect::<Vec<_>>(), once, "normal already");
    }

    #[test]
    fn escapes_have_one_spelling() {
        check("/%7euser/%41%62c", "/~user/Abc");
        check("/a%2fb%3F", "/a%2Fb%3F");
        check("/caf%c3%a9", "/caf%C3%A9");
        check("/a?b=%20&c=%2D", "/a?b=%20&c=-");
    }

    #[test]
    fn what_is_no_escape_stays() {
        check("/100%", "/100%");
        check("/%4", "/%4");
        check("/%zz%4g", "/%zz%4g");
        check("/a/../b//c/.", "/a/../b//c/.");
        check("", "");
    }

    #[test]
    fn nothing_is_decoded_twice() {
        // "%25" is a reserved "%", and stays one.
        check("/%2541", "/%2541");
    }
}
