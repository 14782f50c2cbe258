use std::collections::BTreeSet;

use super::numbers::port_scan as numbers;
use super::place::Place;
use super::wording;
use super::{EvidenceItem, Judgement, Remedy, Subject, Verdict, Verify};
use crate::evidence::Evidence;
use crate::source::reset_events::Direction;
use crate::value::shell::ShellCommand;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// One source tries many closed ports. Each try is answered by a RST. It explains the numbers and is no fault.
    ///
    /// ## How it shows
    ///
    /// `Tcp.OutRsts` grows and nothing else; the tracepoint tcp:tcp_send_reset gives NO_SOCKET with ten or more ports
    /// and one peer.
    ///
    /// ## How to confirm
    ///
    /// `rstdoctor scan --all` as root names the peer and the ports it tried.
    ///
    /// ## What to change
    ///
    /// Nothing on this host. Drop the source at the firewall if it bothers.
    ///
    /// ## Look-alikes
    ///
    /// A client with a wrong port asks for one port again and again (port-without-listener).
    PORT_SCAN {
        id: "port-scan",
        title: "Port scan",
        explains: [],
        needs: [Window, ResetEvents],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let groups = e.resets_of(PORT_SCAN.id, Direction::Sent)?;
    let all = Place { count: groups.iter().map(|g| g.count).sum(), groups, port: None, called: None };
    let sources = all.peers();
    let Some((first, _)) = sources.first() else {
        return Ok(Verdict::RuledOut("no source asked for ten or more closed ports".into()));
    };
    // One that was asked by several sources, or known from events and from packets, is in several groups.
    let ports: BTreeSet<u16> = all.groups.iter().filter_map(|group| group.port).collect();
    let by = if sources.len() == 1 { first.to_string() } else { words::counted(sources.len() as u64, "source") };
    let summary = format!(
        "port scan by {by}: {} refused in {}, no fault of this host",
        words::counted(all.count, "connect"),
        words::seconds(e.window())
    );
    let mut finding = wording::benign(e, numbers::MANY_PORTS, all.count, "refused connects", summary)
        .subjects(sources.iter().take(3).map(|(peer, count)| Subject::peer(*peer, None).counted(*count)))
        .evidence(EvidenceItem::value(
            "reset_events",
            "NO_SOCKET",
            all.count as f64,
            format!("{} closed ports were tried by {by}", words::thousands(ports.len() as u64)),
        ));
    if !first.is_loopback() {
        let family = if first.is_ipv4() { "ip" } else { "ip6" };
        finding = finding.remedy(
            Remedy::new(
                "Nothing to repair; drop the source if it bothers, in a table of its own (nft delete table inet dropped ends it)",
                Verify::scan("does not name it any more"),
            )
            .command(
                ShellCommand::new("nft add table inet dropped")
                    .and(
                        ShellCommand::new("nft add chain inet dropped input")
                            .arg("{ type filter hook input priority -10 ; }"),
                    )
                    .and(ShellCommand::new("nft add rule inet dropped input").args([family, "saddr"]).arg(*first).arg("drop")),
            ),
        );
    }
    Ok(Verdict::Found(vec![finding.remedy(Remedy::new("Nothing needs to change here", "none needed"))]))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::observation::testing::Case;

    #[test]
    fn a_scan_is_benign_and_names_its_source() {
        let case = (1..=30).fold(Case::new(), |case, port| {
            case.sent(1, "NO_SOCKET", None, [&format!("10.0.0.9:{port}"), "192.0.2.7:0"], None)
        });
        let finding = case.finding(&PORT_SCAN);
        assert_eq!(finding.state, State::Benign);
        assert!(finding.summary.contains("192.0.2.7"), "{}", finding.summary);
        let again = (1..=30).fold(case, |case, port| {
            case.sent(1, "NO_SOCKET", None, [&format!("10.0.0.9:{port}"), "192.0.2.8:0"], None)
        });
        let said = &again.finding(&PORT_SCAN).evidence[0].text;
        assert_eq!(said, "30 closed ports were tried by 2 sources");
        // Not every host has a table `inet filter`, and one who has may have another policy in it.
        let command = finding.remedies[0].line().expect("a command");
        assert!(command.starts_with("nft add table inet dropped && nft add chain inet dropped input "), "{command}");
        assert!(command.ends_with(" && nft add rule inet dropped input ip saddr 192.0.2.7 drop"), "{command}");
    }

    #[test]
    fn many_tries_at_one_port_are_no_scan() {
        let case = Case::new().sent(30, "NO_SOCKET", None, ["10.0.0.9:80", "192.0.2.7:0"], None);
        assert!(case.is_ruled_out(&PORT_SCAN));
    }
}
