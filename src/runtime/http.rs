//! A server for one kind of request, GET, that nobody can hold up: each connection has one request, deadlines and a bound of its
//! size, and there is a bound of connections, where one that asks nothing for a while gives way to a new one.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::thread;

mod accept;

pub use accept::prefers;

/// For a whole request, and for its answer.
const ASKING: Duration = Duration::from_secs(1);
const ANSWERING: Duration = Duration::from_secs(5);
/// Of the head of a request; none has a body.
const LARGEST: usize = 8 << 10;
const HEADERS: usize = 64;
const MOST: usize = 16;
/// So long nobody who has connected gives way before having asked: those who come at once have mostly asked by then.
const GRACE: Duration = Duration::from_millis(10);
/// Clients that wait for their turn; net.core.somaxconn bounds it.
const BACKLOG: i32 = 4096;
/// What a client sends beyond its request is read so long and so far: a socket that is closed with unread data sends a RST, and
/// the client may not see the answer. Whoever has been answered gives way to the next at once.
const DRAINING: Duration = Duration::from_secs(5);
const DRAINED: usize = 64 << 20;

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
    // std asks for 128; on a listener listen(2) only changes the backlog. As many as the host allows wait then.
    let _ = rustix::net::listen(&listener, BACKLOG);
    let bound = listener.local_addr()?;
    let places = Places::default();
    thread::start("http", move || {
        for stream in listener.incoming() {
            // Out of descriptors, or the client is gone: the next one may come through.
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            let stream = Arc::new(stream);
            let Some(place) = places.take(&stream) else {
                refuse(&stream);
                continue;
            };
            let answer = Arc::clone(&answer);
            // Without a thread it is closed unanswered.
            let _ = thread::start("http client", move || one(&stream, &place, &*answer));
        }
    })?;
    Ok(bound)
}

/// The connections that are open, the oldest first.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<Vec<Client>>>);

struct Client {
    stream: Arc<TcpStream>,
    since: Instant,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asking,
    /// Its request is complete, and not answered yet.
    Answering,
    Answered,
}

/// One of them; dropping it frees its place.
struct Place {
    places: Places,
    stream: Arc<TcpStream>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Vec<Client>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if all of them are being answered.
    fn take(&self, stream: &Arc<TcpStream>) -> Option<Place> {
        let mut clients = self.lock();
        while clients.len() >= MOST {
            let first = |state: State| clients.iter().position(|client| client.state == state);
            let idle = first(State::Answered).or_else(|| first(State::Asking))?;
            let early = clients.get(idle).filter(|client| client.state == State::Asking);
            if let Some(left) = early.and_then(|client| GRACE.checked_sub(client.since.elapsed())) {
                drop(clients);
                std::thread::sleep(left.min(GRACE / 10));
                clients = self.lock();
                continue;
            }
            // Its thread reads the end of the stream.
            let _ = clients.remove(idle).stream.shutdown(Shutdown::Both);
        }
        clients.push(Client { stream: Arc::clone(stream), since: Instant::now(), state: State::Asking });
        Some(Place { places: self.clone(), stream: Arc::clone(stream) })
    }
}

impl Place {
    fn is(&self, state: State) {
        let mut clients = self.places.lock();
        let own = clients.iter_mut().find(|client| Arc::ptr_eq(&client.stream, &self.stream));
        own.into_iter().for_each(|client| client.state = state);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().retain(|client| !Arc::ptr_eq(&client.stream, &self.stream));
    }
}

fn one(stream: &TcpStream, place: &Place, answer: &Answer) -> io::Result<()> {
    let asked = asked(stream, answer)?;
    place.is(State::Answering);
    send(stream, &asked)?;
    place.is(State::Answered);
    drain(stream);
    Ok(())
}

/// What is sent to a client, once it has asked.
fn asked(mut stream: &TcpStream, answer: &Answer) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + ASKING;
    let mut head = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        stream.set_read_timeout(Some(left(deadline)?))?;
        let read = stream.read(&mut buffer)?;
        head.extend_from_slice(buffer.get(..read).unwrap_or_default());
        match parse(&head, answer) {
            Some(bytes) => return Ok(bytes),
            None if read == 0 || head.len() > LARGEST => {
                return Ok(bytes(&Response::plain(Status::BadRequest, "not a request"), true));
            }
            None => {}
        }
    }
}

