//! Which limit makes an accept queue as short as it is: what the application asked for, net.core.somaxconn, or a
//! somaxconn that was lower when the application called listen().
//!
//! The kernel keeps min(listen() argument, somaxconn) at the time of the call and forgets the argument (net/socket.c
//! __sys_listen_socket), so the argument is inferred from the limit that is left and from what the program is known to
//! pass.

use crate::knowledge::servers::{self, Server};
use crate::source::owners::Process;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BindingLimit {
    /// The argument of listen().
    Application,
    /// net.core.somaxconn.
    Somaxconn,
    /// somaxconn was raised after listen(); the listener still has the old limit.
    Stale,
}

impl BindingLimit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Somaxconn => "somaxconn",
            Self::Stale => "stale",
        }
    }
}

/// The defaults that net.core.somaxconn has had: 128, and 4096 since Linux 5.4.
const SOMAXCONN_DEFAULTS: [u64; 2] = [128, 4096];

/// Decides which limit binds a listener with this backlog. `None` where it may be either: of a program that is not known nobody can say
/// whether it asked for so little, or for more while somaxconn was lower.
pub fn binding_limit(backlog: u64, somaxconn: u64, owners: &[&Process]) -> Option<BindingLimit> {
    if backlog == somaxconn {
        return Some(BindingLimit::Somaxconn);
    }
    if backlog > somaxconn {
        // somaxconn was lowered after listen(): the listener keeps what it got.
        return Some(BindingLimit::Application);
    }
    let known = known_server(owners)?;
    let wanted = known.backlog.default;
    let follows = known.backlog.follows_somaxconn;
    // A program known to ask for more got less, and not because of today's somaxconn.
    let capped_earlier = follows || wanted.is_some_and(|wanted| wanted > backlog);
    Some(match capped_earlier && (follows || SOMAXCONN_DEFAULTS.contains(&backlog)) {
        true => BindingLimit::Stale,
        false => BindingLimit::Application,
    })
}

/// The known server among the owners of a socket.
pub fn known_server(owners: &[&Process]) -> Option<&'static Server> {
    owners.iter().find_map(|process| servers::server_of(process))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str) -> Process {
        Process { name: name.to_owned(), ..Process::default() }
    }

    #[test]
    fn a_backlog_equal_to_somaxconn_was_cut_by_it() {
        assert_eq!(binding_limit(128, 128, &[&process("nginx")]), Some(BindingLimit::Somaxconn));
    }

    #[test]
    fn nginx_at_its_default_asked_for_no_more() {
        assert_eq!(binding_limit(511, 4096, &[&process("nginx")]), Some(BindingLimit::Application));
    }

    #[test]
    fn nginx_at_an_old_somaxconn_default_is_older_than_the_raise() {
        assert_eq!(binding_limit(128, 4096, &[&process("nginx")]), Some(BindingLimit::Stale));
    }

    #[test]
    fn an_unknown_program_with_a_small_backlog_may_have_asked_for_it_or_been_cut() {
        assert_eq!(binding_limit(5, 4096, &[&process("own-server")]), None);
        assert_eq!(binding_limit(5, 4096, &[]), None, "nor one that is hidden");
    }

    #[test]
    fn a_listener_above_a_lowered_somaxconn_is_bound_by_the_application() {
        assert_eq!(binding_limit(511, 128, &[&process("nginx")]), Some(BindingLimit::Application));
    }
}
