//! What the ends of connections tell: whom this host had called, and whether a request was under way.

use std::net::SocketAddr;

use crate::observation::{Endings, View};
use crate::reset::End;
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
    /// A request was waiting for its answer.
    pub fn under_way(&self) -> bool {
        // A server that worked on it had received last, a client that waited had sent last.
        match self.called {
            Some(_) => self.socket.asked_last(),
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
    endings.endings.iter().map(of).collect()
}
