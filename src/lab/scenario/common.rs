//! What several scenarios do.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;

use crate::lab::arena::Namespace;
use crate::lab::net;
use crate::lab::program::{Client, Ending, Program, Server, Talk, Then};
use crate::lab::stage::{Actor, SERVER, Stage, Stop, at};
use crate::lab::tally::Tally;
use crate::lab::temporary::DIRECTORY;

/// The port of the service, where a scenario has only one.
pub const PORT: u16 = 8080;
pub const SERVICE: SocketAddr = SocketAddr::new(SERVER, PORT);

/// A server of the lab on the observed host, at [`SERVICE`] unless it names other addresses.
pub fn serve(stage: &mut Stage, name: &str, mut server: Server) -> Result<Actor, Stop> {
    if server.listen.is_empty() {
        server.listen.push(SERVICE);
    }
    Ok(stage.spawn(name, &Program::Server(server))?)
}

/// A server that answers what it is asked.
pub fn echo_server(stage: &mut Stage, name: &str) -> Result<Actor, Stop> {
    serve(stage, name, Server::default())
}

/// A server that answers each connection once and ends it in the way given.
pub fn answer_server(stage: &mut Stage, name: &str, read: usize, write: usize, ending: Ending) -> Result<Actor, Stop> {
    let then = Then::Answer { read, pause_ms: 5, write, ending };
    serve(stage, name, Server { then, ..Server::default() })
}

/// A server on another host, where the observed one is the caller.
pub fn serve_in(stage: &mut Stage, place: &Namespace, address: IpAddr, server: Server) -> Result<Actor, Stop> {
    let server = Server { listen: vec![at(address, PORT)], ..server };
    Ok(stage.spawn_in(place, "remote-server", &Program::Server(server))?)
}

/// A client of the lab on the observed host; it starts with the window.
pub fn call(stage: &mut Stage, name: &str, to: Vec<SocketAddr>, talk: Talk) -> Result<Actor, Stop> {
    let actor = stage.spawn(name, &Program::Client(Client { to, from: None, talk }))?;
    let starter = actor.clone();
    stage.fault(&stage.here.clone(), move |window, _| {
        let _ = starter.tell("go");
        window.sleep(60_000);
        let _ = starter.tell("stop");
    });
    Ok(actor)
}

/// Ordinary good traffic beside a fault: a request every so many milliseconds, ended properly.
pub fn good_traffic(stage: &mut Stage, client: &Namespace, to: SocketAddr, pause_ms: u64) {
    stage.fault(client, move |window, tally| {
        window.every(pause_ms, || {
            polite_request(tally, to);
        });
    });
}

/// Connect, ask, read the answer, close.
pub fn polite_request(tally: &Tally, to: SocketAddr) {
    if let Some(mut stream) = tally.note("connect", net::connect(to)) {
        tally.note("request", net::exchange(&mut stream, b"hello"));
    }
}

/// Opens `count` connections from a namespace, before the window.
pub fn connections(place: &Namespace, to: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    place.run(|| (0..count).map(|_| net::connect(to)).collect())
}

/// A real nginx on the port of the service, by lines of its configuration. `master`: with a master process, which a reload needs.
pub fn nginx(stage: &mut Stage, connections: usize, http: &str, server: &str, master: bool) -> Result<Actor, Stop> {
    let file = format!("{DIRECTORY}/nginx.conf");
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {DIRECTORY}/{kind};\n"))
        .collect();
    let master = if master { "on" } else { "off" };
    let text = format!(
        "daemon off; master_process {master}; user root; worker_processes 1; pid {DIRECTORY}/nginx.pid;
         error_log {DIRECTORY}/error.log; events {{ worker_connections {connections}; }}
         http {{ access_log off; {paths} {http}
         server {{ {server} location / {{ return 200 'ok'; }} }} }}"
    );
    fs::write(&file, text)?;
    let log = format!("{DIRECTORY}/error.log");
    Ok(stage.daemon(&stage.here.clone(), Command::new("nginx").args(["-e", &log, "-c", &file]), PORT)?)
}

/// A real redis on the port of the service, which keeps nothing.
pub fn redis(stage: &mut Stage, options: &[&str]) -> Result<Actor, Stop> {
    let mut redis = Command::new("redis-server");
    redis.args(["--port", "8080", "--bind", "10.77.0.1", "--save", "", "--protected-mode", "no", "--dir", DIRECTORY]);
    Ok(stage.daemon(&stage.here.clone(), redis.args(options), PORT)?)
}
