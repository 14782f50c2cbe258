//! Commands that a person pastes into a shell, often as root. They are built from words, never from text: programs and
//! operators stand in this source, and every argument is quoted, so that nothing a process, a cgroup, a recording or a
//! packet says can add a word to a command. A word is what this source says, a number or an address ([`Part`]); what one host
//! calls something is a [`Name`], which a command for another host or another time does not hold ([`ShellCommand::elsewhere`]).

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use super::escape::visible;
use super::outside::{Manager, UnitName};

/// One line for a POSIX shell: simple commands joined by operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellCommand {
    words: Vec<Word>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Program(&'static str),
    Argument(Argument),
    Operator(&'static str),
    /// What another command prints is the argument.
    Output(ShellCommand),
}

/// One argument, put together of parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Argument(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Plain(String),
    Name(Name),
}

/// What bears this number or name on the host that was looked at, at that time: elsewhere it is nothing, or something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// What stands for it where it means nothing.
    stand_in: &'static str,
    text: String,
}

impl Name {
    /// What stands for a process id.
    pub const PID: &str = "PID";

    pub fn pid(pid: u32) -> Self {
        Self { stand_in: Self::PID, text: pid.to_string() }
    }

    /// `None` where the host's systemd knows no such unit, or another one by that name.
    pub fn unit(unit: &UnitName) -> Option<Self> {
        (unit.manager() == Manager::Host).then(|| Self { stand_in: "UNIT", text: unit.to_string() })
    }

    pub fn netns(name: impl fmt::Display) -> Self {
        Self { stand_in: "NETNS", text: name.to_string() }
    }

    pub fn container(name: &str) -> Self {
        Self { stand_in: "CONTAINER", text: name.to_owned() }
    }

    /// A pod, and what Kubernetes calls its namespace.
    pub fn pod(name: &str) -> Self {
        Self { stand_in: "POD", text: name.to_owned() }
    }

    pub fn pod_namespace(name: &str) -> Self {
        Self { stand_in: "NAMESPACE", text: name.to_owned() }
    }
}

/// What an argument may be made of. There is no text but that of this source, and no `u32`: process ids are [`Name`]s.
pub trait Part {
    fn add_to(&self, argument: &mut Argument);
}

macro_rules! plain {
    ($($kind:ty),*) => {
        $(impl Part for $kind {
            fn add_to(&self, argument: &mut Argument) {
                argument.plain(&self.to_string());
            }
        })*
    };
}

plain!(&'static str, u16, i32, u64, IpAddr, &IpAddr);

impl Part for Name {
    fn add_to(&self, argument: &mut Argument) {
        argument.0.push(Piece::Name(self.clone()));
    }
}

impl<A: Part, B: Part> Part for (A, B) {
    fn add_to(&self, argument: &mut Argument) {
        self.0.add_to(argument);
        self.1.add_to(argument);
    }
}

impl<A: Part, B: Part, C: Part> Part for (A, B, C) {
    fn add_to(&self, argument: &mut Argument) {
        self.0.add_to(argument);
        self.1.add_to(argument);
        self.2.add_to(argument);
    }
}

impl Argument {
    fn of(part: &impl Part) -> Self {
        let mut argument = Self::default();
        part.add_to(&mut argument);
        argument
    }

    fn plain(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Plain(last)) => last.push_str(text),
            _ => self.0.push(Piece::Plain(text.to_owned())),
        }
    }

    fn elsewhere(&self) -> Self {
        let mut argument = Self::default();
        for piece in &self.0 {
            argument.plain(match piece {
                Piece::Plain(text) => text,
                Piece::Name(name) => name.stand_in,
            });
        }
        argument
    }

    fn names(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Plain(_) => None,
            Piece::Name(name) => Some((name.stand_in, name.text.as_str())),
        })
    }

    /// `None` where a name is in it.
    fn as_plain(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [Piece::Plain(text)] => Some(text),
            _ => None,
        }
    }

    /// Control and other hidden characters become visible escapes: raw they would act on the terminal into which the command is
    /// pasted.
    fn quoted(&self) -> String {
        let text = self.0.iter().map(|piece| match piece {
            Piece::Plain(text) => text.as_str(),
            Piece::Name(name) => &name.text,
        });
        quote(&visible(&text.collect::<String>()))
    }
}

