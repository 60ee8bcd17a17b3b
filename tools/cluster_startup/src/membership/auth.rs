// SPDX-License-Identifier: GPL-2.0

//! Both sides prove that they know the cluster's secret before anything else is read.
//!
//! ```text
//!  caller                                        listener
//!    ── {"lard":2,"nonce":N1} ──────────────────────▶
//!    ◀────────────────────── {"lard":2,"nonce":N2} ──
//!    ── {"proof":HMAC(secret,"caller",N1,N2,A1,A2)} ▶   wrong: refused, nothing more is read
//!    ◀ {"proof":HMAC(secret,"listener",N1,N2,A1,A2)} ─  wrong: the caller hangs up
//! ```
//!
//! HMAC-SHA256; the labels differ, so a proof cannot be sent back as the other side's. A1 and A2 are the
//! addresses and ports of the two ends of the connection: a proof holds on this connection only, so a
//! machine that members call, as one that has the address of a former member, cannot be let in elsewhere
//! with what they say to it. Nothing that translates addresses can be between two nodes anyway. The caller
//! proves first: the listener gives nothing computed with the secret to strangers. What follows is
//! not encrypted, as the internal network is trusted with what it carries; only the key of the
//! target hash is masked, with a pad that the two nonces and the secret give.

use super::line::{LineError, Lines, MAX_UNPROVED};
use super::message::shown;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use std::net::SocketAddrV4;

/// Version of the membership protocol.
pub const VERSION: u32 = 2;

/// Octets of a nonce and of a proof.
const SIZE: usize = 32;

