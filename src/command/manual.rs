//! What the manual pages say beyond the definition of the command line: exit status, examples, files.

use clap_mangen::roff::{Roff, bold, roman};

/// Of one command.
struct Manual {
    name: &'static str,
    exit_status: &'static [(&'static str, &'static str)],
    examples: &'static [(&'static str, &'static str)],
    files: &'static [(&'static str, &'static str)],
}

const RAN: (&str, &str) = ("0", "It ran, whatever it found.");
const USAGE: (&str, &str) = ("2", "Wrong usage.");
const NOTHING: (&str, &str) = ("3", "Nothing could be collected, read or written; standard error says why.");
const INTERRUPTED: (&str, &str) = ("130", "Interrupted before there was a result.");

const TRACEFS: (&str, &str) =
    ("/sys/kernel/tracing", "The reset tracepoints. Read by root, or with CAP_PERFMON where its mode allows.");
const PROC: (&str, &str) = ("/proc/net, /proc/sys, /proc/PID", "Counters, limits, and whose the sockets are.");
const NETNS: (&str, &str) = ("/run/netns", "Network namespaces by name, see ip-netns(8).");
const SERVICES: (&str, &str) = ("/etc/services", "Names of services for --port.");
const STORE: (&str, &str) = ("/var/lib/rstdoctor", "The store of root.");
const OWN_STORE: (&str, &str) = (
    "$XDG_STATE_HOME/rstdoctor",
    "The store of any other user; ~/.local/state/rstdoctor where XDG_STATE_HOME is not set, or no absolute path.",
);
const LOOKS: &[(&str, &str)] = &[TRACEFS, PROC, NETNS, SERVICES];

