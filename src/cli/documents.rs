//! `dlog completions` and `dlog man`, which packages install beside the binary, and the command reference of the docs.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, Command};
use clap_complete::Shell;

use super::output::stdout;
use crate::env::{Disk, RealDisk};

/// For which shell.
#[derive(Debug, Clone, Args)]
pub(super) struct CompletionOptions {
    /// The shell.
    shell: Shell,
}

/// Where the pages go.
#[derive(Debug, Clone, Args)]
pub(super) struct ManOptions {
    /// The directory to write to; it is created if it does not exist.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Prints the completions of a shell.
pub(super) fn completions(options: &CompletionOptions, mut command: Command) -> Result<(), String> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut command, "dlog", &mut text);
    stdout().write_all(&text).map_err(|e| e.to_string())
}

/// Writes a page of each command: `dlog.1`, `dlog-serve.1` ...
pub(super) fn man(options: &ManOptions, command: Command) -> Result<(), String> {
    let written = RealDisk.create_dir(&options.directory).and_then(|()| clap_mangen::generate_to(command, &options.directory));
    written.map_err(|e| format!("{}: {e}", options.directory.display()))
}

/// All commands with their options, in Markdown: docs/commands.md holds it, see `make docs`.
pub(super) fn reference(mut command: Command) -> String {
    command.build();
    let mut text = String::new();
    section(&mut text, "dlog", &command);
    text
}

fn section(text: &mut String, path: &str, command: &Command) {
    let about = command.get_about().map(|about| format!("{about}\n\n")).unwrap_or_default();
    // Writing to memory cannot fail.
    let _ = write!(text, "## {path}\n\n{}", about.replace('<', "&lt;"));
    let arguments: Vec<&Arg> =
        command.get_arguments().filter(|a| !a.is_hide_set() && !["help", "version"].contains(&a.get_id().as_str())).collect();
    if !arguments.is_empty() {
        text.push_str("| option | environment | default | |\n|---|---|---|---|\n");
        arguments.iter().for_each(|argument| row(text, argument));
        text.push('\n');
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set()) {
        section(text, &format!("{path} {}", below.get_name()), below);
    }
}

fn row(text: &mut String, argument: &Arg) {
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let value = argument.get_value_names().unwrap_or_default().join(" ");
    let value = if value.is_empty() { argument.get_id().as_str().to_uppercase() } else { value };
    let short = argument.get_short().map(|short| format!("-{short}"));
    let names: Vec<String> = short.into_iter().chain(argument.get_long().map(|long| format!("--{long}"))).collect();
    let name = match (names.is_empty(), takes_value) {
        (true, _) => value,
        (false, true) => format!("{} {value}", names.join(", ")),
        (false, false) => names.join(", "),
    };
    let environment = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let default: Vec<_> = argument.get_default_values().iter().filter(|_| takes_value).map(|value| value.to_string_lossy()).collect();
    let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let possible: Vec<String> = argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if takes_value && !possible.is_empty() {
        let _ = write!(help, ". One of {}", possible.join(", "));
    }
    let _ = writeln!(text, "| `{name}` | {environment} | {} | {} |", default.join(" "), help.replace('|', "\\|").replace('<', "&lt;"));
}