/// `None` as long as the head is not complete.
fn parse(head: &[u8], answer: &Answer) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(error) => return Some(bytes(&Response::plain(Status::BadRequest, &error.to_string()), true)),
    }
    let with_body = request.method != Some("HEAD");
    if with_body && request.method != Some("GET") {
        return Some(bytes(&Response::plain(Status::NotAllowed, "only GET and HEAD"), true));
    }
    // Several lines of one name are one list (RFC 9110 section 5.3).
    let accept = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("accept"));
    let accept: Vec<&str> = accept.filter_map(|header| std::str::from_utf8(header.value).ok()).collect();
    let path = path(request.path.unwrap_or_default());
    Some(bytes(&answer(path.split('?').next().unwrap_or_default(), &accept.join(",")), with_body))
}

/// That of a target in absolute form, which is to be accepted as well (RFC 9112 section 3.2.2).
fn path(target: &str) -> &str {
    let Some((scheme, rest)) = target.split_once("://") else { return target };
    if !scheme.eq_ignore_ascii_case("http") {
        return target;
    }
    rest.find(['/', '?']).and_then(|at| rest.get(at..)).filter(|path| path.starts_with('/')).unwrap_or("/")
}

fn bytes(response: &Response, with_body: bool) -> Vec<u8> {
    let allow = if response.status == Status::NotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        response.status.line(),
        response.content_type,
        response.body.len()
    );
    (head + if with_body { &response.body } else { "" }).into_bytes()
}

fn send(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + ANSWERING;
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.shutdown(Shutdown::Write)
}

fn drain(mut stream: &TcpStream) {
    let deadline = Instant::now() + DRAINING;
    let mut buffer = [0; 32 << 10];
    for _ in 0..DRAINED / buffer.len() {
        let Ok(left) = left(deadline) else { return };
        if stream.set_read_timeout(Some(left)).is_err() || !matches!(stream.read(&mut buffer), Ok(1..)) {
            return;
        }
    }
}

/// Waits for nothing: nobody else is accepted meanwhile.
fn refuse(mut stream: &TcpStream) {
    let busy = bytes(&Response::plain(Status::Unavailable, "busy"), true);
    let _ = stream.set_nonblocking(true);
    let _ = stream.read(&mut [0; LARGEST]);
    let _ = stream.write(&busy);
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
        let absolute = ask(server, b"GET http://127.0.0.1:9469/x?y HTTP/1.1\r\nAccept: a\r\nAccept: b\r\n\r\n");
        assert!(absolute.starts_with("HTTP/1.1 200 OK\r\n") && absolute.ends_with("\r\n\r\na,b\n"), "{absolute}");
        assert!(ask(server, b"GET http://127.0.0.1:9469 HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(server, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(server, b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").starts_with("HTTP/1.1 405"));
        assert!(ask(server, b"\x16\x03\x01 no http\r\n\r\n").starts_with("HTTP/1.1 400"));
        let long = [b"GET /x HTTP/1.1\r\nA: ".as_slice(), &vec![b'a'; 2 * LARGEST]].concat();
        assert!(ask(server, &long).starts_with("HTTP/1.1 400"));
    }

    /// The answer arrives whole, and no RST instead of it.
    #[test]
    fn whoever_sends_too_much_gets_the_answer() {
        let long = [b"GET /x HTTP/1.1\r\nA: ".as_slice(), &vec![b'a'; 100_000]].concat();
        for _ in 0..20 {
            assert!(ask(server(), &long).ends_with("not a request\n"));
        }
        let large =
            [b"POST /x HTTP/1.1\r\nContent-Length: 4000000\r\n\r\n".as_slice(), &vec![b'a'; 4_000_000]].concat();
        assert!(ask(server(), &large).starts_with("HTTP/1.1 405"));
        let head = ask(server(), b"HEAD /x HTTP/1.1\r\nAccept: text/plain\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("Content-Length: 11\r\n"), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "no body: {head}");
    }

    #[test]
    fn slow_clients_harm_nobody() {
        let server = server();
        let half = || {
            let mut stream = TcpStream::connect(server).unwrap();
            stream.write_all(b"GET /x").unwrap();
            stream
        };
        let slow: Vec<TcpStream> = (0..40 * MOST).map(|_| half()).collect();
        for _ in 0..10 {
            let begun = Instant::now();
            let answer = ask(server, b"GET /x HTTP/1.1\r\n\r\n");
            assert_eq!(answer.get(9..12), Some("200"));
            assert!(begun.elapsed() < ASKING, "{:?}", begun.elapsed());
        }
        // All are closed, without a RST, while their clients still hold them.
        for mut stream in &slow {
            stream.set_read_timeout(Some(10 * ASKING)).unwrap();
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
        }
    }
}
