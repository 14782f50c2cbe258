//! The kernel call chain of a reset: which path sent it.

use super::Caller;
use super::format::Order;
use super::record::CONTEXT_MARKS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symbol {
    Path(Caller),
    Exit,
}

/// The functions of the symbols block.
fn symbol(name: &str) -> Option<Symbol> {
    // Compilers split functions: tcp_abort.cold, mptcp_do_fastclose.part.0.
    Some(match name.split('.').next()? {
        "inet_csk_listen_stop" => Symbol::Path(Caller::ListenerStop),
        "tcp_abort" => Symbol::Path(Caller::Destroy),
        "__tcp_close" | "tcp_close" => Symbol::Path(Caller::Close),
        "tcp_disconnect" => Symbol::Path(Caller::Disconnect),
        "tcp_keepalive_timer" => Symbol::Path(Caller::KeepaliveTimer),
        // tcp_out_of_resources() below it may be inlined; the timer sends for nothing else.
        "tcp_write_timer" | "tcp_write_timer_handler" => Symbol::Path(Caller::WriteTimer),
        "tcp_check_req" => Symbol::Path(Caller::CheckRequest),
        "mptcp_subflow_reset" | "mptcp_do_fastclose" => Symbol::Path(Caller::Mptcp),
        "do_exit" => Symbol::Exit,
        _ => return None,
    })
}

/// Whether the presence of this function in a call chain tells resets apart.
pub fn is_telling(name: &str) -> bool {
    symbol(name).is_some()
}

/// Address ranges of those functions in the running kernel.
#[derive(Debug, Default)]
pub struct Symbols {
    /// In order of their starts.
    ranges: Vec<(u64, u64, Symbol)>,
}

impl Symbols {
    /// The symbols block: `START END NAME`, hexadecimal; lines that are not of interest are skipped.
    pub fn read(text: &str) -> Self {
        let ranges = text.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (start, end) = (words.next()?, words.next()?);
            let number = |word| u64::from_str_radix(word, 16).ok();
            Some((number(start)?, number(end)?, symbol(words.next()?)?))
        });
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_by_key(|(start, ..)| *start);
        // Functions with the same code have one address.
        ranges.dedup_by_key(|(start, ..)| *start);
        Self { ranges }
    }

    fn within(&self, address: u64) -> Option<Symbol> {
        let behind = self.ranges.partition_point(|(start, ..)| *start <= address);
        let (_, end, symbol) = self.ranges.get(behind.checked_sub(1)?)?;
        (address < *end).then_some(*symbol)
    }

    /// The path, and whether the process was exiting.
    ///
    /// tcp_disconnect() also runs below __tcp_close() (linger 0) and inet_csk_listen_stop(), and the latter below
    /// tcp_abort() or __tcp_close() of the listener: the most telling function of the chain wins, not the innermost. A timer
    /// first: it runs on top of whatever it interrupted.
    pub fn path(&self, chain: &[u8], order: Order) -> (Option<Caller>, bool) {
        const TELLING: [Caller; 8] = [
            Caller::KeepaliveTimer,
            Caller::WriteTimer,
            Caller::ListenerStop,
            Caller::Mptcp,
            Caller::Destroy,
            Caller::Close,
            Caller::Disconnect,
            Caller::CheckRequest,
        ];
        // A bit for each, without an allocation: in a storm there are thousands of chains a second.
        let bit = |caller: Caller| 1_u16 << caller as u16;
        let (mut found, mut exiting) = (0, false);
        for address in chain.chunks_exact(8).filter_map(|word| order.number(word)).filter(|a| *a < CONTEXT_MARKS) {
            // A return address lies behind the call, so the last byte of the call decides.
            match self.within(address.wrapping_sub(1)) {
                Some(Symbol::Path(caller)) => found |= bit(caller),
                Some(Symbol::Exit) => exiting = true,
                None => {}
            }
        }
        let contains = |caller: &Caller| found & bit(*caller) != 0;
        let telling = TELLING.into_iter().find(contains);
        let disconnects = contains(&Caller::Disconnect);
        (telling.map(|caller| if caller == Caller::Close && disconnects { Caller::Linger } else { caller }), exiting)
    }
}
