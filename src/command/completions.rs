//! `rstdoctor completions`: for packagers.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;

use crate::cause::REGISTRY;
use crate::command::cli::Cli;
use crate::lab;
use crate::output;

pub fn run(shell: Shell) -> anyhow::Result<ExitCode> {
    output::print(script(shell))?;
    Ok(ExitCode::SUCCESS)
}

/// The script: it knows causes and scenarios, and asks for the network namespaces when it is used.
fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut named(Cli::command()), "rstdoctor", &mut script);
    let script = with_namespaces(&String::from_utf8_lossy(&script), shell);
    match shell {
        Shell::Fish => script + &fish_words(),
        _ => script,
    }
}

/// clap_complete gives fish no words that stand without an option.
fn fish_words() -> String {
    let line =
        |seen: &str, words: Vec<&str>| format!("complete -c rstdoctor -n \"{seen}\" -f -a \"{}\"\n", words.join(" "));
    line("__fish_rstdoctor_using_subcommand explain", causes())
        + &line("__fish_rstdoctor_using_subcommand lab; and __fish_seen_subcommand_from run", scenarios())
}

fn causes() -> Vec<&'static str> {
    REGISTRY.iter().map(|cause| cause.id).collect()
}

fn scenarios() -> Vec<&'static str> {
    lab::scenario::all().map(|scenario| scenario.name).collect()
}

/// Where any text may stand, but some are names.
fn named(command: Command) -> Command {
    let one_of = |arg: Arg, names: Vec<&'static str>| arg.value_parser(PossibleValuesParser::new(names));
    command
        .mut_subcommand("explain", |explain| explain.mut_arg("what", |what| one_of(what, causes())))
        .mut_subcommand("lab", |lab| {
            lab.mut_subcommand("run", |run| run.mut_arg("names", |names| one_of(names, scenarios())))
        })
}

/// In the places of `--netns`, where clap offers files, the names of the host on which the script runs.
fn with_namespaces(script: &str, shell: Shell) -> String {
    const LIST: &str = "ls /run/netns 2>/dev/null";
    let mut after_netns = false;
    let lines = script.lines().map(|line| {
        let is_netns = line.trim() == "--netns)" || line.contains("-l netns ");
        let line = match shell {
            Shell::Bash if after_netns && line.contains("COMPREPLY=($(compgen -f") => {
                line.replace("compgen -f \"${cur}\"", &format!("compgen -W \"$({LIST})\" -- \"${{cur}}\""))
            }
            Shell::Zsh if line.contains("'--netns=") => {
                line.replace(":_default'", &format!(":{{compadd -- $({LIST})}}'"))
            }
            Shell::Fish if is_netns => line.replace(" -l netns ", &format!(" -l netns -f -a '({LIST})' ")),
            _ => line.to_owned(),
        };
        after_netns = is_netns;
        line + "\n"
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_scenarios_and_namespaces_are_offered() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            assert!(script.contains("accept-queue-overflow") && script.contains("process-exit-killed"), "{shell}");
            // scan, watch, trace, record, agent and history take one.
            assert_eq!(script.matches("ls /run/netns").count(), 6, "{shell}");
        }
    }
}
