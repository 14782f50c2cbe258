use super::{Judgement, harm};
use crate::evidence::{Evidence, Missing};

cause! {
    /// ## What happens
    ///
    /// A firewall, proxy or filter between the two ends sends a RST in the name of one of them. Both read "Connection
    /// reset by peer" and neither sent it.
    ///
    /// ## How it shows
    ///
    /// The TTL of the RST differs by more than 2 from the earlier packets of the connection; its IP id or window do not fit.
    ///
    /// ## How to confirm
    ///
    /// `tcpdump -nvi any 'tcp[tcpflags] & tcp-rst != 0'` and compare `ttl`; the `OutRsts` of the peer did not move.
    ///
    /// ## What to change
    ///
    /// Ask who runs the device for an exception, or raise its idle limit.
    ///
    /// ## Look-alikes
    ///
    /// Anycast and load balancers change the TTL for good reasons. SYN proxies answer in the server's name.
    MIDDLEBOX_RESET {
        id: "middlebox-reset",
        title: "Reset by a device on the path",
        explains: [],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    harm::window(e)?;
    Err(Missing {
        source: "reset_packets",
        reason: "who sent a RST shows only in its packet".to_owned(),
        needs: Some("a look at the packets themselves, which this version does not take".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::*;

    #[test]
    fn without_packets_nothing_is_claimed() {
        let case = Case::new().counter("Tcp.OutRsts", 0, 20).tracepoints();
        assert_eq!(case.missing(&MIDDLEBOX_RESET), Some("reset_packets"));
    }
}
