//! A program turns connections away at its own limit, cuts off who does not read, or is slower than its clients wait.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::common::{PORT, SERVICE, answer_server, call, good_traffic, nginx, redis, serve, serve_in};
use super::{Need, Scenario};
use crate::lab::counters::{moved, still};
use crate::lab::net;
use crate::lab::program::{Ending, Server, Talk, Then};
use crate::lab::stage::{CLIENT, SERVER, Stage, Stop, at};
use crate::lab::tally::Tally;
use crate::lab::temporary::{DIRECTORY, mount_tmpfs};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n";
const OTHERS: &[&str] = &["close-with-unread-data", "late-data-after-close", "abortive-close", "idle-timeout"];

pub static SCENARIOS: &[Scenario] = &[
    Scenario::fault(
        "connection-limit",
        "connection-limit",
        "a program takes four connections and closes each further one at once, with a line that says why",
        "a server that counts its connections; clients that hold four of them, and others that ask",
        |stage| {
            serve(stage, "small-server", Server { then: Then::Limit { most: 4 }, ..Server::default() })?;
            let held = hold(stage, 4, |_| Ok(()))?;
            turned_away(stage, held, 60, b"hello", 2.5)
        },
    )
    .port(PORT)
    .process("small-server")
    .never(OTHERS)
    .shows(&[moved("OutRsts")]),
    Scenario::fault(
        "server-sshd-maxstartups",
        "connection-limit",
        "sshd with MaxStartups 2:100:2 and two sessions that never log in",
        "MaxStartups 2:100:2; two nc that hold a connection; ssh again and again",
        |stage| {
            sshd(stage, "MaxStartups 2:100:2\nPerSourceMaxStartups none\nLoginGraceTime 60\n")?;
            // The banner says that sshd has counted it.
            let held = hold(stage, 2, |stream| net::receive(stream).map(|_| ()))?;
            turned_away(stage, held, 80, b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n", 3.0)
        },
    )
    .port(PORT)
    .process("sshd")
    .never(OTHERS)
    .needs(&[Need::Program("sshd"), Need::Program("ssh-keygen"), Need::Files, Need::ResetEvents])
    .shows(&[moved("OutRsts")]),
    Scenario::fault(
        "server-redis-maxclients",
        "connection-limit",
        "redis with maxclients 5, all of them taken",
        "redis-server --maxclients 5; five redis-cli that stay, and others that ask",
        |stage| {
            redis(stage, &["--maxclients", "5"])?;
            let held = hold(stage, 5, |stream| net::exchange(stream, b"PING\r\n").map(|_| ()))?;
            turned_away(stage, held, 60, b"*1\r\n$4\r\nPING\r\n", 2.5)
        },
    )
    .port(PORT)
    .process("redis-server")
    .never(OTHERS)
    .needs(&[Need::Program("redis-server"), Need::Files, Need::ResetEvents])
    .shows(&[moved("OutRsts")]),
    Scenario::fault(
        "server-memcached-connections",
        "connection-limit",
        "memcached with -c 32, all of them taken",
        "memcached -c 32; as many connections that stay, and others that ask",
        |stage| {
            let mut memcached = Command::new("memcached");
            memcached.args(["-u", "root", "-l", "10.77.0.1", "-p", "8080", "-c", "32", "-t", "1", "-U", "0"]);
            stage.daemon(&stage.here.clone(), &mut memcached, PORT)?;
            let held = hold(stage, 40, |_| Ok(()))?;
            turned_away(stage, held, 60, b"version\r\n", 2.5)
        },
    )
    .port(PORT)
    .process("memcached")
    .never(OTHERS)
    .needs(&[Need::Program("memcached"), Need::ResetEvents])
    .shows(&[moved("OutRsts")]),
    Scenario::fault(
        "server-nginx-worker-connections",
        "connection-limit",
        "nginx with worker_connections 16, all of them held by slow downloads",
        "events { worker_connections 16; } limit_rate 100; and 16 downloads; ab -c 2",
        |stage| {
            std::fs::write(format!("{DIRECTORY}/slow"), [b'.'; 100_000])?;
            let slow = format!("listen 10.77.0.1:8080; location /slow {{ root {DIRECTORY}; limit_rate 100; }}");
            nginx(stage, 16, "", &slow, false)?;
            let held = hold(stage, 16, |stream| {
                stream.write_all(b"GET /slow HTTP/1.1\r\nHost: lab\r\n\r\n")?;
                net::receive(stream).map(|_| ())
            })?;
            turned_away(stage, held, 60, REQUEST, 2.5)
        },
    )
    .port(PORT)
    .process("nginx")
    .never(OTHERS)
    .needs(&[Need::Program("nginx"), Need::Files, Need::ResetEvents])
    .shows(&[moved("OutRsts")]),
    Scenario::fault(
        "slow-reader",
        "slow-reader",
        "redis cuts off clients that ask for much and do not read (client-output-buffer-limit)",
        "redis-server --client-output-buffer-limit 'normal 200kb 0 0'; a client that sends GET of a large value and never reads",
        |stage| {
            redis(stage, &["--client-output-buffer-limit", "normal 200kb 0 0"])?;
            let mut writer = stage.client.run(|| net::connect(SERVICE))?;
            let value = "v".repeat(100_000);
            net::exchange(&mut writer, format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n{value}\r\n").as_bytes())?;
            for _ in 0..2 {
                stage.fault(&stage.client.clone(), |window, tally| window.every(50, || never_reads(tally)));
            }
            let observed = stage.observe(3.0);
            drop(writer);
            observed
        },
    )
    .port(PORT)
    .process("redis-server")
    .never(OTHERS)
    .needs(&[Need::Program("redis-server"), Need::Files, Need::ResetEvents])
    .shows(&[moved("OutRsts")]),
    Scenario::fault(
        "client-gave-up",
        "client-gave-up",
        "clients wait 300 ms for an answer that takes 700 ms",
        "curl --max-time 0.3 http://10.77.0.1:8080/slow",
        |stage| {
            let then = Then::Answer { read: 4096, pause_ms: 700, write: 100, ending: Ending::Close };
            serve(stage, "slow-server", Server { then, ..Server::default() })?;
            for _ in 0..2 {
                stage.fault(&stage.client.clone(), |window, tally| window.every(20, || impatient(tally, SERVICE)));
            }
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .process("slow-server")
    .never(&["peer-reset", "idle-timeout", "late-data-after-close"])
    .needs(&[Need::ResetEvents])
    .shows(&[moved("EstabResets")]),
    Scenario::fault(
        "client-gave-up-hung-server",
        "client-gave-up",
        "a server on another host takes requests and does nothing with them; a program here waits 300 ms for each",
        "kill -STOP $(pidof remote-server) there; curl --max-time 0.3 http://10.77.0.2:8080/",
        |stage| {
            serve_in(stage, &stage.client.clone(), CLIENT, Server { then: Then::Hold, ..Server::default() })?;
            for _ in 0..2 {
                stage.fault(&stage.here.clone(), |window, tally| {
                    window.every(20, || impatient(tally, at(CLIENT, PORT)));
                });
            }
            stage.observe(3.0)
        },
    )
    .never(&["connect-unanswered", "upstream-refused", "peer-reset"])
    .needs(&[Need::ResetEvents])
    .shows(&[moved("ActiveOpens"), still("OutRsts")]),
    Scenario::healthy(
        "healthy-log-shipper",
        "a program here sends lines to another host and closes; nothing ever comes back but the end of the connection",
        "nc -N 10.77.0.2 8080 < lines, from a program that waits for no answer; the server closes a moment later",
        |stage| {
            let then = Then::Answer { read: 4096, pause_ms: 30, write: 0, ending: Ending::Close };
            serve_in(stage, &stage.client.clone(), CLIENT, Server { then, ..Server::default() })?;
            stage.fault(&stage.here.clone(), |window, tally| {
                window.every(20, || {
                    if let Some(mut stream) = tally.note("connect", net::connect(at(CLIENT, PORT))) {
                        tally.note("lines", stream.write_all(b"one line\nand another\n"));
                    }
                });
            });
            stage.observe(3.0)
        },
    )
    .shows(&[moved("ActiveOpens"), still("OutRsts")]),
    Scenario::fault(
        "peer-idle-limit",
        "peer-idle-limit",
        "the other host closes connections that are idle for 700 ms, and a pool here uses them after that",
        "a server with keepalive_timeout 700ms; a pool on this host that keeps its connections longer and does not look",
        |stage| {
            let then = Then::Echo { idle_ms: Some(700) };
            serve_in(stage, &stage.client.clone(), CLIENT, Server { then, ..Server::default() })?;
            for _ in 0..4 {
                let talk = Talk::Reuse { bytes: 10, after_ms: 760, every_ms: 50 };
                call(stage, "pool-client", vec![at(CLIENT, PORT)], talk)?;
            }
            stage.observe(3.0)
        },
    )
    .port(PORT)
    .never(&["idle-timeout", "late-data-after-close"])
    .needs(&[Need::ResetEvents])
    .shows(&[moved("EstabResets")]),
    Scenario::healthy(
        "healthy-ssh-logins",
        "administrators log in and out with ssh",
        "ssh root@10.77.0.1 true, twice a second",
        |stage| {
            sshd(stage, "")?;
            // Who is root of a user namespace only may not change groups (user_namespaces(7), /proc/PID/setgroups), as sshd does.
            if !stage.client.run(|| Ok(login()))? {
                return Err(Stop::Skip("sshd lets nobody log in here: it needs root".to_owned()));
            }
            stage.fault(&stage.client.clone(), |window, tally| {
                window.every(500, || tally.add("log-in", u64::from(login())));
            });
            stage.observe(3.0)
        },
    )
    .needs(&[Need::Program("sshd"), Need::Program("ssh"), Need::Program("ssh-keygen"), Need::Files]),
    Scenario::healthy(
        "healthy-banner-scan",
        "scanners take the banner of a bastion and leave",
        "nc -z, and scanners that read the banner and reset, ten times a second",
        |stage| {
            serve(stage, "bastion", Server { then: Then::Greet, ..Server::default() })?;
            stage.fault(&stage.client.clone(), |window, tally| {
                window.every(100, || {
                    let Some(mut stream) = tally.note("scan", net::connect(SERVICE)) else { return };
                    tally.note("banner", net::receive(&mut stream));
                    tally.note("leaves", net::abort(stream));
                });
            });
            stage.observe(2.5)
        },
    )
    .shows(&[moved("EstabResets")]),
    Scenario::healthy(
        "healthy-standby-checks",
        "a standby whose only callers are the HTTP checks of three load balancers, each ended by RST",
        "haproxy: option httpchk, inter 700ms, three times",
        |stage| {
            let client = stage.client.clone();
            for host in 10..13 {
                client.add_address("eth0", std::net::Ipv4Addr::new(10, 77, 0, host).into())?;
            }
            answer_server(stage, "standby", 4096, 120, Ending::Drain)?;
            for host in 10..13u8 {
                let from: IpAddr = std::net::Ipv4Addr::new(10, 77, 0, host).into();
                stage.fault(&client, move |window, tally| {
                    window.every(700, || {
                        let Some(mut stream) = tally.note("check", net::connect_from(from, SERVICE)) else { return };
                        tally.note("answer", net::exchange(&mut stream, b"OPTIONS / HTTP/1.0\r\n\r\n"));
                        tally.note("ended", net::abort(stream));
                    });
                });
            }
            stage.observe(3.0)
        },
    )
    .shows(&[moved("EstabResets")]),
    Scenario::healthy(
        "healthy-unread-goodbye",
        "clients say goodbye after the answer and leave; the server closes without reading that",
        "a server that answers once and closes 50 ms later; clients that send QUIT and close",
        |stage| {
            let ending = Ending::Retire(50);
            answer_server(stage, "mail-server", 4096, 100, ending)?;
            for _ in 0..4 {
                stage.fault(&stage.client.clone(), |window, tally| {
                    window.every(40, || {
                        let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) else { return };
                        tally.note("request", net::exchange(&mut stream, b"hello"));
                        tally.note("goodbye", stream.write_all(b"QUIT\r\n"));
                    });
                });
            }
            stage.observe(2.5)
        },
    )
    .shows(&[moved("TCPAbortOnClose")]),
    Scenario::healthy(
        "healthy-half-close-download",
        "clients close their side after the request and read a long answer",
        "nc -N 10.77.0.1 8080 < request > file, slow enough to take longer than the window",
        |stage| {
            serve(stage, "file-server", Server { then: Then::Stream, ..Server::default() })?;
            for _ in 0..30 {
                stage.fault(&stage.client.clone(), |window, tally| {
                    let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) else { return };
                    tally.note("request", stream.write_all(b"hello"));
                    tally.note("half-close", stream.shutdown(std::net::Shutdown::Write));
                    window.every(20, || {
                        tally.note("part", net::receive(&mut stream));
                    });
                });
            }
            stage.observe(2.5)
        },
    )
    .shows(&[still("OutRsts")]),
    Scenario::healthy(
        "healthy-job-ends",
        "a program does its one job and ends, and nobody calls it any more",
        "a server on a known port exits by itself while another is in use",
        |stage| {
            let other = at(SERVER, 8081);
            serve(stage, "web-server", Server::default())?;
            let job = serve(stage, "one-job", Server { listen: vec![other], ..Server::default() })?;
            good_traffic(stage, &stage.client.clone(), SERVICE, 50);
            stage.fault(&stage.here.clone(), move |window, tally| {
                window.sleep(800);
                tally.note("ends", job.tell("exit"));
            });
            stage.observe(2.5)
        },
    )
    .shows(&[still("OutRsts")]),
];

/// Opens up to `count` connections from the other host before the window, and does something on each; those that the program
/// takes.
fn hold(
    stage: &Stage,
    count: usize,
    begin: impl Fn(&mut TcpStream) -> std::io::Result<()> + Sync,
) -> std::io::Result<Vec<TcpStream>> {
    stage.client.run(|| {
        let open = |_| {
            let mut stream = net::connect(SERVICE).ok()?;
            begin(&mut stream).ok()?;
            Some(stream)
        };
        Ok((0..count).filter_map(open).collect())
    })
}

/// Looks on while two clients ask at once, as most do, and others hold all that the program takes.
fn turned_away(
    stage: &mut Stage,
    held: Vec<TcpStream>,
    pause_ms: u64,
    request: &'static [u8],
    seconds: f64,
) -> Result<(), Stop> {
    for _ in 0..2 {
        stage.fault(&stage.client.clone(), move |window, tally| {
            window.every(pause_ms, || {
                let Some(mut stream) = tally.note("connect", net::connect(SERVICE)) else { return };
                tally.note("request", stream.write_all(request));
                tally.note("answer", net::drain(&mut stream));
            });
        });
    }
    let observed = stage.observe(seconds);
    drop(held);
    observed
}

fn never_reads(tally: &Tally) {
    let connected = net::connect_with_receive_buffer(SERVICE, 8 * 1024);
    let Some(mut stream) = tally.note("connect", connected) else { return };
    for _ in 0..60 {
        if tally.note("asks for much", stream.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")).is_none() {
            return;
        }
        thread::sleep(Duration::from_millis(15));
    }
}

fn impatient(tally: &Tally, to: SocketAddr) {
    let Some(mut stream) = tally.note("connect", net::connect(to)) else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
    tally.note("answer within 300 ms", net::exchange(&mut stream, REQUEST));
}

/// sshd on the service's port, that lets root in with the lab's key.
fn sshd(stage: &mut Stage, settings: &str) -> Result<(), Stop> {
    let key = format!("{DIRECTORY}/key");
    let mut keygen = Command::new("ssh-keygen");
    let made = keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).stdin(Stdio::null()).status()?;
    if !made.success() {
        return Err(Stop::Skip("ssh-keygen makes no key here".to_owned()));
    }
    let text = format!(
        "Port 8080\nListenAddress 10.77.0.1\nHostKey {key}\nPidFile none\nUsePAM no\nStrictModes no\n\
         PermitRootLogin yes\nAuthorizedKeysFile {key}.pub\n{settings}"
    );
    std::fs::write(format!("{DIRECTORY}/sshd_config"), text)?;
    // Its unit makes it, or the first start of the host after sshd was installed.
    const PRIVILEGE_SEPARATION: &str = "/run/sshd";
    if !std::path::Path::new(PRIVILEGE_SEPARATION).is_dir() {
        mount_tmpfs("/run")?;
        std::fs::create_dir(PRIVILEGE_SEPARATION)?;
    }
    let config = format!("{DIRECTORY}/sshd_config");
    // It starts itself anew for each connection, and so wants its own absolute path.
    let program = ["/usr/sbin/sshd", "/sbin/sshd"].into_iter().find(|path| std::path::Path::new(path).exists());
    let Some(program) = program else { return Err(Stop::Skip("sshd is not where it is used to be".to_owned())) };
    stage.daemon(&stage.here.clone(), Command::new(program).args(["-D", "-f", &config]), PORT)?;
    Ok(())
}

/// One log-in and log-out.
fn login() -> bool {
    let key = format!("{DIRECTORY}/key");
    let options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=QUIET"];
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-p", "8080", "-i", &key]);
    ssh.args(options.iter().flat_map(|option| ["-o", option]));
    ssh.args(["root@10.77.0.1", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ssh.status().is_ok_and(|status| status.success())
}
