//! Every number by which causes say how sure they are and how bad it is, each with its reason. Confidences are set against
//! what was right in the lab by the accuracy run; nothing else can make one.

/// Probability that a finding is what happens, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Confidence(f64);

impl Confidence {
    pub const fn value(self) -> f64 {
        self.0
    }

    /// For findings that no cause made.
    #[cfg(test)]
    pub const fn of_test(value: f64) -> Self {
        Self(value)
    }
}

/// One constant for each number, in a module for each cause. A number without its line of reason does not compile.
macro_rules! numbers {
    ($($section:ident { $(#[doc = $reason:literal] $name:ident: $kind:ident = $value:literal;)* })*) => {
        $(
            pub mod $section {
                #[allow(unused_imports, reason = "not every section has a confidence")]
                use super::Confidence;
                $(#[doc = $reason] pub const $name: $kind = numbers!(@ $kind $value);)*
            }
        )*

        #[cfg(test)]
        const CONFIDENCES: &[(&str, f64)] = &[$($((
            concat!(stringify!($section), "::", stringify!($name), ": ", stringify!($kind)),
            $value as f64,
        ),)*)*];
    };
    (@ Confidence $value:literal) => { Confidence($value) };
    (@ $kind:ident $value:literal) => { $value };
}

numbers! {
    severity {
        /// Fewer failures are never an alarm, whatever their share: one or two are anybody's chance.
        FEWEST: u64 = 3;
        /// Share that surely failed where both of two did: they may be chance, and nobody was served.
        ALL_OF_TWO: f64 = 0.3;
        /// Of the whole host: a prober or a poller makes one or two in a window of seconds.
        FEW: u64 = 5;
        /// Share of a place's connections that surely failed: races and retired pools stay far below 1 %.
        SIZABLE: f64 = 0.015;
        /// Share that surely failed from which a place as good as fails: 3 of 3, 10 of 15.
        MOST: f64 = 0.4;
        /// Share that surely failed from which many failures are an outage: every tenth user and more.
        MUCH: f64 = 0.1;
        /// Fewer are no outage by share alone, and no warning about peers: seven times what may be chance.
        MANY: u64 = 20;
        /// Share of all connections of the host from which a fault is worth a warning, where its place's are not known.
        SIZABLE_OF_HOST: f64 = 0.05;
        /// The same from which it is an outage.
        MOST_OF_HOST: f64 = 0.2;
        /// Slower than this is no outage of a host: a user meets it by chance only.
        OUTAGE_PER_S: f64 = 1.0;
        /// Refused connects from which they may be a warning, whoever asks; of one who comes back, fewer are.
        REFUSED: u64 = 10;
        /// In a window of fewer seconds, as many in proportion: a tick is to see what a scan sees.
        REFUSED_IN_S: f64 = 3.0;
        /// Refused connects per second from which they are a warning: a poller asks once a second or less.
        REFUSED_PER_S: f64 = 2.0;
        /// Refused connects from which they may be an outage: no caller tries so often by habit.
        REFUSED_OUTAGE: u64 = 60;
        /// Refused connects per second from which they are an outage: users are asking, not a program that waits.
        REFUSED_OUTAGE_PER_S: f64 = 20.0;
        /// Share of a service's connections that clients surely reset which is worth a warning: they cancel up to a fifth.
        BY_CLIENTS: f64 = 0.3;
        /// The same of all connections of the host.
        BY_PEERS_OF_HOST: f64 = 0.4;
    }
    ranking {
        /// What is past explains what is seen now only where it is nearly as sure.
        HINTED: f64 = 1.6;
    }
    abortive_close {
        /// The kernel names the abort; connect(AF_UNSPEC) gives the same reason and is as deliberate.
        NAMED: Confidence = 0.92;
        /// TCPAbortOnData also counts data that met a socket closed here.
        COUNTED: Confidence = 0.65;
        /// The same, where the aborted connections may all be some that this host made, or those of a program that ended.
        COUNTED_OF_ANY: Confidence = 0.45;
    }
    accept_loop_stalled {
        /// Every owner is stopped, and the queue never got shorter.
        STOPPED: Confidence = 0.97;
        /// Every owner is stopped; the queue got shorter in the window, before the stop or by clients that gave up.
        STOPPED_LATE: Confidence = 0.9;
        /// Some owners are stopped and the full queue does not drain: the others may be parents that never accept.
        PARTLY_STOPPED: Confidence = 0.9;
        /// Every connection that entered a queue is still in it, by count.
        COUNTED: Confidence = 0.85;
        /// The queue never got shorter, and sockets in it have waited for seconds: a listener that is meant to wait looks the same.
        WAITED: Confidence = 0.85;
        /// Nobody counts what enters the queues: one that is refilled between two samples looks the same.
        UNCOUNTED: Confidence = 0.65;
        /// Nobody takes from the queue, and who should is not seen: out of file descriptors it looks the same.
        OWNER_NOT_SEEN: Confidence = 0.6;
        /// Seconds in the queue that no program which serves lets pass; a socket that waits there has no inode yet.
        WAITED_S: u64 = 2;
    }
    accept_queue_overflow {
        /// The counter moved and only this listener was seen full.
        SEEN_FULL: Confidence = 0.98;
        /// Several were seen full: how the loss is shared among them is estimated.
        SEVERAL_FULL: Confidence = 0.95;
        /// Not seen full, but the only one that dropped anything.
        NOT_SEEN_FULL: Confidence = 0.85;
        /// Several dropped something, which happens for other reasons too.
        SEVERAL_NOT_SEEN_FULL: Confidence = 0.7;
        /// Lost for certain, at a listener that is not known, and why it was full is not known either.
        NOWHERE_SEEN: Confidence = 0.75;
        /// Full for certain; that its owner, who is not seen, has stopped or has no descriptor left looks the same.
        OWNER_NOT_SEEN: Confidence = 0.75;
        /// Full in the last sample; it may drain before the next connection.
        FULL_NOW: Confidence = 0.9;
        /// The total since boot is exact, and may be years old.
        PAST: Confidence = 0.9;
        /// One lost among so many connections is a note: it is tried again after a second, and taken.
        RARE: u64 = 1_000;
        /// Lost connection attempts per second from which clients notice for certain.
        CRITICAL_PER_S: f64 = 1.0;
        /// Share of the samples from which a full queue is no burst.
        ALWAYS_FULL: f64 = 0.5;
        /// A queue that was full for so long, s, and hardly ever shorter, is no burst either.
        STAYS_FULL_S: f64 = 1.0;
        /// Samples in which it is full for each in which it got shorter.
        FULL_OF_SHORTER: u32 = 5;
        /// Share of the time from which a process that is ready to run and has no CPU is slow for that.
        WAITS_FOR_CPU: f64 = 0.3;
        /// Share of a CPU from which a process is too busy to accept, rather than waiting for something.
        BUSY: f64 = 0.5;
    }
    client_gave_up {
        /// All left after the same time since their request; a program that is killed at regular intervals looks the same.
        ONE_LIMIT: Confidence = 0.9;
        /// They left at any time: people who cancel, or clients that are killed.
        ANY_TIME: Confidence = 0.7;
        /// The peer's kernel took the requests, and its program neither answered nor closed, to the end of the window.
        HANGS: Confidence = 0.85;
        /// Who closes sooner after its last bytes did not wait for an answer: a log shipper, a check.
        WAITED_MS: u32 = 100;
    }
    close_wait_leak {
        /// The same sockets at both ends of the window, silent for long or more of them each time.
        STAYS: Confidence = 0.9;
        /// The same sockets at both ends of the window, which is all that is known.
        STAYS_SO_FAR: Confidence = 0.75;
        /// All that came in the window were left open: none of them is only passing.
        ALL_LEFT: Confidence = 0.75;
        /// Seen once, and silent for long: the silence may be from before the peer closed.
        SEEN_ONCE: Confidence = 0.7;
        /// A few of them, forgotten for very long.
        FORGOTTEN: Confidence = 0.8;
        /// Silent for less, ms: data is on its way, where that holds for nearly all of them.
        FLOWING_MS: u32 = 500;
        /// Fewer than this are no leak worth a warning.
        MANY: u64 = 20;
        /// Fewer than this are not reported, however old.
        SOME: u64 = 3;
        /// So many more in one window are a leak that grows.
        GROWING: u64 = 5;
    }
    close_with_unread_data {
        /// The kernel names the reason and the process.
        NAMED: Confidence = 0.95;
        /// The counter is exact; a program's own limit, one that ended or a complete answer move it alike.
        COUNTED: Confidence = 0.7;
        /// Without events it is open whether the peer had ended its session already.
        BY_PACKETS: Confidence = 0.75;
        /// Bytes, unread after an answer, that may be a goodbye: ssh(1) closes its channel and says goodbye in one.
        GOODBYE: u64 = 256;
        /// Most left a few bytes after an answer, as a goodbye does.
        PERHAPS_GOODBYES: Confidence = 0.45;
        /// The kernel names the processes, and that no signal ended them: whether it was a rule or a session's end is open.
        BY_CHILDREN: Confidence = 0.88;
    }
    closed_without_answer {
        /// Nobody of those that asked got a byte; a rule that drops unwanted requests does the same on purpose.
        NEARLY_ALL: Confidence = 0.8;
        /// Beside requests that were answered: clients that want something else of the port are likelier.
        SOME: Confidence = 0.6;
        /// A server that closes so long, ms, after the last that came ends what is idle.
        IDLE_MS: u32 = 5_000;
        /// Within this time, ms, beside others that are answered: a client that gives up has waited for longer.
        AT_ONCE_MS: u32 = 100;
        /// Seconds for which the side that closed first keeps its socket (TCP_TIMEWAIT_LEN).
        KEPT_S: f64 = 60.0;
        /// Share of the sockets that must be on one side to say who closed first: the table has a limit, and other uses.
        MOST: f64 = 0.8;
    }
    connect_unanswered {
        /// The SYN was sent again and nothing came back; the kernel says so of each socket.
        SILENT: Confidence = 0.93;
        /// As many ICMP errors left this host as came in; whether nobody has the address or a rule rejects is not seen.
        OWN_ERRORS: Confidence = 0.55;
        /// Connects that timed out by count; half-open handshakes move one of the counters too.
        COUNTED: Confidence = 0.65;
    }
    connection_limit {
        /// Nothing was read, while other connections of the program stay; a rule about who may connect looks the same.
        OTHERS_STAY: Confidence = 0.9;
        /// Nothing was read, and none stays: it may be a rule, or a program that is broken.
        ALL_LEAVE: Confidence = 0.75;
        /// By the sockets that were destroyed: the RSTs themselves were not seen.
        BY_SOCKETS: Confidence = 0.7;
        /// A few bytes and closed, nothing asked, while other connections stay; a host that may not connect is told so alike.
        DISMISSED: Confidence = 0.8;
    }
    conntrack_invalid {
        /// The port that is reset belongs to an open connection to another address: nothing else does that.
        AT_THE_CALLER: Confidence = 0.9;
        /// The client's own TCP reset and the client sends on; a device on the path can look the same.
        AT_THE_SERVER: Confidence = 0.7;
        /// Many of both, in like numbers, on a host that translates addresses.
        MATCHING: Confidence = 0.6;
        /// Scans and late packets are invalid too: the two numbers may be unrelated.
        UNRELATED: Confidence = 0.4;
        /// Fewer than this in a window are chance.
        ENOUGH: u64 = 3;
        /// Fewer than this match by chance.
        ENOUGH_TO_MATCH: u64 = 10;
        /// A table with fewer entries says little about whose connections they are.
        ENOUGH_TRACKED: u64 = 50;
    }
    conntrack_table_full {
        /// It dropped packets and is full.
        DROPPED_AND_FULL: Confidence = 0.97;
        /// It dropped packets and has room again; a failed allocation counts the same.
        DROPPED: Confidence = 0.75;
        /// It is full and threw entries out.
        EVICTED: Confidence = 0.95;
        /// Both numbers are exact; the load may fall before it is full.
        NEARLY_FULL: Confidence = 0.92;
        /// The total since boot counts failed allocations too.
        PAST: Confidence = 0.7;
        /// Share of the limit at which it counts as full: it is read a moment after the drop.
        FULL: f64 = 0.95;
        /// Share of the limit from which it is a risk.
        NEAR: f64 = 0.9;
    }
    ephemeral_ports_exhausted {
        /// No port is left by count; a connect() that chooses another source address succeeds.
        GONE: Confidence = 0.95;
        /// Every port is used, and hardly one of them twice: who does not bind first shares them between destinations.
        GONE_FOR_BIND: Confidence = 0.88;
        /// Ports in use are counted; whether more will be needed is not known.
        NEARLY_GONE: Confidence = 0.92;
        /// Share of the ports from which it is a risk: connect() begins to search for long.
        NEAR: f64 = 0.8;
        /// Share of the ports at which none is left: some come and go between the look and the connect().
        NONE_LEFT: f64 = 0.98;
    }
    fd_exhaustion {
        /// All owners are at the limit, or the queue was never taken from.
        CANNOT_ACCEPT: Confidence = 0.96;
        /// Some owners have descriptors left and the queue drains.
        SOME_CANNOT_ACCEPT: Confidence = 0.85;
        /// At or near the limit by exact numbers; nobody waits yet.
        NEAR_LIMIT: Confidence = 0.9;
        /// The whole host is out of files and clients wait; root's processes may still open some.
        HOST: Confidence = 0.85;
        /// Share of the limit from which it is a risk.
        NEAR: f64 = 0.95;
    }
    firewall_reject {
        /// A RST left that TCP did not send, at a place that is known.
        AT_A_PLACE: Confidence = 0.93;
        /// ICMP host unreachable: a rule may say so, but more often a DNAT target or a neighbour is down.
        HOST_UNREACHABLE: Confidence = 0.5;
        /// The same, on ports that have no service: a closed port looks much the same to the client.
        ELSEWHERE: Confidence = 0.9;
        /// More RSTs left than TCP sent, by count only.
        COUNTED: Confidence = 0.7;
        /// Rejected connects through this host to one service from which on they are no chance.
        FORWARD: u64 = 3;
        /// As many ICMP errors came in as connects failed; a router whose host is down sends them too.
        ICMP_COUNTED: Confidence = 0.6;
        /// ICMP errors left that UDP did not cause; a router sends them for hosts that are down.
        ICMP_SENT: Confidence = 0.5;
    }
    half_open {
        /// No cookie came back, and the requests are sent again and again.
        NO_COOKIE_AND_LINGERING: Confidence = 0.95;
        /// No cookie came back.
        NO_COOKIE: Confidence = 0.85;
        /// Few cookies came back, and the requests linger: some are real clients.
        FEW_COOKIES: Confidence = 0.75;
        /// No cookies were sent, and the requests linger.
        LINGERING: Confidence = 0.85;
        /// Share of returned cookies below which nobody answers.
        NONE_RETURNED: f64 = 0.1;
        /// Share of returned cookies below which a good part does not answer: a real client's is sent again at times.
        FEW_RETURNED: f64 = 0.4;
        /// Share of retransmitted requests from which nobody answers.
        MOST_LINGER: f64 = 0.7;
        /// Share of retransmitted requests from which it bears out the cookies.
        HALF_LINGER: f64 = 0.5;
        /// Share of retransmitted requests from which it is not clear.
        MANY_LINGER: f64 = 0.4;
        /// Fewer requests or cookies than this say nothing about a share.
        ENOUGH: u64 = 20;
    }
    handshake_reset {
        /// Both counters moved alike; an output rule that rejects SYN-ACKs moves them too.
        ALIKE: Confidence = 0.8;
        /// Without packets a firewall's refusal of our SYN-ACKs looks the same.
        NO_PACKETS: Confidence = 0.7;
        /// Accept queues overflowed as well, which moves one of the two.
        WITH_OVERFLOWS: Confidence = 0.6;
    }
    health_check_resets {
        /// Regular intervals; a client with a timer of its own looks the same.
        REGULAR: Confidence = 0.8;
    }
    idle_timeout {
        /// Many of them share a short age: a device that was set to it.
        SHARED_AGE: Confidence = 0.75;
        /// One connection, at the age of a known device.
        ONE_NEAR_KNOWN: Confidence = 0.6;
        /// Two connections, at an age that no known device has.
        TWO: Confidence = 0.5;
        /// Two at the age of a known device, or more at another.
        SEVERAL: Confidence = 0.7;
        /// More than two, at the age of a known device.
        SEVERAL_NEAR_KNOWN: Confidence = 0.85;
        /// Ages that differ by less than this factor are one limit, seen at different moments.
        SAME_AGE: f64 = 1.25;
        /// One may be chance.
        WARNING: u64 = 2;
        /// Share of the limit after which a pool should drop a connection: well before the device does.
        POOL_LIMIT: f64 = 0.8;
    }
    idle_without_keepalive {
        /// Idle for certain; whether a device on the path forgets them is not known.
        IDLE: Confidence = 0.6;
        /// From this many on one service it is worth a warning, even though the path is unknown.
        LARGE: u64 = 1000;
    }
    keepalive_timeout {
        /// The kernel names the reason.
        NAMED: Confidence = 0.95;
        /// Only keepalive can have given up, by counters.
        COUNTED: Confidence = 0.8;
        /// The retransmission timer gave up too, and moves the same counter.
        MIXED: Confidence = 0.5;
    }
    exchange {
        /// Packets and counters agree on what ended the connections; no event says so of each, or names the process.
        NO_EVENT: Confidence = 0.85;
        /// Share of the resets of a place that may be known less well than the others without a word: records are lost under load.
        FEW_RECORDS: f64 = 0.1;
        /// Values that differ from the middle one by less than this share are one timer's.
        ONE_TIMER: f64 = 0.25;
    }
    late_data_after_close {
        /// Seconds in which a program that is reloaded closes what is idle: the signal, and the time between two looks.
        BURST_S: f64 = 0.5;
        /// Share of the window that such bursts take at most; a program that closes too early does so all the time.
        IN_BURSTS: f64 = 0.25;
        /// Seconds. A shorter pause before a close is none.
        SHORTEST_IDLE_S: f64 = 0.5;
        /// The kernel names the reason; a peer that repeats lost data looks the same.
        NAMED: Confidence = 0.93;
        /// Workers of the program were replaced, and the closes came in bursts; its own faults may be among them.
        RELOADED: Confidence = 0.85;
        /// The kernel names the reason; whether the program said goodbye to an idle caller or answered slowly is not known.
        GOODBYE_OR_ANSWER: Confidence = 0.75;
        /// The counter also moves for SO_LINGER 0, which is more frequent.
        COUNTED: Confidence = 0.4;
    }
    listener_closed {
        /// The kernel says that a listener took its queue along.
        NAMED: Confidence = 0.95;
        /// A listener with a queue went away, and as many connections were reset, by counters; a process that crashes looks so, too.
        COUNTED: Confidence = 0.75;
        /// The same, with fewer resets counted than it would explain.
        COUNTED_IN_PART: Confidence = 0.5;
        /// It went away for certain; it may have been meant.
        EMPTY: Confidence = 0.9;
        /// Who listened is not seen: it may have ended.
        OWNER_NOT_SEEN: Confidence = 0.7;
        /// Connects were refused between two listeners of the port; whose fault that is was not seen.
        COMES_AND_GOES: Confidence = 0.85;
    }
    middlebox_reset {
        /// A capture of the other end has the connections and the time, and not the RSTs.
        NEVER_SENT: Confidence = 0.95;
        /// The same, where the clocks are taken as equal, or that capture lost other packets.
        NEVER_SENT_PERHAPS: Confidence = 0.6;
        /// A few with a TTL that the peer never has: a load balancer at its side may differ for good reasons.
        OTHER_TTL: Confidence = 0.9;
        /// One or two of these.
        OTHER_TTL_RARE: Confidence = 0.7;
        /// Several whose IP ids do not continue the peer's: devices near the peer renumber too.
        OTHER_ID: Confidence = 0.6;
        /// Several RSTs in a row, or data after them; packets that overtake each other look alike.
        BEHAVIOUR: Confidence = 0.7;
        /// More than one of these.
        OTHER_ID_RARE: Confidence = 0.5;
        /// A single one.
        OTHER_ID_ONCE: Confidence = 0.4;
    }
    orphan_limit {
        /// Aborted, with the orphans at their limit.
        AT_LIMIT: Confidence = 0.95;
        /// Aborted, with orphans that count double not far from it.
        NEAR_LIMIT: Confidence = 0.85;
        /// Aborted far from the limit, but the memory, which moves the same counter, is farther.
        NOT_MEMORY: Confidence = 0.75;
        /// Aborted, and neither limit is near any more.
        EITHER: Confidence = 0.5;
        /// The limit is not visible, and memory was short.
        SHORT_OF_MEMORY: Confidence = 0.4;
        /// The limit is not visible, and memory was not short.
        LIMIT_UNSEEN: Confidence = 0.6;
        /// Exact numbers; nobody was aborted yet.
        RISK: Confidence = 0.85;
        /// The total since boot does not say which of the two limits.
        PAST: Confidence = 0.6;
        /// Share of the limit from which it is a risk: an orphan that waits long counts at least twice (tcp_out_of_resources).
        NEAR: f64 = 0.5;
        /// Share of a limit that is reached but for what was aborted since.
        REACHED: f64 = 0.9;
        /// Share of the orphans from which they can have been at their limit: they count up to four times.
        POSSIBLE: f64 = 0.25;
        /// Share of the memory below which it was not the memory.
        FAR_FROM_MEMORY: f64 = 0.5;
    }
    out_of_window_reset {
        /// SYNs in open connections, as many of which were reset.
        RESET_AFTER_SYN: Confidence = 0.9;
        /// SYNs in open connections, not all of which were reset.
        SYN: Confidence = 0.75;
        /// No SYN: RSTs out of sequence, or ACKs of data never sent.
        NO_SYN: Confidence = 0.6;
    }
    peer_idle_limit {
        /// The peer's FIN came after the same idle time again and again.
        ONE_LIMIT: Confidence = 0.92;
        /// Once, after the default of a known server.
        ONE_NEAR_KNOWN: Confidence = 0.65;
        /// Share of the limit after which a pool should drop a connection: well before the peer does.
        POOL_LIMIT: f64 = 0.8;
        /// Seconds. A shorter pause is none: the server ends connections for another reason.
        SHORTEST_S: f64 = 0.5;
        /// Share of a known server's default from which a measured limit is that: timers are late, never early.
        OF_KNOWN: f64 = 0.9;
    }
    packets {
        /// The packets prove it: two things at least speak for it, and nothing else fits.
        SURELY: Confidence = 0.95;
        /// It fits, and the look-alikes fit less; a capture does not see programs and queues.
        LIKELY: Confidence = 0.8;
        /// One of several that fit alike.
        PERHAPS: Confidence = 0.55;
        /// Share of a service's connections that failed from which a capture is worth a warning, however short it is.
        SIZABLE: f64 = 0.1;
    }
    peer_reset {
        /// Single events with their peers.
        NAMED: Confidence = 0.92;
        /// Half or more have an IP id or a TTL that is not the peer's.
        PERHAPS_FORGED: Confidence = 0.4;
        /// Both ends may be on this host.
        PERHAPS_OWN: Confidence = 0.4;
        /// This host sent RSTs too: some of the counted connections may have ended by those.
        WITH_SENT: Confidence = 0.5;
        /// Nothing else moves the counter, and the packets look like the peer's.
        LIKE_THE_PEERS: Confidence = 0.8;
        /// Nothing else moves the counter; that a device on the way sent them looks the same without packets.
        COUNTED: Confidence = 0.7;
    }
    peer_restarted {
        /// Resets and refusals by one destination within seconds; one of several servers behind it looks the same.
        RESET_THEN_REFUSED: Confidence = 0.9;
    }
    port_scan {
        /// One source, ten or more closed ports; a client with a wrong list of ports looks the same.
        MANY_PORTS: Confidence = 0.92;
    }
    port_without_listener {
        /// The kernel names the reason and nothing listens there: many, and often.
        NAMED: Confidence = 0.93;
        /// The same in small numbers: it may be a segment of an old connection.
        NAMED_FEW: Confidence = 0.9;
        /// Who listens was not seen: the port may be open on another address.
        LISTENERS_UNSEEN: Confidence = 0.6;
        /// Nor were packets: the segment may have been no SYN.
        PACKETS_UNSEEN: Confidence = 0.5;
        /// Seconds between connects of a program that needs the service; checks of what may be optional come every ten.
        RETRIES_WITHIN_S: f64 = 6.0;
        /// Seconds in which programs of this host wait for a service that is about to start.
        STARTS_WITHIN_S: f64 = 10.0;
        /// By counters, both sides of it on this host.
        COUNTED_HERE: Confidence = 0.65;
        /// By counters, what nothing else explains.
        COUNTED: Confidence = 0.4;
    }
    process_exit {
        /// The kernel names the process that closed, and it is gone.
        NAMED: Confidence = 0.92;
        /// The kernel told of the signal that ended each.
        BY_SIGNAL: Confidence = 0.95;
        /// The listener's owner is gone, and the kernel killed a process for lack of memory.
        KILLED: Confidence = 0.88;
        /// The listener's owner is gone, and nobody serves the port.
        UNSERVED: Confidence = 0.82;
        /// The listener's owner is gone, and events show resets and refusals at its port.
        WITH_KNOWN_RESETS: Confidence = 0.9;
        /// The listener's owner is gone, and there were resets that it may have sent.
        WITH_RESETS: Confidence = 0.75;
        /// It may have closed its sockets and live on.
        GONE: Confidence = 0.6;
        /// Others of its name took over: a reload does that, and so does a parent after a crash.
        REPLACED: Confidence = 0.45;
        /// The kernel told of each process that ended and of the listener that it closed by that.
        KEEPS_ENDING: Confidence = 0.94;
        /// Milliseconds between two ends of one program; workers that end together are closer.
        APART_MS: u64 = 300;
    }
    retransmission_timeout {
        /// Keepalive's were counted one by one and are taken off.
        EVENTS: Confidence = 0.92;
        /// No keepalive probe was sent, and no RST is unexplained.
        NO_KEEPALIVE: Confidence = 0.75;
        /// A RST that nothing else explains may have been keepalive's.
        MIXED: Confidence = 0.6;
        /// Single peers vanish on every healthy host: fewer are no warning.
        MANY: u64 = 10;
        /// Sockets that retransmit now are seen as they are; why nobody acknowledges is not.
        STUCK_NOW: Confidence = 0.75;
        /// Share of a place's connections that surely get no acknowledgement: peers that vanished are far fewer.
        STUCK: f64 = 0.2;
    }
    slow_reader {
        /// Much was in flight, and the kernel says that the peer's window held it back.
        HELD_BACK: Confidence = 0.88;
        /// Much lay unread here; a server that ends for another reason in that moment looks the same.
        UNREAD_HERE: Confidence = 0.65;
    }
    socket_destroyed {
        /// The kernel names the caller; a BPF program that destroys sockets looks the same.
        NAMED: Confidence = 0.93;
    }
    stale_connection {
        /// The kernel names the reason; a forged segment looks the same.
        NAMED: Confidence = 0.9;
        /// A service was restarted, and RSTs are left that nothing else explains.
        COUNTED: Confidence = 0.5;
    }
    syn_flood {
        /// The queue fills with requests that linger; nothing is lost yet.
        FILLING: Confidence = 0.6;
        /// A queue overflowed, and it is not clear whether the handshakes complete.
        UNCLEAR: Confidence = 0.4;
        /// Share of retransmitted requests from which a queue that is not full is worth telling.
        FILLING_LINGER: f64 = 0.8;
    }
    syn_queue_overflow {
        /// The handshakes were seen to complete.
        CLIENTS: Confidence = 0.9;
        /// Nothing says that the handshakes do not complete.
        PROBABLY_CLIENTS: Confidence = 0.8;
        /// Many handshakes do not complete: it may be a flood.
        UNCLEAR: Confidence = 0.6;
        /// Dropped SYNs per second from which clients notice for certain.
        CRITICAL_PER_S: f64 = 1.0;
    }
    tcp_memory_exhausted {
        /// Beyond the limit, or at it and connections were aborted.
        USED_UP: Confidence = 0.95;
        /// Under pressure, and segments were dropped.
        DROPPED: Confidence = 0.92;
        /// The pressure mark was passed in the window.
        PRESSURE: Confidence = 0.85;
        /// Exact numbers; nothing was lost yet.
        RISK: Confidence = 0.9;
        /// Share of the limit that is reached but for what was freed since.
        NEAR: f64 = 0.9;
    }
    text {
        /// What a log or counters since boot speak for most: more often right than not, and old perhaps.
        FIRST: Confidence = 0.6;
        /// The first of many that one line may mean, where nothing else in the text speaks for it: of the lab's logs less than half.
        AMONG_MANY: Confidence = 0.4;
        /// The second.
        SECOND: Confidence = 0.35;
        /// One of the rest.
        FURTHER: Confidence = 0.15;
    }
    time_wait_table_full {
        /// It overflowed and is full.
        OVERFLOWED_AND_FULL: Confidence = 0.97;
        /// It overflowed and has room again; without memory for an entry the kernel counts the same.
        OVERFLOWED: Confidence = 0.8;
        /// Exact numbers; the load may fall before it is full.
        NEARLY_FULL: Confidence = 0.85;
        /// The total since boot is exact.
        PAST: Confidence = 0.9;
        /// Share of the limit from which it is a risk.
        NEAR: f64 = 0.95;
    }
    packets_discarded {
        /// The kernel counts what it throws away and why, and not whose it is: it may be nobody's who is missed.
        COUNTED: Confidence = 0.75;
        /// As many answers without a route as SYNs that a listener dropped with its queue not full.
        NO_ROUTE: Confidence = 0.85;
        /// Fewer are strangers.
        MANY: u64 = 5;
        /// One in so many of the connections that came about.
        ONE_IN: u64 = 10;
        /// Lost without any connection that came about.
        OUTAGE: u64 = 20;
    }
    timestamp_rejected {
        /// The kernel gives the timestamp as the reason of RSTs.
        NAMED: Confidence = 0.92;
        /// By counters; segments that took a detour are dropped rightly.
        COUNTED: Confidence = 0.85;
        /// So few are segments that took a detour, rather than a timestamp that jumps.
        FEW: Confidence = 0.5;
        /// Fewer are segments that took a detour.
        MANY: u64 = 20;
        /// The same, for slower ones.
        MANY_PER_S: f64 = 1.0;
    }
    upstream_refused {
        /// A RST in SYN_SENT, from a server that is named.
        NAMED: Confidence = 0.95;
        /// Failed attempts less the peers' resets and the timeouts.
        COUNTED: Confidence = 0.7;
    }
    wrong_bind_address {
        /// The kernel names the reason, and the port is open on another address.
        NAMED: Confidence = 0.92;
    }
}

#[cfg(test)]
mod tests {
    use super::CONFIDENCES;
    use crate::cause::REGISTRY;

    #[test]
    fn a_confidence_is_a_probability_that_is_never_certain() {
        let confidences: Vec<_> = CONFIDENCES.iter().filter(|(name, _)| name.ends_with("Confidence")).collect();
        assert!(confidences.len() > REGISTRY.len());
        for (name, value) in confidences {
            assert!(*value > 0.0 && *value < 1.0, "{name} is {value}");
        }
    }

    #[test]
    fn every_cause_has_its_section() {
        for cause in REGISTRY {
            let section = format!("{}::", cause.id.replace('-', "_"));
            // A flood is judged by what half-open connections show.
            assert!(CONFIDENCES.iter().any(|(name, _)| name.starts_with(&section)), "{} has none", cause.id);
        }
    }
}
