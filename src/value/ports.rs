/// Local ports of a namespace's outgoing connections and of bind(2) to port 0: net.ipv4.ip_local_port_range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EphemeralPorts {
    first: u16,
    last: u16,
}

impl EphemeralPorts {
    /// Both ends included.
    pub const fn new(first: u16, last: u16) -> Self {
        Self { first, last }
    }

    /// From the two numbers of the sysctl.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(first)), Some(Ok(last))) => Some(Self { first, last }),
            _ => None,
        }
    }

    /// How many there are.
    pub fn count(self) -> u64 {
        (u64::from(self.last) + 1).saturating_sub(u64::from(self.first))
    }

    /// Whether an outgoing connection may have this local port.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// This side had called the other: its port is one of these, and the other's, which a service chose, is not.
    pub fn is_caller(self, local: u16, peer: u16) -> bool {
        self.contains(local) && !self.contains(peer)
    }
}

/// The kernel's own since 2.4 (net/ipv4/af_inet.c inet_init_net).
impl Default for EphemeralPorts {
    fn default() -> Self {
        Self::new(32_768, 60_999)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_such_a_port_and_the_other_side_has_none() {
        let ports = EphemeralPorts::parse("40000\t50000\n").unwrap();
        assert!(ports.is_caller(40_000, 443) && ports.is_caller(50_000, 39_999));
        assert!(!ports.is_caller(443, 40_000), "the server");
        assert!(!ports.is_caller(40_001, 40_002), "neither is known to be one");
    }

    #[test]
    fn what_is_not_two_ports_is_no_range() {
        for text in ["", "40000", "40000 x", "40000 70000"] {
            assert_eq!(EphemeralPorts::parse(text), None, "{text:?}");
        }
    }
}
