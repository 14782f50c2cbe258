//! Error texts that people find in logs: what each means on the wire, who is at fault, and which causes lead to it.

use std::sync::LazyLock;

use serde::Deserialize;

/// One error text with its explanation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorText {
    /// The text as people know it, with the program that prints it where it is peculiar to one.
    pub name: String,
    matches: Vec<Vec<String>>,
    /// What happened on the wire, in two sentences.
    pub meaning: String,
    /// Who is at fault, in which case.
    pub fault: Vec<String>,
    /// Ids of causes that lead to it, the likeliest first; empty for a program's own error.
    pub causes: Vec<String>,
    /// Commands that tell the causes apart; words in capitals are to be filled in.
    pub tell_apart: Vec<String>,
    pub change: String,
}

#[derive(Deserialize)]
struct File {
    text: Vec<ErrorText>,
}

/// All texts of `error_texts.toml`, the particular before the general.
pub static ERROR_TEXTS: LazyLock<Vec<ErrorText>> = LazyLock::new(|| {
    // The file is part of the binary, and a test parses it.
    toml::from_str::<File>(include_str!("error_texts.toml")).map(|file| file.text).unwrap_or_default()
});

/// Texts that occur in a line of a log or in words a person typed, the best first. Upper and lower case are alike.
pub fn matches(text: &str) -> Vec<&'static ErrorText> {
    let lower = text.to_lowercase();
    // A line often holds a general text inside a particular one ("recv() failed (104: Connection reset by peer)"): the
    // file's order puts the particular first, because its author knows better than a length.
    ERROR_TEXTS.iter().filter(|known| known.occurs_in(&lower)).collect()
}

impl ErrorText {
    fn occurs_in(&self, lower: &str) -> bool {
        self.matches.iter().any(|parts| parts.iter().all(|part| part_occurs(lower, part)))
    }
}

