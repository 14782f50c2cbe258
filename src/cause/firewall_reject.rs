use super::{Judgement, harm};
use crate::evidence::{Evidence, Missing};

cause! {
    /// ## What happens
    ///
    /// A netfilter rule on this host answers with a RST (`reject with tcp reset`). Clients read "Connection refused", or
    /// "Connection reset by peer" in an open connection.
    ///
    /// ## How it shows
    ///
    /// RSTs leave the host and `Tcp.OutRsts` does not move: netfilter builds them itself.
    ///
    /// ## How to confirm
    ///
    /// `nft list ruleset | grep -B2 'reject with tcp reset'`; with `counter` in the rule, the counter grows.
    ///
    /// ## What to change
    ///
    /// Accept the port before the rule, or leave the rule if it is meant.
    ///
    /// ## Look-alikes
    ///
    /// Nothing listens on the port (port-without-listener): then OutRsts moves. A firewall on another host.
    FIREWALL_REJECT {
        id: "firewall-reject",
        title: "Rejected by the firewall",
        explains: [],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    harm::window(e)?;
    Err(Missing {
        source: "reset_packets",
        reason: "RSTs of the firewall pass TCP's counters and tracepoints by".to_owned(),
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
        assert_eq!(case.missing(&FIREWALL_REJECT), Some("reset_packets"));
    }
}
