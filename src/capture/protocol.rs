//! Which protocol each side of a connection speaks, by how its data begins; only where both can be told apart for sure.

use super::flow::{Flow, Side};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Tls,
    TlsAlert,
    Ssh,
    /// SMTP and FTP: `220 host`.
    Greeting220,
    /// POP3, Redis: `+OK`, `-ERR`.
    Lines,
    Html,
}

impl Protocol {
    fn of(data: &[u8]) -> Option<Self> {
        const METHODS: [&[u8]; 9] =
            [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"HTTP/1."];
        match data {
            [0x16, 0x03, ..] => Some(Self::Tls),
            [0x15, 0x03, ..] => Some(Self::TlsAlert),
            _ if METHODS.iter().any(|method| data.starts_with(method)) => Some(Self::Http),
            _ if data.starts_with(b"SSH-") => Some(Self::Ssh),
            _ if data.starts_with(b"220 ") || data.starts_with(b"220-") => Some(Self::Greeting220),
            _ if data.starts_with(b"+OK") || data.starts_with(b"-ERR") => Some(Self::Lines),
            _ if data.starts_with(b"<!DOCTYPE") || data.starts_with(b"<html") => Some(Self::Html),
            _ => None,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tls | Self::TlsAlert => "TLS",
            Self::Ssh => "SSH",
            Self::Greeting220 => "SMTP or FTP",
            Self::Lines => "a protocol of text lines",
            Self::Html => "plain HTTP",
        }
    }
}

/// The protocols of initiator and acceptor, where they do not fit each other.
pub fn mismatch(flow: &Flow) -> Option<(&'static str, &'static str)> {
    use Protocol::{Greeting220, Html, Http, Lines, Ssh, Tls, TlsAlert};
    let asks = Protocol::of(flow.end(Side::Initiator).beginning())?;
    let answers = Protocol::of(flow.end(Side::Acceptor).beginning())?;
    let wrong = matches!(
        (asks, answers),
        (Http, Ssh | Greeting220 | Lines | Tls | TlsAlert)
            | (Tls, Http | Html | Ssh | Greeting220 | Lines)
            | (Ssh, Http | Html | Tls | TlsAlert | Greeting220 | Lines)
    );
    wrong.then(|| (asks.words(), answers.words()))
}

/// Both sides speak TLS.
pub fn is_tls(flow: &Flow) -> bool {
    let tls = |side| Protocol::of(flow.end(side).beginning()) == Some(Protocol::Tls);
    tls(Side::Initiator) && tls(Side::Acceptor)
}