/// A part that begins or ends with a letter or digit must not be cut out of a longer number or word at a digit: `errno 9`
/// is not in `errno 98`, `10053` not in `110053`.
fn part_occurs(lower: &str, part: &str) -> bool {
    let (word, part) = match part.strip_prefix('=') {
        Some(rest) => (true, rest),
        None => (false, part),
    };
    let inside = |neighbour: Option<char>, edge: Option<char>| match (neighbour, edge) {
        (Some(neighbour), Some(edge)) if word => neighbour.is_alphanumeric() && edge.is_alphanumeric(),
        (Some(neighbour), Some(edge)) => neighbour.is_ascii_digit() && edge.is_ascii_digit(),
        _ => false,
    };
    lower.match_indices(part).any(|(at, found)| {
        let before = lower.get(..at).and_then(|text| text.chars().next_back());
        let after = lower.get(at + found.len()..).and_then(|text| text.chars().next());
        !inside(before, found.chars().next()) && !inside(after, found.chars().next_back())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(line: &str) -> &'static str {
        matches(line).first().map_or("nothing", |text| text.name.as_str())
    }

    #[test]
    fn the_file_is_complete() {
        assert!(ERROR_TEXTS.len() >= 30);
        for text in ERROR_TEXTS.iter() {
            assert!(!text.matches.is_empty() && !text.fault.is_empty() && !text.tell_apart.is_empty(), "{}", text.name);
            let parts = text.matches.iter().flatten();
            assert!(parts.clone().all(|part| *part == part.to_lowercase() && part.len() >= 3), "{}", text.name);
            let id = |cause: &String| cause.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            assert!(text.causes.iter().all(id), "{}", text.name);
            // One screen holds it all.
            assert!((40..=260).contains(&text.meaning.len()), "{}: {}", text.name, text.meaning);
        }
    }

    #[test]
    fn log_lines_of_real_programs_are_recognised() {
        let lines = [
            (
                "2026/11/20 14:02:11 [error] 4122#0: *91 upstream prematurely closed connection while reading response header from upstream, client: 10.0.0.1",
                "nginx: upstream prematurely",
            ),
            (
                "[error] 31#31: *5 recv() failed (104: Connection reset by peer) while reading response header from upstream",
                "nginx: recv() failed (104",
            ),
            (
                "[error] 31#31: *5 connect() failed (111: Connection refused) while connecting to upstream",
                "nginx: connect() failed (111",
            ),
            (
                "connect() to unix:/run/php/php8.2-fpm.sock failed (11: Resource temporarily unavailable) while connecting to upstream",
                "nginx: connect() failed (11:",
            ),
            (
                "[crit] 7#7: *1 connect() to 10.0.0.2:80 failed (99: Cannot assign requested address) while connecting to upstream",
                "Cannot assign",
            ),
            (r#"10.0.0.7 - - [20/Nov/2026:14:02:11 +0000] "GET /slow HTTP/1.1" 499 0 "-" "curl/8.5.0""#, "nginx 499"),
            (
                "haproxy[71]: 10.0.0.1:3317 [20/Nov/2026:14:02:11.100] fe be/s1 0/0/-1/-1/3 503 217 - - SC-- 1/1/0/0/3 0/0",
                "HAProxy SC",
            ),
            (
                "haproxy[71]: 10.0.0.1:3317 [20/Nov/2026] fe be/s1 0/0/1/9/13 200 217 - - SD-- 1/1/0/0/0 0/0",
                "HAProxy SD",
            ),
            (
                "haproxy[71]: 10.0.0.1:3317 [20/Nov/2026] fe be/s1 0/0/1/-1/13 502 217 - - SH-- 1/1/0/0/0 0/0",
                "HAProxy SH",
            ),
            (
                "haproxy[71]: 10.0.0.1:3317 [20/Nov/2026] fe be/s1 0/0/1/-1/13 -1 0 - - CD-- 1/1/0/0/0 0/0",
                "HAProxy CC, CD",
            ),
            ("java.net.SocketException: Connection reset", "Connection reset by peer"),
            ("java.net.SocketException: Broken pipe (Write failed)", "Broken pipe"),
            ("org.apache.http.NoHttpResponseException: api:8080 failed to respond", "Java: NoHttpResponseException"),
            ("java.net.BindException: Address already in use (Bind failed)", "Java: BindException"),
            ("java.net.ConnectException: Connection refused (Connection refused)", "Connection refused"),
            ("java.net.SocketException: Socket is closed", "Socket is closed"),
            ("java.net.SocketTimeoutException: connect timed out", "SocketTimeoutException: connect"),
            ("java.net.SocketTimeoutException: Read timed out", "SocketTimeoutException: read"),
            (
                "[WinError 10053] An established connection was aborted by the software in your host machine",
                "Windows 10053",
            ),
            (
                "System.Net.Sockets.SocketException (10054): An existing connection was forcibly closed by the remote host.",
                "Windows 10054",
            ),
            ("No connection could be made because the target machine actively refused it. (10061)", "Windows 10061"),
            ("read tcp 10.0.0.1:41232->10.0.7.1:5432: read: connection reset by peer", "Connection reset by peer"),
            (r#"Get "http://api/": http: server closed idle connection"#, "Go: http: server closed"),
            (r#"Post "http://api/": EOF"#, "EOF"),
            ("ConnectionResetError: [Errno 104] Connection reset by peer", "Connection reset by peer"),
            (
                "http.client.RemoteDisconnected: Remote end closed connection without response",
                "Python: RemoteDisconnected",
            ),
            ("BrokenPipeError: [Errno 32] Broken pipe", "Broken pipe"),
            (
                "Error: read ECONNRESET at TCP.onStreamRead (node:internal/stream_base_commons:218:20)",
                "Connection reset by peer",
            ),
            ("Error: socket hang up at connResetException (node:internal/errors:720:14)", "Node: socket hang up"),
            ("Error: write EPIPE", "Broken pipe"),
            ("curl: (7) Failed to connect to api port 80 after 0 ms: Couldn't connect to server", "curl (7)"),
            ("curl: (35) OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to api:443", "curl (35)"),
            ("curl: (52) Empty reply from server", "curl (52)"),
            ("curl: (56) Recv failure: Connection reset by peer", "curl (56)"),
            (
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
                "Envoy",
            ),
            ("accept4() failed (24: Too many open files)", "Too many open files"),
            ("OSError: [Errno 9] Bad file descriptor", "Bad file descriptor"),
            ("OSError: [Errno 107] Transport endpoint is not connected", "Transport endpoint"),
        ];
        for (line, wanted) in lines {
            assert!(best(line).starts_with(wanted), "{line}\n  gave {}, wanted {wanted}", best(line));
        }
    }

    #[test]
    fn the_general_text_follows_the_particular_one() {
        let names: Vec<_> =
            matches("recv() failed (104: Connection reset by peer)").iter().map(|text| text.name.as_str()).collect();
        assert_eq!(names.len(), 2);
        assert!(names[1].starts_with("Connection reset by peer"));
    }

    #[test]
    fn numbers_and_words_are_not_cut_out_of_longer_ones() {
        assert!(matches("request 110053 took 9 ms, user geoff").is_empty());
        assert!(best("OSError: [Errno 98] Address already in use").starts_with("Java: BindException"));
        assert_eq!(best("everything is fine"), "nothing");
        assert!(matches("").is_empty());
    }
}
