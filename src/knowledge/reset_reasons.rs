//! Codes that RSTs carry, in words: those of draft-ietf-tcpm-rst-diagnostic-payload (registry "TCP Failure Causes"), of
//! Multipath TCP (RFC 8684, 3.6), and those that Citrix NetScaler writes into the window field (vendor article CTX200852).

/// By code, from 1 on.
const FAILURE_CAUSES: [&str; 17] = [
    "illegal option",
    "desynchronized state",
    "new data received after close",
    "aborted by the application",
    "unexpected ACK outside a synchronized state",
    "unexpected SYN in the window",
    "unexpected security compartment",
    "malformed message",
    "not authorized",
    "resource exceeded",
    "network failure",
    "reset received from the other side",
    "destination unreachable",
    "connection timeout",
    "too much outstanding data",
    "unacceptable performance",
    "middlebox interference",
];

/// "Middlebox interference", in either table.
const MIDDLEBOX: u16 = 17;
const MPTCP_MIDDLEBOX: u8 = 6;

/// By reason, from 0 on.
const MPTCP: [&str; 7] = [
    "unspecified error",
    "MPTCP-specific error",
    "lack of resources",
    "administratively prohibited",
    "too much outstanding data",
    "unacceptable performance",
    "middlebox interference",
];

/// Window field, in words.
const NETSCALER: [(u16, &str); 20] = [
    (8201, "stray data"),
    (8202, "stray data"),
    (8207, "SYN on an established connection"),
    (8211, "idle connection cleaned up"),
    (8212, "stray SYN"),
    (9300, "idle, or the service is down"),
    (9301, "idle, or the service is down"),
    (9302, "idle, or the service is down"),
    (9303, "idle, or the service is down"),
    (9304, "the peer's window stayed at zero"),
    (9310, "keepalive got no answer"),
    (9400, "pool flushed"),
    (9401, "pool flushed"),
    (9700, "passed on from the other side"),
    (9701, "passed on from the other side"),
    (9800, "end of a monitor's probe"),
    (9811, "after a TLS alert"),
    (9812, "the address was removed"),
    (9814, "by policy"),
    (9830, "denied by an access list"),
];

/// A code of the IANA registry; `None` for one that is not in the draft.
pub fn failure_cause(code: u16) -> Option<&'static str> {
    FAILURE_CAUSES.get(usize::from(code.checked_sub(1)?)).copied()
}

/// A code that functions on the path use: NATs, firewalls, proxies.
pub fn is_of_the_path(code: u16) -> bool {
    (8..=14).contains(&code) || code == MIDDLEBOX
}

/// The same of a reason of Multipath TCP.
pub fn mptcp_is_of_the_path(reason: u8) -> bool {
    reason == MPTCP_MIDDLEBOX
}

pub fn mptcp(reason: u8) -> Option<&'static str> {
    MPTCP.get(usize::from(reason)).copied()
}

/// What NetScaler means by this window; any other sender's may be the same by chance.
pub fn netscaler(window: u16) -> Option<&'static str> {
    NETSCALER.iter().find(|(code, _)| *code == window).map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_their_tables() {
        assert_eq!((failure_cause(0), failure_cause(1), failure_cause(18)), (None, Some("illegal option"), None));
        assert_eq!(
            (failure_cause(14), failure_cause(17)),
            (Some("connection timeout"), Some("middlebox interference"))
        );
        assert!(is_of_the_path(14) && is_of_the_path(17) && !is_of_the_path(4));
        assert!(mptcp_is_of_the_path(6) && !mptcp_is_of_the_path(1));
        assert_eq!((mptcp(6), mptcp(7)), (Some("middlebox interference"), None));
        assert_eq!((netscaler(9303), netscaler(502)), (Some("idle, or the service is down"), None));
        assert!(NETSCALER.is_sorted_by_key(|(code, _)| *code));
    }
}
