//! Real servers with the faults that their users meet. Configuration and data live in a tmpfs of the scenario's own.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::common::{PORT, SERVICE, echo_server, good_traffic, nginx, redis};
use super::{Need, Scenario};
use crate::lab::counters::{moved, still};
use crate::lab::net;
use crate::lab::stage::{Stage, Stop};
use crate::lab::tally::Tally;
use crate::lab::temporary::DIRECTORY;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n";

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "server-nginx-backlog",
        "accept-queue-overflow",
        "nginx with backlog=8, and a regular expression that costs much CPU per request",
        "listen 8080 backlog=8; location ~ ^/(a+)+$; ab -c 32 http://10.77.0.1:8080/aaaaaaaaaaaaaaaaaaaaaab",
        |stage| {
            let slow = "listen 10.77.0.1:8080 backlog=8; location ~ '^/(a+)+$' { return 204; }";
            nginx(stage, 512, "", slow, false)?;
            storm(stage, b"GET /aaaaaaaaaaaaaaaaaaaaaab HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n");
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .process("nginx")
    .needs(&[Need::Program("nginx"), Need::Files])
    .never(&["syn-flood"])
    .shows(&[moved("ListenOverflows")]),
    Scenario::fault(
        "server-nginx-413",
        "close-with-unread-data",
        "nginx refuses a large upload early (413) and closes with most of it unread",
        "client_max_body_size 1k; lingering_close off; lingering_time 0; curl --data-binary @large http://10.77.0.1:8080/",
        |stage| {
            // lingering_close off alone is not enough: a body that is being discarded lingers for lingering_time
            // (nginx 1.22, ngx_http_finalize_connection).
            let http = "client_max_body_size 1k; lingering_close off; lingering_time 0; keepalive_timeout 0;";
            nginx(stage, 512, http, "listen 10.77.0.1:8080;", false)?;
            repeat(stage, 4, 40, |tally| {
                let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) else { return };
                let head = b"POST / HTTP/1.1\r\nHost: lab\r\nContent-Length: 1000000\r\n\r\n";
                let sent = stream.write_all(head).and_then(|()| stream.write_all(&vec![b'x'; 1_000_000]));
                tally.note("upload", sent);
                tally.note("answer", net::drain(&mut stream));
            });
            stage.observe(2.5)
        },
    )
    .port(PORT)
    .process("nginx")
    .needs(&[Need::Program("nginx"), Need::Files])
    .never(&["abortive-close"])
    .shows(&[moved("TCPAbortOnClose")]),
    Scenario::fault(
        "server-nginx-keepalive",
        "late-data-after-close",
        "nginx closes idle upstream connections sooner than the caller's pool does",
        "keepalive_timeout 200ms; a proxy in front that keeps its connections longer",
        |stage| {
            nginx(stage, 512, "keepalive_timeout 200ms;", "listen 10.77.0.1:8080;", false)?;
            repeat(stage, 4, 10, |tally| pooled(tally, 230));
            stage.observe(2.5)
        },
    )
    .port(PORT)
    .needs(&[Need::ResetEvents, Need::ResetEvents, Need::Program("nginx"), Need::Files])
    .never(&["close-with-unread-data", "peer-reset"])
    .shows(&[moved("OutRsts"), still("TCPAbortOnClose")]),
    Scenario::healthy(
        "healthy-nginx-reload",
        "nginx reloads three times under load: by design nothing is lost",
        "nginx -s reload, under ab -c 4",
        |stage| {
            let nginx = nginx(stage, 512, "", "listen 10.77.0.1:8080;", true)?;
            repeat(stage, 4, 5, |tally| {
                if let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) {
                    let request = b"GET / HTTP/1.0\r\n\r\n";
                    let asked = stream.write_all(request).and_then(|()| net::drain(&mut stream));
                    tally.note("request", asked);
                }
            });
            stage.fault(&stage.here.clone(), move |window, tally| {
                for _ in 0..3 {
                    window.sleep(500);
                    tally.note("reload", nginx.signal(Signal::HUP));
                }
            });
            stage.observe(2.5)
        },
    )
    .needs(&[Need::Program("nginx"), Need::Files])
    .shows(&[still("ListenOverflows"), still("TCPAbortOnClose")]),
    Scenario::fault(
        "server-redis-backlog",
        "accept-queue-overflow",
        "redis with tcp-backlog 8 runs long commands while clients connect",
        "redis-server --tcp-backlog 8; DEBUG SLEEP 0.2 again and again (KEYS * on a large database); redis-benchmark -c 32",
        |stage| {
            redis(stage, &["--tcp-backlog", "8", "--enable-debug-command", "yes"])?;
            stage.fault(&stage.client.clone(), |window, tally| {
                let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) else { return };
                window.every(5, || {
                    tally.note("slow command", net::exchange(&mut stream, b"DEBUG SLEEP 0.2\r\n"));
                });
            });
            storm(stage, b"PING\r\n");
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .process("redis-server")
    .needs(&[Need::Program("redis-server"), Need::Files])
    .never(&["syn-flood"])
    .shows(&[moved("ListenOverflows")]),
    Scenario::healthy(
        "healthy-haproxy-connect-checks",
        "a real HAProxy checks this host's port: it resets before the handshake is complete",
        "haproxy with: server web 10.77.0.1:8080 check inter 400ms; good traffic beside it",
        |stage| haproxy(stage, ""),
    )
    .needs(&[Need::Program("haproxy"), Need::Files])
    // HAProxy turns TCP_QUICKACK off and sets SO_LINGER 0, so the RST goes out instead of the last ACK of the handshake.
    .shows(&[moved("EmbryonicRsts"), still("OutRsts")]),
    Scenario::healthy(
        "healthy-haproxy-checks",
        "a real HAProxy sends a check request and ends it with RST",
        "haproxy with: option tcp-check, tcp-check send, tcp-check expect; good traffic beside it",
        |stage| {
            let check = "    option tcp-check\n    tcp-check connect\n    tcp-check send hello\n    tcp-check expect string hello\n";
            haproxy(stage, check)
        },
    )
    .needs(&[Need::Program("haproxy"), Need::Files])
    .shows(&[moved("EstabResets"), still("OutRsts")]),
    Scenario::fault(
        "server-java-backlog",
        "accept-queue-overflow",
        "a Java server (JDK HttpServer, backlog 4) whose handlers are slow",
        "HttpServer.create(address, 4) with a handler that takes 150 ms; the same as Tomcat's acceptCount",
        |stage| {
            let file = format!("{DIRECTORY}/Slow.java");
            fs::write(&file, JAVA)?;
            let mut java = Command::new("java");
            java.args(["-XX:-UsePerfData", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx64m", &file]);
            stage.daemon(&stage.here.clone(), &mut java, PORT)?;
            storm(stage, REQUEST);
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .process("java")
    .needs(&[Need::Program("javac"), Need::Files])
    .never(&["syn-flood"])
    .shows(&[moved("ListenOverflows")]),
    Scenario::fault(
        "server-gunicorn-backlog",
        "accept-queue-overflow",
        "gunicorn with one sync worker and --backlog 8 behind a slow view",
        "gunicorn --backlog 8 -w 1 app:app, where a request takes 150 ms; ab -c 32",
        |stage| {
            fs::write(format!("{DIRECTORY}/labapp.py"), PYTHON)?;
            let mut gunicorn = Command::new("gunicorn");
            gunicorn.args(["--bind", "10.77.0.1:8080", "--backlog", "8", "-w", "1", "--chdir", DIRECTORY]);
            gunicorn.args(["--worker-tmp-dir", DIRECTORY, "labapp:app"]);
            stage.daemon(&stage.here.clone(), &mut gunicorn, PORT)?;
            storm(stage, REQUEST);
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .process("gunicorn")
    .needs(&[Need::Program("gunicorn"), Need::Files])
    .never(&["syn-flood"])
    .shows(&[moved("ListenOverflows")]),
    Scenario::fault(
        "server-node-keepalive",
        "late-data-after-close",
        "Node closes idle connections (keepAliveTimeout) sooner than the caller's pool does",
        "server.keepAliveTimeout = 100 (Node adds 1 s); a proxy in front that keeps its connections longer",
        |stage| {
            stage.daemon(&stage.here.clone(), Command::new("node").args(["-e", NODE]), PORT)?;
            // Node 20 waits a second longer than it announces.
            repeat(stage, 8, 10, |tally| pooled(tally, 1300));
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .needs(&[Need::ResetEvents, Need::Program("node")])
    .never(&["close-with-unread-data", "peer-reset"])
    .shows(&[moved("OutRsts"), still("TCPAbortOnClose")]),
];

const HAPROXY: &str = "\
defaults
    mode tcp
    timeout connect 1s
    timeout client 1s
    timeout server 1s
frontend front
    bind 10.77.0.2:9000
    default_backend back
backend back
";

const JAVA: &str = r#"
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

public class Slow {
    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("10.77.0.1", 8080), 4);
        server.createContext("/", exchange -> {
            try { Thread.sleep(150); } catch (InterruptedException e) { }
            exchange.sendResponseHeaders(200, -1);
            exchange.close();
        });
        server.start();
    }
}
"#;

const PYTHON: &str = "\
import time
def app(environ, start_response):
    time.sleep(0.15)
    start_response('200 OK', [('Content-Length', '3')])
    return [b'ok\\n']
";

const NODE: &str = "\
const server = require('http').createServer((request, response) => response.end('ok'));
server.keepAliveTimeout = 100;
server.listen(8080, '10.77.0.1');";

fn haproxy(stage: &mut Stage, check: &str) -> Result<(), Stop> {
    echo_server(stage, "web-server")?;
    let file = format!("{DIRECTORY}/haproxy.cfg");
    fs::write(&file, format!("{HAPROXY}{check}    server web 10.77.0.1:8080 check inter 400ms\n"))?;
    let client = stage.client.clone();
    stage.daemon(&client, Command::new("haproxy").args(["-db", "-f", &file]), 9000)?;
    good_traffic(stage, &client, SERVICE, 20);
    stage.observe(2.5)
}

/// 32 clients that connect, ask once and go.
fn storm(stage: &mut Stage, request: &'static [u8]) {
    for _ in 0..32 {
        stage.fault(&stage.client.clone(), move |window, tally| {
            window.every(20, || {
                if let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) {
                    tally.note("request", net::exchange(&mut stream, request));
                }
            });
        });
    }
}

fn repeat(stage: &mut Stage, clients: usize, pause_ms: u64, work: fn(&Tally)) {
    for _ in 0..clients {
        stage.fault(&stage.client.clone(), move |window, tally| window.every(pause_ms, || work(tally)));
    }
}

/// A pooled connection: a request, a pause longer than the server's patience, a request.
fn pooled(tally: &Tally, pause_ms: u64) {
    let to: SocketAddr = SERVICE;
    let Some(mut stream) = tally.note("connect", net::connect(to)) else { return };
    tally.note("first request", net::exchange(&mut stream, REQUEST));
    thread::sleep(Duration::from_millis(pause_ms));
    tally.note("request after idle", net::exchange(&mut stream, REQUEST));
}
