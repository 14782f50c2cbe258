//! What a line says of a connection: the other end, the client, the path of the request.

use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};

use super::compiled;

/// One end of a connection as a program prints it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// An address or a name without brackets; the path of a unix socket.
    pub host: String,
    pub port: Option<u16>,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) if self.host.is_empty() => write!(f, "port {port}"),
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// What was found in a line. What it does not say is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields {
    /// The server that the program of the line talked to, or tried to.
    pub server: Option<End>,
    /// The client that it served.
    pub client: Option<String>,
    /// Path of the request, without the query.
    pub path: Option<String>,
    /// Seconds for which the connection had been idle, where the line says so.
    pub idle: Option<f64>,
}

/// Longest name of a host or path that is kept, in bytes.
const LONGEST: usize = 120;

const SERVERS: [&str; 15] = [
    // HAProxy: backend and server
    r"\] \S+ (?P<host>[\w.-]+/[\w.-]+) -?\d+/-?\d+/-?\d+",
    // nginx
    r#"upstream: "(?:[a-z]+:/?/?)?(?P<host>unix:[^":]+|\[[0-9a-fA-F:.]+\]|[^"/:]+)(?::(?P<port>\d+))?"#,
    // Go
    r"\d->\[?(?P<host>[0-9a-fA-F.:]+?)\]?:(?P<port>\d+)\b",
    r"dial tcp (?:\S+->)?(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]+):(?P<port>\d+)\b",
    // Node
    r"\bE[A-Z]{4,12} (?P<host>[0-9a-zA-Z][\w.-]*|[0-9a-fA-F:]*:[0-9a-fA-F]*):(?P<port>\d+)\b",
    // Envoy, Traefik
    r#"\b(?:upstream_host|upstream_addr|ServiceAddr)"?[:= ]+"?(?P<host>[\w.-]+):(?P<port>\d+)"#,
    // PostgreSQL
    r#"server (?:at|on) "(?P<host>[^"]+)"(?: \([^)]*\))?,? port (?P<port>\d+)"#,
    r#"on host "(?P<host>[^"]+)".* port (?P<port>\d+)"#,
    // curl, ssh
    r"(?:onnect|onnection) to (?:host )?(?P<host>[\w.:-]+) port (?P<port>\d+)",
    // Python
    r"host='(?P<host>[^']+)', port=(?P<port>\d+)",
    // MySQL
    r"server on '(?P<host>[^':]+)(?::(?P<port>\d+))?'",
    // the kernel: its own listeners and firewall
    r"\bon port (?:\S*:)?(?P<host>)(?P<port>\d+)\b",
    r"\bDST=(?P<host>\S+) .*\bDPT=(?P<port>\d+)",
    // Apache, Java, HAProxy
    r"(?:remote server|backend|[Cc]onnect(?:ion)? to|connecting to|host) /?(?P<host>[\w.-]+):(?P<port>\d+)\b",
    // anything: an address with a port
    r"(?:^|[^\d.])(?P<host>\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}):(?P<port>\d{1,5})\b",
];

const CLIENTS: [&str; 7] = [
    r"\b(?:ClientAddr|ClientHost|downstream_remote_address|remote_addr|remote_ip|client_ip)=\[?(?P<it>[0-9a-fA-F]*[.:][0-9a-fA-F.:]*?)\]?(?::\d+)?(?:\s|$)",
    r"(?:^|: )(?P<it>\d{1,3}(?:\.\d{1,3}){3}):\d+ \[\d\d/[A-Z]",
    r"\bclient: (?P<it>[0-9a-fA-F]*[.:][0-9a-fA-F.:]+)",
    r"\[client (?P<it>[0-9a-fA-F.:]+?)(?::\d+)?\]",
    r"\b(?:from|by)(?: authenticating| invalid)?(?: user \S*)? \[?(?P<it>\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]*:[0-9a-fA-F:]+)\]?(?: port |:)\d+",
    r"\bSRC=(?P<it>\S+)",
    r"^(?P<it>\d{1,3}(?:\.\d{1,3}){3}) - ",
];

const PATHS: [&str; 2] = [
    r"\b(?:GET|POST|PUT|DELETE|HEAD|PATCH|OPTIONS) (?:https?://[^/ ]+)?(?P<it>/[^\s?\x22\x23]*)",
    r"\b(?:[Pp]ath|RequestPath|request_path|uri|request_uri)=(?P<it>/[^\s?\x22\x23]*)",
];

const IDLES: [&str; 3] = [
    r"received from the server was (?P<it>[\d,]+) (?P<unit>milliseconds)",
    r"\bidle (?:for |time[ :=]+)(?P<it>\d+(?:\.\d+)?) ?(?P<unit>ms|s|sec|seconds|milliseconds|min|minutes)\b",
    r"\bafter (?P<it>\d+(?:\.\d+)?) ?(?P<unit>ms|s|seconds|minutes) (?:idle|of inactivity)\b",
];

struct Patterns {
    servers: Vec<Regex>,
    clients: Vec<Regex>,
    paths: Vec<Regex>,
    idles: Vec<Regex>,
}

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| Patterns {
    servers: compiled(SERVERS),
    clients: compiled(CLIENTS),
    paths: compiled(PATHS),
    idles: compiled(IDLES),
});

/// Reads the line; the first pattern that fits wins.
pub fn read(line: &[u8]) -> Fields {
    let patterns = &*PATTERNS;
    let (server, client) = ends(line);
    Fields {
        server,
        client,
        path: patterns.paths.iter().find_map(|regex| text(&regex.captures(line)?, "it")),
        idle: patterns.idles.iter().find_map(|regex| seconds(&regex.captures(line)?)),
    }
}

