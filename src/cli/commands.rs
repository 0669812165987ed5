//! The command line: what there is, and which exit code each outcome has.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::{config, doctor, documents, health, inspect, kafka, redpanda, run as run_command, serve, wait};
use crate::broker::{LogFormat, Mode};

/// Something went wrong.
const FAILED: u8 = 1;

/// A Kafka-compatible broker. Without a command it starts in dev mode: on 127.0.0.1:9092, with settings for fast tests. Options before a command
/// are passed to that command.
#[derive(Debug, Parser)]
#[command(name = "dlog", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: ServeOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a broker with Kafka's defaults.
    Serve(ServeOptions),
    /// Start a temporary broker, run a command with its address in the environment, and exit with the exit code of the command.
    Run(run_command::RunOptions),
    /// Check whether a broker serves clients: exit code 0 or 1, for health checks of containers.
    Health(health::HealthOptions),
    /// Diagnose a broker and the addresses that it advertises: exit code 1 if there is a problem.
    Doctor(doctor::DoctorOptions),
    /// Wait until a topic exists or a group reaches a state: exit code 0, or 4 on timeout.
    Wait(wait::WaitOptions),
    /// Check every batch, index, snapshot and checkpoint of a data directory of a stopped broker: exit code 3 if a file is damaged.
    Verify(inspect::VerifyOptions),
    /// Print the contents of segments, indexes, snapshots and checkpoints of dlog or Apache Kafka: exit code 3 if a file is damaged.
    DumpLog(inspect::DumpOptions),
    /// Show settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// List, create, describe, delete and alter topics; compatible with Kafka's kafka-topics.
    KafkaTopics(kafka::TopicsOptions),
    /// Print the records of a topic; compatible with Kafka's kafka-console-consumer, without consumer groups.
    KafkaConsoleConsumer(kafka::ConsumerOptions),
    /// Send the lines of stdin as records; compatible with Kafka's kafka-console-producer.
    KafkaConsoleProducer(kafka::ProducerOptions),
    /// Print the API versions that a broker supports; compatible with Kafka's kafka-broker-api-versions.
    KafkaBrokerApiVersions(kafka::VersionsOptions),
    /// Wait for brokers; compatible with cub of Confluent's images.
    Cub(kafka::CubOptions),
    /// Start a broker with Redpanda's flags, and the commands of rpk that health checks and start scripts call.
    #[command(subcommand)]
    Rpk(redpanda::Rpk),
    /// Print the completions of a shell.
    Completions(documents::CompletionOptions),
    /// Write a manual page for each command.
    Man(documents::ManOptions),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print each setting with its value, its source, and whether it is used: exit code 1 if the broker would not start.
    Explain(config::ExplainOptions),
}

/// How a broker is started.
#[derive(Debug, Clone, Args)]
pub(super) struct ServeOptions {
    #[command(flatten)]
    pub(super) settings: SettingOptions,
    /// The data directory; overrides log.dirs.
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Store the data in a temporary directory and remove it when the broker stops.
    #[arg(long, conflicts_with = "data")]
    pub(super) ephemeral: bool,
    /// Delete all data in the data directory before the start.
    #[arg(long)]
    pub(super) reset: bool,
    /// Topics to create at the start if they do not exist: name:partitions:replicas[:cleanup.policy], separated by commas.
    #[arg(long, value_name = "TOPICS", env = "KAFKA_CREATE_TOPICS")]
    pub(super) create_topics: Option<String>,
    /// A directory with topics, records and group offsets to create before the first client is served.
    #[arg(long, value_name = "DIR", env = "DLOG_SEED")]
    pub(super) seed: Option<PathBuf>,
    /// The address to listen on for Kafka clients, host:port; port 0 chooses a free port. Overrides listeners.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<String>,
    /// The address to listen on for HTTP, host:port; port 0 chooses a free port.
    #[arg(
        long = "http-listen",
        visible_alias = "http",
        value_name = "ADDRESS",
        env = "DLOG_HTTP_LISTEN",
        default_value = "127.0.0.1:9644"
    )]
    pub(super) http: String,
    /// The log level: error, warn, info, debug, trace, or a filter. The default is info, or the value of KAFKA_LOG4J_ROOT_LOGLEVEL.
    #[arg(long, value_name = "LEVEL", env = "DLOG_LOG")]
    pub(super) log: Option<String>,
    /// The format of log lines.
    #[arg(long, value_name = "FORMAT", env = "DLOG_LOG_FORMAT", value_enum, default_value_t = Format::Text)]
    pub(super) log_format: Format,
    /// Lines to print when clients are served, for scripts that wait for them.
    #[arg(skip)]
    pub(super) ready_lines: Vec<String>,
}