/// What the members share.
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The secret `bytes`; none proves nothing, and lets everybody in.
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(bytes)
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn mac(&self, label: &str, nonces: &Nonces) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(b"lard membership 2\0");
        mac.update(label.as_bytes());
        mac.update(b"\0");
        mac.update(&nonces.caller);
        mac.update(&nonces.listener);
        for end in [nonces.from, nonces.to] {
            mac.update(&end.ip().octets());
            mac.update(&end.port().to_be_bytes());
        }
        mac
    }

    fn proof(&self, label: &str, nonces: &Nonces) -> [u8; SIZE] {
        self.mac(label, nonces).finalize().into_bytes().into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The two random numbers that make an exchange unique, and the connection it is about.
#[derive(Clone, Debug)]
pub struct Nonces {
    caller: [u8; SIZE],
    listener: [u8; SIZE],
    from: SocketAddrV4,
    to: SocketAddrV4,
}

/// A proven exchange: masks what the other side alone should read.
#[derive(Clone, Debug)]
pub struct Session {
    pad: [u8; 16],
}

impl Session {
    fn new(secret: &Secret, nonces: &Nonces) -> Self {
        let full = secret.proof("hash key", nonces);
        let mut pad = [0; 16];
        for (to, from) in pad.iter_mut().zip(full) {
            *to = from;
        }
        Session { pad }
    }

    /// Masks or unmasks a key.
    pub fn mask(&self, key: [u8; 16]) -> [u8; 16] {
        let mut masked = key;
        for (octet, pad) in masked.iter_mut().zip(self.pad) {
            *octet ^= pad;
        }
        masked
    }
}

/// Why the exchange failed.
#[derive(Debug)]
pub enum AuthError {
    /// The lines did not come.
    Line(LineError),
    /// The other side has another version of the protocol.
    Version(u32),
    /// The other side has another secret.
    Secret,
    /// The other side says so.
    Refused(String),
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuthError::Line(error) => error.fmt(f),
            AuthError::Version(theirs) => write!(
                f,
                "the other side speaks version {theirs} of the membership protocol, this one \
                 version {VERSION}"
            ),
            AuthError::Secret => f.write_str("the other side has another secret"),
            AuthError::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

impl From<LineError> for AuthError {
    fn from(error: LineError) -> Self {
        AuthError::Line(error)
    }
}

/// Numbers travel in hexadecimal digits.
pub(super) mod hex_bytes {
    use serde::{de::Error, Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).map_err(D::Error::custom)?;
        Ok(bytes)
    }
}

#[derive(Serialize, Deserialize)]
struct Opening {
    lard: u32,
    #[serde(with = "hex_bytes")]
    nonce: [u8; SIZE],
}

#[derive(Serialize, Deserialize)]
struct Proof {
    #[serde(with = "hex_bytes")]
    proof: [u8; SIZE],
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Verdict {
    Proved(Proof),
    Refused { refused: String },
}

fn nonce() -> Result<[u8; SIZE], LineError> {
    let mut nonce = [0; SIZE];
    getrandom::fill(&mut nonce)
        .map_err(|error| LineError::Io(std::io::Error::other(error.to_string())))?;
    Ok(nonce)
}

/// The caller's side.
pub fn call(lines: &mut Lines, secret: &Secret) -> Result<Session, AuthError> {
    let caller = nonce()?;
    lines.send(&Opening {
        lard: VERSION,
        nonce: caller,
    })?;
    let opening: Opening = lines.receive(MAX_UNPROVED)?;
    if opening.lard != VERSION {
        return Err(AuthError::Version(opening.lard));
    }
    let (from, to) = lines.ends()?;
    let nonces = Nonces {
        caller,
        listener: opening.nonce,
        from,
        to,
    };
    lines.send(&Proof {
        proof: secret.proof("caller", &nonces),
    })?;
    match lines.receive(MAX_UNPROVED)? {
        Verdict::Refused { refused } => Err(AuthError::Refused(shown(&refused))),
        Verdict::Proved(Proof { proof }) => {
            secret
                .mac("listener", &nonces)
                .verify_slice(&proof)
                .map_err(|_| AuthError::Secret)?;
            Ok(Session::new(secret, &nonces))
        }
    }
}

/// The listener's side.
pub fn answer(lines: &mut Lines, secret: &Secret) -> Result<Session, AuthError> {
    let opening: Opening = lines.receive(MAX_UNPROVED)?;
    let (to, from) = lines.ends()?;
    let nonces = Nonces {
        caller: opening.nonce,
        listener: nonce()?,
        from,
        to,
    };
    lines.send(&Opening {
        lard: VERSION,
        nonce: nonces.listener,
    })?;
    if opening.lard != VERSION {
        return Err(AuthError::Version(opening.lard));
    }
    let Proof { proof } = lines.receive(MAX_UNPROVED)?;
    if secret.mac("caller", &nonces).verify_slice(&proof).is_err() {
        lines.send(&Verdict::Refused {
            refused: "the secrets differ, or addresses are translated between the nodes"
                .to_string(),
        })?;
        return Err(AuthError::Secret);
    }
    lines.send(&Verdict::Proved(Proof {
        proof: secret.proof("listener", &nonces),
    }))?;
    Ok(Session::new(secret, &nonces))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(2);

    fn exchange(
        ours: &'static [u8],
        theirs: &'static [u8],
    ) -> (Result<Session, AuthError>, Result<Session, AuthError>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let listening = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            answer(
                &mut Lines::new(stream, LIMIT),
                &Secret::new(theirs.to_vec()),
            )
        });
        let calling = call(&mut Lines::new(stream, LIMIT), &Secret::new(ours.to_vec()));
        (calling, listening.join().unwrap())
    }

    #[test]
    fn equal_secrets_give_both_the_same_mask() {
        for secret in [&b""[..], b"a secret"] {
            let (calling, listening) = exchange(secret, secret);
            let (calling, listening) = (calling.unwrap(), listening.unwrap());
            let key = [7; 16];
            assert_ne!(calling.mask(key), key);
            assert_eq!(listening.mask(calling.mask(key)), key);
        }
    }

    #[test]
    fn different_secrets_are_refused() {
        let (calling, listening) = exchange(b"one", b"two");
        assert!(matches!(calling, Err(AuthError::Refused(_))), "{calling:?}");
        assert!(matches!(listening, Err(AuthError::Secret)));
    }

    #[test]
    fn a_proof_cannot_be_reflected() {
        // A listener without the secret echoes everything it is sent.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let echo = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let _ = std::io::copy(&mut &stream, &mut &stream);
        });
        let result = call(
            &mut Lines::new(stream, LIMIT),
            &Secret::new(b"secret".to_vec()),
        );
        assert!(matches!(result, Err(AuthError::Secret)), "{result:?}");
        echo.join().unwrap();
    }

    #[test]
    fn a_proof_cannot_be_passed_on() {
        // One without the secret is called by a member, and calls another one with what it hears.
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let to =
            |listener: &TcpListener| TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let secret = || Secret::new(b"secret".to_vec());
        let (relay, member) = (listen(), listen());
        let (outer, inner) = (to(&relay), to(&member));
        let passing = thread::spawn(move || {
            let (stream, _) = relay.accept().unwrap();
            let (from, back) = (stream.try_clone().unwrap(), inner.try_clone().unwrap());
            let answers = thread::spawn(move || std::io::copy(&mut &back, &mut &from));
            let _ = std::io::copy(&mut &stream, &mut &inner);
            let _ = inner.shutdown(std::net::Shutdown::Both);
            let _ = answers.join();
        });
        let listening = thread::spawn(move || {
            let (stream, _) = member.accept().unwrap();
            answer(&mut Lines::new(stream, LIMIT), &secret())
        });
        let calling = call(&mut Lines::new(outer, LIMIT), &secret());
        assert!(matches!(calling, Err(AuthError::Refused(_))), "{calling:?}");
        let listening = listening.join().unwrap();
        assert!(matches!(listening, Err(AuthError::Secret)), "{listening:?}");
        passing.join().unwrap();
    }

    #[test]
    fn another_version_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let old = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = Lines::new(stream, LIMIT);
            let _: serde_json::Value = lines.receive(MAX_UNPROVED).unwrap();
            lines
                .send(&Opening {
                    lard: 9,
                    nonce: [0; SIZE],
                })
                .unwrap();
        });
        let result = call(&mut Lines::new(stream, LIMIT), &Secret::default());
        assert!(matches!(result, Err(AuthError::Version(9))), "{result:?}");
        old.join().unwrap();
    }
}