const MANUALS: &[Manual] = &[
    Manual {
        name: "rstdoctor",
        exit_status: &[
            RAN,
            (
                "1",
                "A check failed: a finding reached --fail-on, or a scenario of the lab was not diagnosed as it must be.",
            ),
            USAGE,
            NOTHING,
            INTERRUPTED,
        ],
        examples: &[
            ("rstdoctor scan", "What is wrong now."),
            ("sudo rstdoctor scan --port 443", "About one service, and with what only root can see."),
            ("rstdoctor watch", "While the fault is reproduced."),
            ("rstdoctor explain 'Connection reset by peer'", "What an error text means."),
        ],
        files: LOOKS,
    },
    Manual {
        name: "rstdoctor-scan",
        exit_status: &[
            RAN,
            (
                "1",
                "With --fail-on: a finding is at least this severe, or the verdict is UNKNOWN, or the port or process that was named \
                 is not there.",
            ),
            USAGE,
            NOTHING,
            ("130", "Interrupted before there was enough to judge. Later, what was seen is judged."),
            (
                "0, 1, 2, 3",
                "With --format nagios: OK, WARNING, CRITICAL, UNKNOWN. A port that nobody listens on is CRITICAL.",
            ),
        ],
        examples: &[
            ("sudo rstdoctor scan -d 10", "Ten seconds, as root."),
            ("rstdoctor scan --port 80,443 --port redis", "About three services."),
            ("rstdoctor scan --netns blue", "In the network namespace blue; the commands in the report go there, too."),
            ("rstdoctor scan --port 443 --format nagios", "As a plugin of a monitor."),
            ("rstdoctor scan --quiet --fail-on warning", "As a check in a script."),
            ("rstdoctor scan --from web-3.rst --all", "What was recorded elsewhere, with all tables."),
            ("rstdoctor scan --from server.pcap", "What a capture tells; netstat -s, ss and logs are read alike."),
            ("sudo rstdoctor scan --at 03:12", "As if one had looked then, from the store of rstdoctor agent."),
        ],
        files: LOOKS,
    },
    Manual {
        name: "rstdoctor-watch",
        exit_status: &[
            ("0", "It ran, also when it was interrupted."),
            ("1", "With --fail-on: a finding was at least this severe, or too little was seen in all ticks."),
            USAGE,
            NOTHING,
        ],
        examples: &[
            ("sudo rstdoctor watch", "A screen; q ends it."),
            ("rstdoctor watch --no-tui --port 443", "A line for each change."),
            ("rstdoctor watch -n 30 --fail-on critical", "A minute of a test run, as a check."),
            ("rstdoctor watch --json | jq .verdict", "For programs."),
        ],
        files: LOOKS,
    },
    Manual {
        name: "rstdoctor-trace",
        exit_status: &[("0", "It ran, also when it was interrupted."), USAGE, NOTHING],
        examples: &[
            ("sudo rstdoctor trace", "Every reset, until Ctrl-C."),
            ("sudo rstdoctor trace --sent --port https -n 20", "The next 20 that the web server sends."),
            ("rstdoctor trace --from web-3.rst --json", "Those of a recording, for programs."),
        ],
        files: LOOKS,
    },
    Manual {
        name: "rstdoctor-record",
        exit_status: &[("0", "The recording is written, also when it was interrupted."), USAGE, NOTHING],
        examples: &[
            ("sudo rstdoctor record -o web-3.rst -d 60", "A minute."),
            ("sudo rstdoctor record --redact -o web-3.rst", "Without names and addresses, for somebody else."),
        ],
        files: LOOKS,
    },
    Manual {
        name: "rstdoctor-agent",
        exit_status: &[("0", "It was asked to end."), USAGE, ("3", "It could not begin; standard error says why.")],
        examples: &[
            ("sudo rstdoctor agent", "Keeps seven days, at most 500 MB, in /var/lib/rstdoctor."),
            ("sudo rstdoctor agent --listen 9469", "The same, with metrics for Prometheus on 127.0.0.1."),
            ("rstdoctor agent --store ./night --redact", "Without names and addresses, in a directory of one's own."),
        ],
        files: &[STORE, OWN_STORE, TRACEFS, PROC, NETNS],
    },
    Manual {
        name: "rstdoctor-history",
        exit_status: &[RAN, USAGE, ("3", "There is no store, or nothing was recorded of that time.")],
        examples: &[
            ("sudo rstdoctor history", "The last day."),
            ("sudo rstdoctor history --since 03:00 --until 03:30 --port 443", "Half an hour of one service."),
            ("sudo rstdoctor history --since 7d --format html > week.html", "A page for people who were not there."),
        ],
        files: &[STORE, OWN_STORE],
    },
    Manual {
        name: "rstdoctor-recording",
        exit_status: &[("0", "It was shown."), USAGE, NOTHING],
        examples: &[
            ("rstdoctor recording show web-3.rst", "What is in it."),
            ("rstdoctor recording show web-3.rst file/proc/net/snmp", "One answer of the kernel."),
        ],
        files: &[],
    },
    Manual {
        name: "rstdoctor-explain",
        exit_status: &[("0", "It was explained."), ("2", "Neither a cause nor an error text that is known."), NOTHING],
        examples: &[
            ("rstdoctor explain accept-queue-overflow", "A cause."),
            ("rstdoctor explain 'java.net.SocketException: Broken pipe'", "What a program printed."),
            ("journalctl -u web | rstdoctor explain -", "What a log holds."),
        ],
        files: &[],
    },
    Manual {
        name: "rstdoctor-lab",
        exit_status: &[
            ("0", "All that ran passed."),
            ("1", "A scenario failed."),
            USAGE,
            NOTHING,
            ("130", "Interrupted."),
        ],
        examples: &[
            ("rstdoctor lab list", "What there is."),
            ("sudo rstdoctor lab run accept-queue-overflow", "One fault, made and diagnosed."),
        ],
        files: &[NETNS],
    },
    Manual {
        name: "rstdoctor-schema",
        exit_status: &[("0", "It was printed."), USAGE],
        examples: &[("rstdoctor schema report > report.v1.schema.json", "What scan --json and watch --json print.")],
        files: &[],
    },
    Manual {
        name: "rstdoctor-completions",
        exit_status: &[("0", "It was printed."), USAGE],
        examples: &[(
            "rstdoctor completions bash > /etc/bash_completion.d/rstdoctor",
            "For all users of bash; a new shell has it.",
        )],
        files: &[],
    },
    Manual {
        name: "rstdoctor-man",
        exit_status: &[
            ("0", "The pages are written."),
            USAGE,
            ("3", "The directory does not exist, or cannot be written to."),
        ],
        examples: &[("rstdoctor man /usr/local/share/man/man1", "All pages; the directory must exist.")],
        files: &[],
    },
];

/// The sections of this page, as roff; empty for a page that is not listed.
pub fn sections(name: &str) -> Vec<u8> {
    let Some(manual) = MANUALS.iter().find(|manual| manual.name == name) else { return Vec::new() };
    let mut page = Roff::new();
    for (title, entries) in
        [("EXIT STATUS", manual.exit_status), ("EXAMPLES", manual.examples), ("FILES", manual.files)]
    {
        if entries.is_empty() {
            continue;
        }
        page.control("SH", [title]);
        for (what, text) in entries {
            page.control("TP", []);
            page.text([bold(*what)]);
            page.text([roman(*text)]);
        }
    }
    page.to_roff().into_bytes()
}
