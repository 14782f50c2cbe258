//! What a recording calls something is no word of a command that is printed for one who reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use rstdoctor::diagnosis::diagnose;
use rstdoctor::observation::{Input, Observation};
use rstdoctor::render::{FORMATS, Options, json};
use rstdoctor::source::node::{Netns, Node};
use rstdoctor::source::owners::Owners;
use rstdoctor::value::Observed;
use rstdoctor::value::outside::UnitName;
use rstdoctor::{Origin, observe, open};
use serde_json::Value;

/// No port, no limit and no count of the fixtures is so high.
const HIGH: u32 = 3_900_000;
const PATH: &str = "/tmp/planted-path";
const NAME: &str = "planted-name";
const UNIT: &str = "planted-unit.service";
/// What only leads into another namespace.
const INTO: [&str; 3] = ["nsenter", "netns exec", "--netns"];

fn recordings() -> Vec<PathBuf> {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let causes = std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = causes.flat_map(|cause| std::fs::read_dir(cause).unwrap()).map(|entry| entry.unwrap().path());
    files.filter(|path| path.ends_with("positive.rst")).collect()
}

/// The same, from processes and units that were made for this, in namespaces to which `way` leads.
fn hostile(observation: &mut Observation, way: &Netns) {
    let planted = |owners: &mut Observed<Arc<Owners>>| {
        let (Observed::Full(owners) | Observed::Partial(owners, _)) = owners else { return };
        let owners = Arc::make_mut(owners);
        owners.by_inode.values_mut().flatten().for_each(|pid| *pid += HIGH);
        let processes = std::mem::take(&mut owners.processes).into_iter().map(|(pid, mut process)| {
            process.pid += HIGH;
            process.unit = UnitName::parse(UNIT);
            (pid + HIGH, process)
        });
        owners.processes = processes.collect();
    };
    planted(&mut observation.host.before.owners);
    planted(&mut observation.host.after.owners);
    let mut node = Node::default();
    for (id, window) in &mut observation.netns {
        window.name = None;
        node.netns.insert(*id, Netns { inode: id.0, observed: true, ..way.clone() });
        let tasks = window.resets.single.iter_mut().filter_map(|reset| reset.event.as_mut()?.task.as_mut());
        tasks.for_each(|task| task.pid += HIGH);
    }
    observation.host.node = Observed::Full(Arc::new(node));
}

/// Every command of the report, and every text of it in each format.
fn printed(observation: &Observation) -> (Vec<String>, BTreeMap<&'static str, String>) {
    let (mut commands, mut texts) = (Vec::new(), BTreeMap::new());
    for view in observation.views() {
        let diagnosis = diagnose(view);
        let report = serde_json::to_value(json::report(&diagnosis)).unwrap();
        for remedy in
            report["causes"].as_array().unwrap().iter().flat_map(|cause| cause["remedies"].as_array().unwrap())
        {
            let told = ["command", "persist", "verify_command"].map(|key| remedy.get(key).and_then(Value::as_str));
            commands.extend(told.into_iter().flatten().map(str::to_owned));
        }
        let options = Options { all: true, width: 200, ..Options::default() };
        for format in &FORMATS {
            let text: &mut String = texts.entry(format.name).or_default();
            text.push_str(&(format.print)(&diagnosis, &options).unwrap());
            text.push_str(&(format.print)(&diagnosis, &Options { all: false, ..options.clone() }).unwrap());
        }
    }
    (commands, texts)
}

fn is_planted(command: &str) -> bool {
    let numbers = command.split(|letter: char| !letter.is_ascii_digit()).filter_map(|word| word.parse::<u32>().ok());
    [PATH, NAME, UNIT].iter().any(|name| command.contains(name)) || numbers.into_iter().any(|number| number >= HIGH)
}

#[test]
fn no_command_holds_a_name_a_path_or_a_process_of_a_recording() {
    let ways = [
        Netns { path: Some(PATH.into()), ..Netns::default() },
        Netns { name: Some(NAME.into()), ..Netns::default() },
        Netns { pid: Some(HIGH + 1), process: Some("x".into()), ..Netns::default() },
    ];
    let (mut live, mut places) = (BTreeSet::new(), 0);
    for path in recordings() {
        for way in &ways {
            let mut opened = open(&Origin::Recording(path.clone()), &Default::default()).unwrap();
            let mut observation = observe(&mut *opened.host, &opened.plan).unwrap();
            hostile(&mut observation, way);
            let (commands, texts) = printed(&observation);
            for command in &commands {
                assert!(!is_planted(command), "{}: {command}", path.display());
            }
            for (format, text) in &texts {
                assert!(INTO.iter().all(|into| !text.contains(into)), "{} as {format}", path.display());
            }
            places += texts["table"].matches("run it in").count();
            // Here and now they are what is meant.
            observation.covers.input = Input::Live;
            live.extend(printed(&observation).0.into_iter().filter(|command| is_planted(command)));
        }
    }
    assert!(live.len() > 30 && INTO.iter().all(|into| live.iter().any(|command| command.contains(into))), "{live:?}");
    for program in ["prlimit", "systemctl", "kill", "strace"] {
        assert!(live.iter().any(|command| command.contains(program)), "{program}: {live:?}");
    }
    assert!(places > 30, "the words say where: {places}");
}