/// Where settings come from, besides the environment.
#[derive(Debug, Clone, Args)]
pub(super) struct SettingOptions {
    /// A settings file: Kafka's server.properties, or TOML if its name ends in .toml.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A setting by Kafka's name; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) set: Vec<(String, String)>,
    /// Reject unknown settings.
    #[arg(long, env = "DLOG_STRICT", value_parser = clap::builder::FalseyValueParser::new())]
    pub(super) strict: bool,
    /// Start even if settings ask for authentication, authorization or TLS, which are not supported yet. Any client can then read and write everything.
    #[arg(long, env = "DLOG_IGNORE_SECURITY_SETTINGS", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) ignore_security_settings: bool,
    /// Where the values of `set` come from, if not from the flags: a file and a key in it.
    #[arg(skip)]
    pub(super) set_by: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// Kafka's pattern.
    Kafka,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> LogFormat {
        match format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
            Format::Kafka => LogFormat::Kafka,
        }
    }
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.trim().to_string(), value.trim().to_string()))
}

/// The options of a broker that is started without flags.
pub(super) fn default_serve_options() -> ServeOptions {
    parse(vec!["dlog".into()]).options
}

/// Parses a command line; ends the process with clap's message if it is invalid.
fn parse(words: Vec<OsString>) -> Cli {
    let matches = command().get_matches_from(words);
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The command line. A variable that is set and empty counts as not set, because compose files set variables to `${X:-}`.
fn command() -> clap::Command {
    fn without_empty_variables(command: clap::Command) -> clap::Command {
        let is_empty = |name: &std::ffi::OsStr| std::env::var(name).is_ok_and(|value| value.trim().is_empty());
        command
            .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(None::<&'static str>) } else { arg })
            .mut_subcommands(without_empty_variables)
    }
    without_empty_variables(Cli::command())
}

/// The words of a command line with options that stand before the command moved behind it: `dlog --data D serve` is `dlog serve --data D`. So they
/// count, or the command rejects them; none is dropped.
fn arranged(words: Vec<OsString>) -> Vec<OsString> {
    let parse = |words: &[OsString]| command().try_get_matches_from(words);
    // An error is reported by whoever parses next.
    let Ok(matches) = parse(&words) else { return words };
    let mut names = Vec::new();
    let mut level = &matches;
    while let Some((name, below)) = level.subcommand() {
        names.push(name);
        level = below;
    }
    let Some(first) = names.first() else { return words };
    // The value of an option may read like a command: then what stands before it is not a whole command line.
    let is_whole = |before: &[OsString]| parse(before).is_ok_and(|matches| matches.subcommand_name().is_none());
    let Some(at) = (1..words.len()).find(|at| words.get(*at).is_some_and(|word| word == first) && words.get(..*at).is_some_and(is_whole))
    else {
        return words;
    };
    let depth = names.iter().zip(words.iter().skip(at)).take_while(|(name, word)| *word == *name).count();
    let (program, rest) = words.split_at(1);
    let (options, rest) = rest.split_at(at - 1);
    let (commands, rest) = rest.split_at(depth);
    [program, commands, options, rest].concat()
}

/// All commands with their options, in Markdown.
pub fn reference() -> String {
    documents::reference(Cli::command())
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let words = redpanda::one_word_each(std::env::args_os().collect());
    let cli = parse(arranged(words));
    let done = |outcome: Result<(), String>| outcome.map(|()| ExitCode::SUCCESS);
    let outcome = match cli.command {
        None => done(serve::serve(Mode::Dev, cli.options)),
        Some(Command::Serve(options)) => done(serve::serve(Mode::Serve, options)),
        Some(Command::Run(options)) => run_command::run(options),
        Some(Command::Health(options)) => done(health::health(&options)),
        Some(Command::Doctor(options)) => doctor::doctor(&options),
        Some(Command::Wait(options)) => wait::wait(&options),
        Some(Command::Verify(options)) => inspect::verify(&options),
        Some(Command::DumpLog(options)) => inspect::dump(&options),
        Some(Command::Config(ConfigCommand::Explain(options))) => config::explain(&options),
        Some(Command::KafkaTopics(options)) => done(kafka::topics(&options)),
        Some(Command::KafkaConsoleConsumer(options)) => done(kafka::consume(&options)),
        Some(Command::KafkaConsoleProducer(options)) => done(kafka::produce(&options)),
        Some(Command::KafkaBrokerApiVersions(options)) => done(kafka::versions(&options)),
        Some(Command::Cub(options)) => done(kafka::cub(&options)),
        Some(Command::Rpk(command)) => redpanda::rpk(command),
        Some(Command::Completions(options)) => done(documents::completions(&options, Cli::command())),
        Some(Command::Man(options)) => done(documents::man(&options, Cli::command())),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("dlog: {message}");
        ExitCode::from(FAILED)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::VARIABLES;

    #[test]
    fn options_before_the_command_are_moved_behind_it() {
        for (typed, expected) in [
            ("dlog --data D --listen L serve", "dlog serve --data D --listen L"),
            ("dlog --config F serve --strict", "dlog serve --config F --strict"),
            ("dlog --seed D run -- echo serve", "dlog run --seed D -- echo serve"),
            ("dlog --data serve serve", "dlog serve --data serve"),
            ("dlog --data=serve serve", "dlog serve --data=serve"),
            ("dlog --set a=b config explain --dev", "dlog config explain --set a=b --dev"),
            ("dlog --data config", "dlog --data config"),
            ("dlog serve --data D", "dlog serve --data D"),
            ("dlog --ephemeral", "dlog --ephemeral"),
            ("dlog run -- dlog --data D serve", "dlog run -- dlog --data D serve"),
        ] {
            let words = typed.split(' ').map(OsString::from).collect();
            let shown: Vec<_> = arranged(words).into_iter().map(|word| word.into_string().unwrap()).collect();
            assert_eq!(shown.join(" "), expected);
        }
        let parse = |typed: &str| Cli::try_parse_from(arranged(typed.split(' ').map(OsString::from).collect())).map(|_| ());
        assert!(parse("dlog --data D health").is_err(), "a command without this option rejects it");
        assert!(parse("dlog --data D serve --data E").is_err(), "twice is not dropped either");
    }

    #[test]
    fn every_variable_of_ours_is_known() {
        fn variables(command: &clap::Command, found: &mut Vec<String>) {
            found.extend(command.get_arguments().filter_map(|a| a.get_env()).map(|name| name.to_string_lossy().into_owned()));
            command.get_subcommands().for_each(|below| variables(below, found));
        }
        let mut found = vec!["DLOG_DEFAULT_DATA".to_string(), "DLOG_DEFAULT_LISTENERS".to_string()];
        variables(&Cli::command(), &mut found);
        found.retain(|name| name.starts_with("DLOG_"));
        found.sort();
        found.dedup();
        assert_eq!(found, VARIABLES);
    }

    #[test]
    fn the_address_to_listen_on_and_the_address_to_ask_have_two_names() {
        for command in Cli::command().get_subcommands() {
            let names: Vec<_> = command.get_arguments().filter_map(|a| a.get_env()?.to_str().map(str::to_string)).collect();
            let listens = names.contains(&"DLOG_HTTP_LISTEN".to_string());
            assert!(!listens || !names.contains(&"DLOG_HTTP_SERVER".to_string()), "{}", command.get_name());
            let bootstrap = command.get_arguments().find(|a| a.get_long() == Some("bootstrap-server"));
            assert!(bootstrap.is_none_or(|a| a.get_short() == Some('b')), "{}", command.get_name());
        }
    }
}
