//! Error numbers as Linux gives them to programs.

use std::fmt;

/// An errno(3) of include/uapi/asm-generic/errno.h, the numbers of every architecture but alpha, mips, parisc and sparc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub u16);

/// Those that the kernel puts on a TCP socket, with their names and the texts of strerror(3).
const KNOWN: [(Errno, &str, &str); 12] = [
    (Errno(1), "EPERM", "Operation not permitted"),
    (Errno(13), "EACCES", "Permission denied"),
    (Errno::PIPE, "EPIPE", "Broken pipe"),
    (Errno(71), "EPROTO", "Protocol error"),
    (Errno(90), "EMSGSIZE", "Message too long"),
    (Errno(92), "ENOPROTOOPT", "Protocol not available"),
    (Errno::NETWORK_UNREACHABLE, "ENETUNREACH", "Network is unreachable"),
    (Errno::ABORTED, "ECONNABORTED", "Software caused connection abort"),
    (Errno::RESET, "ECONNRESET", "Connection reset by peer"),
    (Errno::TIMED_OUT, "ETIMEDOUT", "Connection timed out"),
    (Errno::REFUSED, "ECONNREFUSED", "Connection refused"),
    (Errno::HOST_UNREACHABLE, "EHOSTUNREACH", "No route to host"),
];

impl Errno {
    pub const PIPE: Self = Self(32);
    pub const NETWORK_UNREACHABLE: Self = Self(101);
    pub const ABORTED: Self = Self(103);
    pub const RESET: Self = Self(104);
    pub const TIMED_OUT: Self = Self(110);
    pub const REFUSED: Self = Self(111);
    pub const HOST_UNREACHABLE: Self = Self(113);

    /// `ECONNRESET`; `None` for one that is not known here.
    pub fn name(self) -> Option<&'static str> {
        KNOWN.iter().find(|(errno, ..)| *errno == self).map(|(_, name, _)| *name)
    }

    /// What a program prints of it: `Connection reset by peer`.
    pub fn words(self) -> Option<&'static str> {
        KNOWN.iter().find(|(errno, ..)| *errno == self).map(|(.., words)| *words)
    }
}

/// `Connection reset by peer (104)`.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some(words) => write!(f, "{words} ({})", self.0),
            None => write!(f, "error {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_programs_print_it() {
        assert_eq!(Errno(libc::ECONNRESET as u16).to_string(), "Connection reset by peer (104)");
        assert_eq!(Errno(9999).to_string(), "error 9999");
        for (errno, _, words) in KNOWN {
            let printed = std::io::Error::from_raw_os_error(errno.0.into()).to_string();
            assert!(printed.starts_with(words), "{printed}");
        }
    }
}
