//! Busy or odd, but healthy: what moves reset counters without being a fault. The verdict must be ok.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Scenario;
use super::common::{PORT, SERVICE, call, connections, echo_server, good_traffic, polite_request, serve, serve_in};
use super::peer::half_open_probes;
use super::refused::LOOPBACK;
use crate::lab::counters::{at_least, at_most, moved, still};
use crate::lab::net;
use crate::lab::program::{Accept, Ending, Server, Talk, Then};
use crate::lab::stage::{CLIENT, SERVER, Stage, Stop, Window, at};
use crate::lab::tally::Tally;

pub static SCENARIOS: &[Scenario] = &[
    Scenario::healthy("healthy-quiet", "a server, and nobody calls", "start a server; wait", |stage| {
        echo_server(stage, "web-server")?;
        stage.observe(2.0)
    })
    .shows(&[still("OutRsts"), still("EstabResets")]),
    Scenario::healthy(
        "healthy-load",
        "thousands of short connections a second, thousands of sockets in TIME_WAIT",
        "ab -n 100000 -c 8 http://10.77.0.1:8080/ against a server that closes first",
        load,
    )
    .shows(&[still("OutRsts"), still("ListenDrops"), at_least("PassiveOpens", 1000)]),
    Scenario::healthy(
        "healthy-half-open-probe",
        "1: a load balancer checks with SYN, SYN-ACK, RST, twice a second",
        "an LVS or F5 half-open TCP check beside good traffic",
        |stage| half_open_probes(stage, 500, 1),
    )
    .shows(&[moved("EmbryonicRsts"), moved("AttemptFails"), still("ListenOverflows")]),
    Scenario::healthy(
        "healthy-connect-probe",
        "2: a check completes the handshake and resets, without a byte",
        "a TCP check that closes with SO_LINGER 0, twice a second, beside good traffic",
        |stage| {
            probe(stage, |tally| {
                if let Some(stream) = tally.note("check connects", net::connect(SERVICE)) {
                    tally.note("check resets", net::abort(stream));
                }
            })
        },
    )
    .shows(&[moved("EstabResets"), still("OutRsts")]),
    Scenario::healthy(
        "healthy-haproxy-check",
        "3: an HTTP check reads its answer and ends with RST",
        "haproxy: option httpchk, twice a second, beside good traffic",
        |stage| {
            probe(stage, |tally| {
                let Some(mut stream) = tally.note("check connects", net::connect(SERVICE)) else { return };
                if tally.note("check is answered", net::exchange(&mut stream, b"OPTIONS / HTTP/1.0\r\n\r\n")).is_some()
                {
                    tally.note("check resets", net::abort(stream));
                }
            })
        },
    )
    .shows(&[moved("EstabResets"), still("OutRsts")]),
    Scenario::healthy(
        "healthy-port-scan",
        "4: one host tries a thousand ports",
        "nmap -sT -p 1-1000 10.77.0.1",
        |stage| {
            echo_server(stage, "web-server")?;
            good_traffic(stage, &stage.client.clone(), SERVICE, 50);
            stage.fault(&stage.client.clone(), |window, tally| {
                let mut port = 0;
                window.every(1, || {
                    port += 1;
                    if port <= 1000 {
                        tally.note("scan", net::connect(at(SERVER, port)));
                    }
                });
            });
            stage.observe(2.5)
        },
    )
    .shows(&[at_least("OutRsts", 500)]),
    Scenario::healthy(
        "healthy-local-poller",
        "5: a local program tries ::1 before 127.0.0.1, where the service really is",
        "curl http://localhost:8080/ with a server on 127.0.0.1 only",
        |stage| {
            let [v4, v6] = LOOPBACK;
            serve(stage, "local-server", Server { listen: vec![at(v4, PORT)], ..Server::default() })?;
            let talk = Talk::Request { bytes: 10, every_ms: 200, ending: Ending::Close };
            call(stage, "poller", vec![at(v6, PORT), at(v4, PORT)], talk)?;
            stage.observe(2.0)
        },
    )
    .shows(&[moved("OutRsts"), moved("AttemptFails")]),
    Scenario::healthy(
        "healthy-clients-cancel",
        "6: a few browsers at many addresses cancel their downloads",
        "40 clients; one request in 15 is aborted while its answer comes in",
        clients_cancel,
    )
    .shows(&[moved("EstabResets"), at_most("OutRsts", 20)]),
    Scenario::healthy(
        "healthy-late-goodbye",
        "7: a goodbye meets a client that has closed already: a RST with nothing in flight",
        "a TLS server that sends close_notify after the client closed",
        |stage| {
            serve(stage, "tls-server", Server { then: Then::Goodbye { idle_ms: None }, ..Server::default() })?;
            good_traffic(stage, &stage.client.clone(), SERVICE, 50);
            stage.observe(2.0)
        },
    )
    .shows(&[still("OutRsts"), still("TCPAbortOnClose")]),
    Scenario::healthy(
        "healthy-linger-zero",
        "8: a load generator ends complete exchanges with RST, to spare its ports TIME_WAIT",
        "a local client that reads its answer and closes with SO_LINGER 0, five times a second",
        |stage| {
            serve_in(stage, &stage.client.clone(), CLIENT, Server::default())?;
            let talk = Talk::Request { bytes: 10, every_ms: 200, ending: Ending::Abort };
            call(stage, "load-gen", vec![at(CLIENT, PORT)], talk)?;
            stage.observe(2.0)
        },
    )
    .shows(&[moved("OutRsts"), moved("TCPAbortOnData")]),
    Scenario::healthy(
        "healthy-pool-retires",
        "9: a pool closes idle TLS connections that hold an unread close_notify",
        "a client pool with a longer idle limit than its TLS server's",
        |stage| {
            let then = Then::Goodbye { idle_ms: Some(100) };
            serve_in(stage, &stage.client.clone(), CLIENT, Server { then, ..Server::default() })?;
            let talk = Talk::Request { bytes: 10, every_ms: 100, ending: Ending::Retire(250) };
            call(stage, "pool-client", vec![at(CLIENT, PORT)], talk)?;
            stage.observe(2.0)
        },
    )
    .shows(&[moved("TCPAbortOnClose")]),
    Scenario::healthy(
        "healthy-vanished-peer",
        "10: one client vanished in the middle of an answer",
        "sysctl net.ipv4.tcp_orphan_retries=1; one laptop lid is closed among good traffic",
        vanished_peer,
    )
    .shows(&[moved("TCPAbortOnTimeout")]),
    Scenario::healthy(
        "healthy-restart-burst",
        "11: a clean restart; a few pooled connections meet it once and are retried",
        "systemctl restart with a drained queue; three pooled connections send once more",
        restart_burst,
    )
    .shows(&[moved("OutRsts"), still("TCPAbortOnClose")]),
    Scenario::healthy(
        "healthy-old-totals",
        "12: big totals since boot, nothing in the window",
        "200 aborted connections and a full queue, an hour ago; good traffic now",
        old_totals,
    )
    .shows(&[still("OutRsts"), still("ListenDrops"), still("TCPAbortOnClose")]),
];

