//! A server for one kind of request, GET, that nobody can hold up: each connection has one request, a deadline for all of it and
//! a bound of its size, and there is a bound of connections.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::thread;

/// From the first byte to the last.
const DEADLINE: Duration = Duration::from_secs(5);
/// Of the head of a request; none has a body.
const LARGEST: usize = 8 << 10;
const HEADERS: usize = 64;
const MOST: usize = 8;

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: Status,
    pub content_type: &'static str,
    pub body: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    BadRequest,
    NotFound,
    NotAllowed,
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::NotAllowed => "405 Method Not Allowed",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

impl Response {
    /// A line for people.
    pub fn plain(status: Status, text: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n") }
    }
}

/// Answers a path, with what the client accepts.
pub type Answer = dyn Fn(&str, &str) -> Response + Send + Sync;

/// Serves until the program ends.
///
/// # Errors
/// The address is in use or not of this host, or no thread can be started.
pub fn serve(address: SocketAddr, answer: Arc<Answer>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    let open = Arc::new(AtomicUsize::new(0));
    thread::start("http", move || {
        for stream in listener.incoming() {
            // Out of descriptors, or the client is gone: the next one may come through.
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            let slot = Slot::take(&open);
            let full = slot.is_none();
            let answer = Arc::clone(&answer);
            if full {
                let _ = send(
                    &stream,
                    Instant::now() + Duration::from_millis(50),
                    &Response::plain(Status::Unavailable, "busy"),
                );
                continue;
            }
            // Without a thread it is closed unanswered.
            let _ = thread::start("http client", move || {
                let _slot = slot;
                let _ = one(&stream, &*answer);
            });
        }
    })?;
    Ok(bound)
}

/// One of the connections that may be open.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let before = open.fetch_add(1, Ordering::Relaxed);
        let slot = Self(Arc::clone(open));
        (before < MOST).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn one(mut stream: &TcpStream, answer: &Answer) -> io::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut head = Vec::new();
    let response = loop {
        let mut buffer = [0; 1024];
        stream.set_read_timeout(Some(left(deadline)?))?;
        let read = stream.read(&mut buffer)?;
        head.extend_from_slice(buffer.get(..read).unwrap_or_default());
        match parse(&head, answer) {
            Some(response) => break response,
            None if read == 0 || head.len() > LARGEST => break Response::plain(Status::BadRequest, "not a request"),
            None => {}
        }
    };
    send(stream, deadline, &response)
}

/// `None` as long as the head is not complete.
fn parse(head: &[u8], answer: &Answer) -> Option<Response> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(error) => return Some(Response::plain(Status::BadRequest, &error.to_string())),
    }
    if request.method != Some("GET") {
        return Some(Response::plain(Status::NotAllowed, "only GET"));
    }
    let accept = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("accept"));
    let accept = accept.and_then(|header| std::str::from_utf8(header.value).ok()).unwrap_or_default();
    let path = request.path.unwrap_or_default();
    Some(answer(path.split('?').next().unwrap_or_default(), accept))
}

fn send(mut stream: &TcpStream, deadline: Instant, response: &Response) -> io::Result<()> {
    let allow = if response.status == Status::NotAllowed { "Allow: GET\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        response.status.line(),
        response.content_type,
        response.body.len()
    );
    let bytes = [head.as_bytes(), response.body.as_bytes()].concat();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // Not a RST: what the client still sends is read, for a moment.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut buffer = [0; 1024];
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    for _ in 0..LARGEST / buffer.len() {
        if !matches!(stream.read(&mut buffer), Ok(1..)) {
            break;
        }
    }
    Ok(())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> SocketAddr {
        let answer = |path: &str, accept: &str| match path {
            "/x" => Response::plain(Status::Ok, accept),
            _ => Response::plain(Status::NotFound, "no"),
        };
        serve("127.0.0.1:0".parse().unwrap(), Arc::new(answer)).unwrap()
    }

    fn ask(server: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn what_is_no_get_is_answered_with_an_error() {
        let server = server();
        let ok = ask(server, b"GET /x?y=1 HTTP/1.1\r\nHost: a\r\nACCEPT: text/plain\r\n\r\n");
        assert!(ok.starts_with("HTTP/1.1 200 OK\r\n") && ok.ends_with("\r\n\r\ntext/plain\n"), "{ok}");
        assert!(ask(server, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(server, b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").starts_with("HTTP/1.1 405"));
        assert!(ask(server, b"\x16\x03\x01 no http\r\n\r\n").starts_with("HTTP/1.1 400"));
        let long = [b"GET /x HTTP/1.1\r\nA: ".as_slice(), &vec![b'a'; 2 * LARGEST]].concat();
        assert!(ask(server, &long).starts_with("HTTP/1.1 400"));
    }

    /// Connections that say nothing are at most so many, and each ends at its deadline.
    #[test]
    fn a_slow_client_harms_nobody_for_long() {
        let server = server();
        let idle: Vec<TcpStream> = (0..MOST).map(|_| TcpStream::connect(server).unwrap()).collect();
        let status = || ask(server, b"GET /x HTTP/1.1\r\n\r\n").get(9..12).map(str::to_owned);
        assert_eq!(status().as_deref(), Some("503"));
        // The server closes each of them, unanswered, while its client still holds it.
        for mut stream in &idle {
            stream.set_read_timeout(Some(10 * DEADLINE)).unwrap();
            assert_eq!(stream.read(&mut [0; 1]).unwrap_or_default(), 0);
        }
        // A slot is free a moment after its connection is closed.
        let waited = Instant::now();
        while status().as_deref() == Some("503") && waited.elapsed() < 10 * DEADLINE {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(status().as_deref(), Some("200"));
    }
}
