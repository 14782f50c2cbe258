//! What the ends of connections tell: whom this host had called, and whether a request was under way.

use std::net::SocketAddr;
use std::time::Duration;

use crate::observation::{Endings, View};
use crate::reset::{End, Exchange};
use crate::source::destroyed_sockets::DestroyedSocket;
use crate::source::sysctl;

/// A destroyed connection.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    pub socket: &'a DestroyedSocket,
    pub end: End,
    /// Whom this host had called; `None` where it was the server.
    pub called: Option<SocketAddr>,
}

impl Ended<'_> {
    /// A connect of this host that failed: there never was a connection.
    pub fn never_open(&self) -> bool {
        self.called.is_some() && self.socket.unacknowledged_altogether
    }

    /// A client that was told nothing: closed right after accept with all that it had sent unread. The kernel answers that
    /// with a RST (net/ipv4/tcp.c __tcp_close), whether or not it was seen.
    pub fn turned_away(&self) -> bool {
        let unread = self.socket.bytes_received > Some(0) && self.end == End::Other;
        unread && self.called.is_none() && Exchange::of_close(self.socket) == Some(Exchange::TurnedAway)
    }

    /// A client that was told something short and left alone.
    pub fn dismissed(&self) -> bool {
        self.called.is_none() && self.end == End::Other && Exchange::is_dismissal(self.socket)
    }

    /// How long this connection of ours had been without data when the peer closed it, if a request that came after the pause
    /// was reset.
    pub fn closed_by_peer_after(&self) -> Option<Duration> {
        let socket = self.socket;
        let used = self.end == End::ResetAfterFin && socket.asked_last() && socket.unacknowledged > 0;
        // The FIN is the last that came with an acknowledgement.
        let idle = socket.data_received_ms.saturating_sub(socket.ack_received_ms);
        (used && socket.bytes_received > Some(0)).then(|| Duration::from_millis(u64::from(idle)))
    }

    /// A request was waiting for its answer.
    pub fn under_way(&self) -> bool {
        // A server that worked on it had received last, a client that waited had sent last.
        match self.called {
            // What was not acknowledged is a part of a request, even where an answer overtook it.
            Some(_) => self.socket.asked_last() || self.socket.unacknowledged > 0,
            None => self.socket.data_received_ms < self.socket.data_sent_ms,
        }
    }
}

/// The connections that ended in the window.
pub fn ended<'a>(view: View<'a>, endings: &'a Endings) -> Vec<Ended<'a>> {
    let ephemeral = sysctl::ephemeral_ports(&view.after().sysctls);
    let of = |ending: &'a crate::reset::Ending| {
        let socket = &ending.socket;
        let client = socket.unanswered || ephemeral.is_caller(socket.local.port(), socket.peer.port());
        Ended { socket, end: ending.end, called: client.then_some(socket.peer) }
    };
    // A listener that was closed is told of, too (tcp_close(), sk_free()), and had no peer.
    let connection = |ending: &&crate::reset::Ending| !ending.socket.peer.ip().is_unspecified();
    endings.endings.iter().filter(connection).map(of).collect()
}