/// Only the two ends, for lines that hold no error.
pub fn ends(line: &[u8]) -> (Option<End>, Option<String>) {
    let patterns = &*PATTERNS;
    let server = patterns.servers.iter().find_map(|regex| end(&regex.captures(line)?));
    (server, patterns.clients.iter().find_map(|regex| text(&regex.captures(line)?, "it")))
}

fn text(captures: &Captures<'_>, name: &str) -> Option<String> {
    let bytes = captures.name(name)?.as_bytes();
    Some(String::from_utf8_lossy(bytes.get(..bytes.len().min(LONGEST))?).into_owned())
}

fn end(captures: &Captures<'_>) -> Option<End> {
    let host = text(captures, "host")?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let port = match captures.name("port") {
        Some(_) => Some(text(captures, "port")?.parse().ok().filter(|port| *port > 0)?),
        None => None,
    };
    Some(End { host, port })
}

fn seconds(captures: &Captures<'_>) -> Option<f64> {
    let number: f64 = text(captures, "it")?.replace(',', "").parse().ok()?;
    let unit = match text(captures, "unit")?.as_str() {
        "ms" | "milliseconds" => 0.001,
        "min" | "minutes" => 60.0,
        _ => 1.0,
    };
    Some(number * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_patterns_are_sound() {
        let patterns = &*PATTERNS;
        assert_eq!(patterns.servers.len(), SERVERS.len());
        assert_eq!(patterns.clients.len(), CLIENTS.len());
        assert_eq!(patterns.paths.len() + patterns.idles.len(), PATHS.len() + IDLES.len());
    }

    #[test]
    fn the_server_of_a_line_is_found() {
        for (line, wanted) in [
            (
                r#"while reading response header from upstream, client: 10.0.0.1, request: "GET /a HTTP/1.1", upstream: "http://10.0.0.7:9000/a""#,
                "10.0.0.7:9000",
            ),
            (r#"upstream: "fastcgi://unix:/run/php/php7.1-fpm.sock:", host: "x""#, "unix:/run/php/php7.1-fpm.sock"),
            (r#"upstream: "http://[2001:db8::7]:80/""#, "[2001:db8::7]:80"),
            ("read tcp 10.0.0.1:41232->10.0.7.1:5432: read: connection reset by peer", "10.0.7.1:5432"),
            ("dial tcp [::1]:9200: connect: connection refused", "[::1]:9200"),
            ("dial tcp db.internal:5432: i/o timeout", "db.internal:5432"),
            ("Error: connect ECONNREFUSED ::1:3306", "[::1]:3306"),
            ("Error: connect ECONNREFUSED 127.0.0.1:3306", "127.0.0.1:3306"),
            (r#"connection to server at "db" (10.0.0.5), port 5432 failed: Connection refused"#, "db:5432"),
            ("curl: (7) Failed to connect to api port 80 after 0 ms", "api:80"),
            ("ssh: connect to host 10.0.0.5 port 22: No route to host", "10.0.0.5:22"),
            ("HTTPConnectionPool(host='api', port=8080): Max retries exceeded", "api:8080"),
            ("Can't connect to MySQL server on 'db:3306' (111)", "db:3306"),
            ("Possible SYN flooding on port 80. Sending cookies.", "port 80"),
            ("Possible SYN flooding on port [::]:443. Sending cookies.", "port 443"),
            ("error reading status line from remote server 10.0.0.7:8080", "10.0.0.7:8080"),
        ] {
            assert_eq!(read(line.as_bytes()).server.map(|end| end.to_string()).as_deref(), Some(wanted), "{line}");
        }
        let haproxy =
            "haproxy[71]: 10.0.0.1:3317 [20/Nov/2026:14:02:11.100] fe be/s1 0/0/1/-1/13 502 217 - - SH-- 1/1/0/0/0 0/0";
        assert_eq!(read(haproxy.as_bytes()).server.map(|end| end.to_string()).as_deref(), Some("be/s1"));
        assert_eq!(read(haproxy.as_bytes()).client.as_deref(), Some("10.0.0.1"));
        assert_eq!(read(b"everything is fine at 14:02:11, port 99999999").server, None);
        assert_eq!(read(b"from 10.0.0.1:99999").server, None);
    }

    #[test]
    fn client_path_and_idle_time_are_found() {
        let fields = read(br#"client: 172.31.22.62, server: _, request: "POST /post/article?id=7 HTTP/1.1", upstream"#);
        assert_eq!(fields.client.as_deref(), Some("172.31.22.62"));
        assert_eq!(fields.path.as_deref(), Some("/post/article"));
        let fields =
            read(b"ClientAddr=10.0.0.9:51234\nDownstreamStatus=502\nServiceAddr=10.0.0.7:8080\nRequestPath=/api\n");
        assert_eq!((fields.client.as_deref(), fields.path.as_deref()), (Some("10.0.0.9"), Some("/api")));
        assert_eq!(fields.server.and_then(|end| end.port), Some(8080));
        let fields = read(b"drop connection #17 from [198.51.100.10]:52488 on [192.0.2.10]:22 past MaxStartups");
        assert_eq!(fields.client.as_deref(), Some("198.51.100.10"));
        let fields = read(b"The last packet successfully received from the server was 28,801,123 milliseconds ago.");
        assert_eq!(fields.idle, Some(28_801.123));
        assert_eq!(read(b"closed after 350 s idle").idle, Some(350.0));
    }
}