impl ShellCommand {
    /// A program with arguments that are known beforehand, split at spaces: `ss -tnp`.
    pub fn new(command: &'static str) -> Self {
        let mut words = command.split_whitespace();
        let program = words.next().map(Word::Program);
        Self { words: program.into_iter().chain(words.map(|word| Word::Argument(Argument::of(&word)))).collect() }
    }

    /// One more word, whatever it holds.
    pub fn arg(mut self, word: impl Part) -> Self {
        self.words.push(Word::Argument(Argument::of(&word)));
        self
    }

    /// More words, see [`Self::arg`].
    pub fn args(self, words: impl IntoIterator<Item = impl Part>) -> Self {
        words.into_iter().fold(self, Self::arg)
    }

    /// One more word, which `command` prints: a number, or a name without spaces.
    pub fn arg_of(mut self, command: Self) -> Self {
        self.words.push(Word::Output(command));
        self
    }

    /// `self | next`
    pub fn pipe(self, next: Self) -> Self {
        self.joined("|", next)
    }

    /// `self && next`
    pub fn and(self, next: Self) -> Self {
        self.joined("&&", next)
    }

    /// `self; next`
    pub fn then(self, next: Self) -> Self {
        self.joined(";", next)
    }

    /// `self 2>/dev/null`
    pub fn quiet(mut self) -> Self {
        self.words.push(Word::Operator("2>/dev/null"));
        self
    }

    /// `self > path`
    pub fn into_file(mut self, path: impl Part) -> Self {
        self.words.push(Word::Operator(">"));
        self.arg(path)
    }

    /// The same with each of its simple commands changed by `change`.
    pub fn each(&self, change: impl Fn(Self) -> Self) -> Self {
        let is_joint = |word: &Word| matches!(word, Word::Operator("|" | "&&" | ";"));
        let mut words = Vec::with_capacity(self.words.len());
        for part in self.words.split_inclusive(is_joint) {
            let (command, joint) = match part.split_last() {
                Some((last, command)) if is_joint(last) => (command, Some(last.clone())),
                _ => (part, None),
            };
            words.extend(change(Self { words: command.to_vec() }).words);
            words.extend(joint);
        }
        Self { words }
    }

    /// `self next`: a command that runs another one, like `ip netns exec NAME`.
    pub fn running(mut self, next: Self) -> Self {
        self.words.extend(next.words.into_iter().map(|word| match word {
            Word::Program(program) => Word::Argument(Argument::of(&program)),
            other => other,
        }));
        self
    }

    /// For one who is not on the host that was looked at, or later: with a word in capital letters in place of each name, once for
    /// several side by side.
    pub fn elsewhere(&self) -> Self {
        let mut words: Vec<Word> = Vec::with_capacity(self.words.len());
        for word in &self.words {
            let instead = match word {
                Word::Argument(argument) => Word::Argument(argument.elsewhere()),
                Word::Output(command) => Word::Output(command.elsewhere()),
                other => other.clone(),
            };
            let held = matches!(word, Word::Argument(argument) if argument.names().next().is_some());
            if !held || words.last() != Some(&instead) {
                words.push(instead);
            }
        }
        Self { words }
    }

    /// What stands for each name in [`Self::elsewhere`], and the name.
    pub fn names(&self) -> Vec<(&'static str, &str)> {
        let names = self.words.iter().map(|word| match word {
            Word::Argument(argument) => argument.names().collect(),
            Word::Output(command) => command.names(),
            _ => Vec::new(),
        });
        names.flatten().collect()
    }

    fn joined(mut self, operator: &'static str, next: Self) -> Self {
        self.words.push(Word::Operator(operator));
        self.words.extend(next.words);
        self
    }

    /// Each program with its arguments, in their order, without those in which a name is.
    pub fn simple_commands(&self) -> impl Iterator<Item = (&'static str, Vec<&str>)> {
        self.words.split(|word| matches!(word, Word::Operator("|" | "&&" | ";"))).filter_map(|words| {
            let Some((Word::Program(program), rest)) = words.split_first() else { return None };
            let arguments = rest.iter().filter_map(|word| match word {
                Word::Argument(argument) => argument.as_plain(),
                _ => None,
            });
            Some((*program, arguments.collect()))
        })
    }