fn load(stage: &mut Stage) -> Result<(), Stop> {
    let then = Then::Answer { read: 4096, pause_ms: 0, write: 100, ending: Ending::Close };
    serve(stage, "busy-server", Server { then, ..Server::default() })?;
    let worker = |window: &Window, tally: &Tally| {
        while window.is_open() {
            short_connection(tally);
        }
    };
    // TIME_WAIT from before: as many as two seconds give.
    let client = stage.client.clone();
    let tally = stage.tally().clone();
    client.run(|| {
        thread::scope(|scope| {
            for _ in 0..4 {
                let (client, tally) = (&client, &tally);
                // With fewer there are fewer connections.
                let _ = thread::Builder::new().spawn_scoped(scope, move || {
                    let start = Instant::now();
                    while client.enter().is_ok() && start.elapsed() < Duration::from_secs(2) {
                        short_connection(tally);
                    }
                });
            }
        });
        Ok(())
    })?;
    for _ in 0..8 {
        stage.fault(&client, worker);
    }
    stage.observe(3.0)
}

fn short_connection(tally: &Tally) {
    if let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) {
        let asked = stream.write_all(b"hello");
        tally.note("request", asked.and_then(|()| net::drain(&mut stream)));
    }
}

fn probe(stage: &mut Stage, check: fn(&Tally)) -> Result<(), Stop> {
    echo_server(stage, "web-server")?;
    good_traffic(stage, &stage.client.clone(), SERVICE, 20);
    stage.fault(&stage.client.clone(), move |window, tally| window.every(500, || check(tally)));
    stage.observe(2.5)
}

