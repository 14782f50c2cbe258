use super::*;

fn best(line: &str) -> &'static str {
    matches(line.as_bytes()).first().map_or("nothing", |text| text.name.as_str())
}

#[test]
fn the_files_are_complete() {
    for file in FILES {
        let read = toml::from_str::<File>(file);
        assert!(read.is_ok(), "{}", read.err().map(|error| error.to_string()).unwrap_or_default());
    }
    assert!(all().len() >= 150, "{}", all().len());
    assert!(KNOWN.parts.len() > 400, "one of the regular expressions is not sound");
    let mut names: Vec<_> = all().iter().map(|text| &text.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all().len(), "a name stands twice");
    for text in all() {
        let name = &text.name;
        assert!(!text.matches.is_empty() || text.counter.is_some(), "{name}");
        assert!(!text.tell_apart.is_empty() && !text.change.is_empty(), "{name}");
        let parts = text.matches.iter().flatten().filter(|part| !part.starts_with('~'));
        assert!(parts.clone().all(|part| *part == part.to_lowercase() && part.len() >= 3), "{name}");
        assert!(text.typed.iter().all(|word| *word == word.to_lowercase()), "{name}");
        assert!(!text.certain || !text.causes.is_empty(), "{name} says no cause");
        let mut ids: Vec<_> = text.causes.iter().map(|cause| &cause.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), text.causes.len(), "{name} has a cause twice");
        // One screen holds it all.
        assert!((40..=300).contains(&text.meaning.len()), "{name}: {} bytes", text.meaning.len());
        assert!(text.change.len() <= 240, "{name}: {} bytes", text.change.len());
        assert!(text.tell_apart.len() <= 2, "{name}");
        for cause in &text.causes {
            assert!((8..=58).contains(&cause.why.len()), "{name}: {} bytes: {}", cause.why.len(), cause.why);
        }
    }
}

#[test]
fn the_general_text_follows_the_particular_one() {
    let names: Vec<_> =
        matches(b"recv() failed (104: Connection reset by peer)").iter().map(|text| text.name.as_str()).collect();
    assert_eq!(names.len(), 2);
    assert!(names[1].starts_with("Connection reset by peer"));
}

#[test]
fn numbers_and_words_are_not_cut_out_of_longer_ones() {
    for line in [
        "request 110053 took 9 ms, user geoff",
        "everything is fine",
        "",
        r#"10.0.0.7 - - [20/Nov/2026:14:02:11 +0000] "GET /a.js HTTP/1.1" 200 10054 "-" "curl/8.5.0""#,
        "IP 10.0.0.1.10061 > 10.0.0.2.80: tcp 12",
        "forwarding 127.0.0.1:10061 -> 10.0.0.2:80",
        "connection reset counter to 0",
        "resetting connection statistics",
        "connect timeout = 5s, read timeout = 60s",
        "processed 104 rows, 111 skipped, 32 failed",
        "WebSocket closed normally",
    ] {
        assert_eq!(best(line), "nothing", "{line}");
    }
}

/// The first text and the first causes of lines that real programs write.
#[test]
fn lines_of_real_programs_lead_to_their_causes() {
    let mut wrong = Vec::new();
    for (number, case) in include_str!("samples.txt").lines().enumerate() {
        if case.is_empty() || case.starts_with('#') {
            continue;
        }
        let Some((wanted, line)) = case.split_once(" | ") else { panic!("line {}: {case}", number + 1) };
        let (name, causes) = wanted.split_once(" = ").unwrap_or((wanted, ""));
        let Some(text) = matches(line.as_bytes()).into_iter().next() else {
            wrong.push(format!("{}: nothing is known: {line}", number + 1));
            continue;
        };
        let first: Vec<_> = text.causes.iter().map(|cause| cause.id.as_str()).collect();
        let causes: Vec<_> = causes.split(' ').filter(|cause| !cause.is_empty()).collect();
        if !text.name.contains(name) || !first.starts_with(&causes) {
            wrong.push(format!("{}: {} {first:?}: {line}", number + 1, text.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_person_types_is_understood() {
    let first = |words| meant(words).first().map_or("nothing", |text| text.name.as_str());
    for (words, wanted) in [
        ("104", "Connection reset by peer"),
        ("errno 104", "Connection reset by peer"),
        ("111", "Connection refused"),
        ("32", "Broken pipe"),
        ("SIGPIPE", "Broken pipe"),
        ("10054", "Windows 10054"),
        ("113", "No route to host"),
        ("EOF", "EOF"),
        ("ListenOverflows", "ListenOverflows"),
        ("TcpExtListenOverflows", "ListenOverflows"),
        ("TCPAbortOnClose", "TCPAbortOnClose"),
        ("node_netstat_Tcp_EstabResets", "EstabResets"),
        ("why does TcpExt.TCPAbortOnData grow", "TCPAbortOnData"),
        ("passive connections rejected because of time stamp", "PAWSPassive"),
        ("12 connections reset due to early user close", "TCPAbortOnClose"),
        ("connection reset", "Connection reset by peer"),
        ("\"Connection reset by peer\"", "Connection reset by peer"),
        ("502", "502 Bad Gateway"),
        ("499", "nginx 499"),
        ("connect ECONNREFUSED ::1:3306", "Connection refused on ::1"),
        ("everything is fine", "nothing"),
    ] {
        assert!(first(words).starts_with(wanted), "{words}: {}", first(words));
    }
}