    /// The words as the shell reads them, quoted: joined by spaces they are the command, and a line may be continued
    /// between any two of them.
    pub fn quoted_words(&self) -> Vec<String> {
        let mut quoted: Vec<String> = Vec::with_capacity(self.words.len());
        for word in &self.words {
            match (word, quoted.last_mut()) {
                (Word::Operator(";"), Some(last)) => last.push(';'),
                (Word::Program(word) | Word::Operator(word), _) => quoted.push((*word).to_owned()),
                (Word::Argument(argument), _) => quoted.push(argument.quoted()),
                (Word::Output(command), _) => quoted.push(format!("$({command})")),
            }
        }
        quoted
    }
}

impl fmt::Display for ShellCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.quoted_words().iter().enumerate() {
            if index > 0 {
                f.write_char(' ')?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

/// Quoted by POSIX (Shell Command Language, 2.2.2): within single quotes every character but the single quote stands for
/// itself. Words of plain characters only stay as they are: `net.core.somaxconn=4096` is what people know.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && !word.starts_with('=') && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What a real shell makes of the arguments: it prints each on a line, and nothing is run but `printf`.
    fn read_back(command: &ShellCommand) -> Vec<String> {
        let output = Command::new("sh").args(["-c", &command.to_string()]).output().expect("sh runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.strip_suffix('\n').expect("a line each").split('\n').map(str::to_owned).collect()
    }

    const HOSTILE: [&str; 14] = [
        "rl-;touch /tmp/rstdoctor-planted;.service",
        "$(touch /tmp/rstdoctor-planted)",
        "`touch /tmp/rstdoctor-planted`",
        "a\ntouch /tmp/rstdoctor-planted",
        "'; touch /tmp/rstdoctor-planted; '",
        "\" && touch /tmp/rstdoctor-planted",
        "a > /tmp/rstdoctor-planted",
        "my\\x2dapp.service",
        "*",
        "~root",
        "#no comment",
        "{a,b}",
        "",
        "!!",
    ];

    #[test]
    fn a_hostile_word_stays_one_word_for_a_real_shell() {
        let command = ShellCommand::new("printf").arg("%s\\n").args(HOSTILE);
        let wanted: Vec<_> = HOSTILE.iter().map(|word| visible(word).into_owned()).collect();
        assert_eq!(read_back(&command), wanted);
        assert!(!std::path::Path::new("/tmp/rstdoctor-planted").exists());
        let joined = command.clone().pipe(ShellCommand::new("cat")).and(ShellCommand::new("true"));
        assert_eq!(read_back(&joined), wanted);
    }

    #[test]
    fn plain_words_stay_as_people_know_them() {
        let command = ShellCommand::new("sysctl -w").arg(("net.core.somaxconn=", 4096));
        assert_eq!(command.to_string(), "sysctl -w net.core.somaxconn=4096");
        let list = ShellCommand::new("ss -tnp").arg("sport = :80").pipe(ShellCommand::new("awk").arg("$2 > 0"));
        assert_eq!(list.to_string(), "ss -tnp 'sport = :80' | awk '$2 > 0'");
        let file =
            ShellCommand::new("echo").arg("a = 1").into_file("/etc/x y").then(ShellCommand::new("dmesg").quiet());
        assert_eq!(file.to_string(), "echo 'a = 1' > '/etc/x y'; dmesg 2>/dev/null");
    }

    #[test]
    fn what_another_command_prints_is_an_argument() {
        let command = ShellCommand::new("printf").arg("%s\\n").arg_of(ShellCommand::new("echo").arg("$(x)'y"));
        assert_eq!(read_back(&command), ["$(x)'y"]);
        let entered = ShellCommand::new("printf").arg("%s\\n").arg_of(ShellCommand::new("echo 7"));
        assert_eq!(read_back(&entered.running(ShellCommand::new("ss -lnt"))), ["7", "ss", "-lnt"]);
    }

    #[test]
    fn its_programs_are_known() {
        let command = ShellCommand::new("ss -t").arg("|").pipe(ShellCommand::new("head"));
        let programs: Vec<_> = command.simple_commands().collect();
        assert_eq!(programs, [("ss", vec!["-t", "|"]), ("head", vec![])]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_words_come_back_from_a_real_shell(words in proptest::collection::vec(any::<String>(), 1..8)) {
            let command = ShellCommand::new("printf").arg("%s\\n").args(words.iter().map(Name::netns));
            let wanted: Vec<_> = words.iter().map(|word| visible(word).into_owned()).collect();
            prop_assert_eq!(read_back(&command), wanted);
        }
    }
}