fn clients_cancel(stage: &mut Stage) -> Result<(), Stop> {
    let client = stage.client.clone();
    for host in 10..50 {
        client.add_address("eth0", Ipv4Addr::new(10, 77, 0, host).into())?;
    }
    echo_server(stage, "web-server")?;
    let number = Arc::new(AtomicU16::new(0));
    for _ in 0..4 {
        let number = Arc::clone(&number);
        stage.fault(&client, move |window, tally| {
            window.every(10, || {
                let number = number.fetch_add(1, Ordering::Relaxed);
                let from: IpAddr = Ipv4Addr::new(10, 77, 0, 10 + (number % 40) as u8).into();
                let Some(mut stream) = tally.note("connect", net::connect_from(from, SERVICE)) else { return };
                if tally.note("request", net::exchange(&mut stream, b"hello")).is_some() && number.is_multiple_of(15) {
                    let _ = stream.write_all(&[b'?'; 8000]);
                    tally.note("cancelled by the client", net::abort(stream));
                }
            });
        });
    }
    stage.observe(2.5)
}

fn vanished_peer(stage: &mut Stage) -> Result<(), Stop> {
    stage.here.sysctl("net.ipv4.tcp_orphan_retries", 1)?;
    let laptop = stage.neighbour("eth1", 79)?;
    let everywhere: SocketAddr = at(Ipv4Addr::UNSPECIFIED.into(), PORT);
    let then = Then::Answer { read: 4096, pause_ms: 300, write: 100, ending: Ending::Close };
    serve(stage, "web-server", Server { listen: vec![everywhere], then, ..Server::default() })?;
    let home = Ipv4Addr::new(10, 79, 0, 1);
    stage.fault(&laptop.clone(), move |window, tally| {
        let Some(mut stream) = tally.note("laptop connects", net::connect(at(home.into(), PORT))) else { return };
        let _ = stream.write_all(b"hello");
        tally.note("lid closed", laptop.blackhole(home.into(), 32));
        window.sleep(60_000);
    });
    good_traffic(stage, &stage.client.clone(), SERVICE, 50);
    stage.observe(3.0)
}

fn restart_burst(stage: &mut Stage) -> Result<(), Stop> {
    let server = || Server { reuse_port: true, ..Server::default() };
    let old = serve(stage, "web-server", server())?;
    let pooled = connections(&stage.client, SERVICE, 3)?;
    serve(stage, "web-server", server())?;
    old.tell("close-listener")?;
    thread::sleep(Duration::from_millis(100));
    stage.fault(&stage.client.clone(), move |window, tally| {
        window.sleep(500);
        let _ = old.tell("exit");
        window.sleep(200);
        for stream in pooled {
            once_more(tally, stream);
        }
        window.every(4, || polite_request(tally, SERVICE));
    });
    stage.observe(2.5)
}

fn once_more(tally: &Tally, mut stream: TcpStream) {
    tally.note("pooled request", stream.write_all(b"hello"));
    tally.note("pooled answer", net::receive(&mut stream));
    polite_request(tally, SERVICE);
}

fn old_totals(stage: &mut Stage) -> Result<(), Stop> {
    let hasty = at(SERVER, 8081);
    let full = at(SERVER, 8082);
    let then = Then::Answer { read: 10, pause_ms: 0, write: 10, ending: Ending::Close };
    serve(stage, "hasty-server", Server { listen: vec![hasty], then, ..Server::default() })?;
    let once_full = serve(
        stage,
        "once-full",
        Server { listen: vec![full], backlog: 4, accept: Accept::Never, ..Server::default() },
    )?;
    let mut streams = connections(&stage.client, hasty, 200)?;
    for stream in &mut streams {
        stream.write_all(&[b'?'; 5000])?;
    }
    let _ = stage.client.run(|| {
        for _ in 0..8 {
            let _ = TcpStream::connect_timeout(&full, Duration::from_millis(50));
        }
        Ok(())
    });
    once_full.signal(Signal::KILL)?;
    thread::sleep(Duration::from_millis(1500));
    drop(streams);
    echo_server(stage, "web-server")?;
    good_traffic(stage, &stage.client.clone(), SERVICE, 20);
    stage.observe(2.0)
}
