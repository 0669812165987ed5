//! The command line: what there is, and which exit code each outcome has.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::{config, doctor, documents, health, inspect, kafka, run as run_command, serve, wait};
use crate::broker::{LogFormat, Mode};

/// Something went wrong.
const FAILED: u8 = 1;

/// A Kafka-compatible broker. Without a command it starts in dev mode: quick, forgiving, on 127.0.0.1:9092.
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
    /// Start a broker with Kafka's own defaults.
    Serve(ServeOptions),
    /// Run a command beside a broker that exists only for it; the exit code is the command's.
    Run(run_command::RunOptions),
    /// Ask a broker whether it serves clients: exit code 0 or 1, for container checks.
    Health(health::HealthOptions),
    /// Say what is wrong with a broker and with what its clients are told: exit code 0 where nothing is, else 1.
    Doctor(doctor::DoctorOptions),
    /// Wait until a topic or a group is as wanted: exit code 0, or 4 when time is over.
    Wait(wait::WaitOptions),
    /// Check every batch, index, snapshot and checkpoint of a data directory that no broker uses: exit code 0, or 3 where something is damaged.
    Verify(inspect::VerifyOptions),
    /// Print segments, indexes, snapshots and checkpoints, ours or Kafka's: exit code 0, or 3 where something is not sound.
    DumpLog(inspect::DumpOptions),
    /// Show settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// As Kafka's tool of this name.
    KafkaTopics(kafka::TopicsOptions),
    /// As Kafka's tool of this name, without groups.
    KafkaConsoleConsumer(kafka::ConsumerOptions),
    /// As Kafka's tool of this name.
    KafkaConsoleProducer(kafka::ProducerOptions),
    /// As Kafka's tool of this name.
    KafkaBrokerApiVersions(kafka::VersionsOptions),
    /// As Confluent's utility of this name: waits for brokers.
    Cub(kafka::CubOptions),
    /// Print the completions of a shell.
    Completions(documents::CompletionOptions),
    /// Write a manual page of each command.
    Man(documents::ManOptions),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print each setting, its value, where that comes from, and whether it is honoured.
    Explain(config::ExplainOptions),
}

/// How a broker is started.
#[derive(Debug, Clone, Args)]
pub(super) struct ServeOptions {
    #[command(flatten)]
    pub(super) settings: SettingOptions,
    /// Where the data lies; overrides log.dirs.
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Keep nothing: the data goes into a temporary directory that is removed at the end.
    #[arg(long, conflicts_with = "data")]
    pub(super) ephemeral: bool,
    /// Throw away what lies in the data directory first.
    #[arg(long)]
    pub(super) reset: bool,
    /// Topics to create at the start where they are missing: name:partitions:replicas[:cleanup.policy], separated by commas.
    #[arg(long, value_name = "TOPICS", env = "KAFKA_CREATE_TOPICS")]
    pub(super) create_topics: Option<String>,
    /// A directory of topics, records and group offsets that are to be there from the start on.
    #[arg(long, value_name = "DIR", env = "DLOG_SEED")]
    pub(super) seed: Option<PathBuf>,
    /// Where to listen for clients, host:port; port 0 takes a free one. Overrides listeners.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<String>,
    /// Where to listen for HTTP, host:port.
    #[arg(long, value_name = "ADDRESS", env = "DLOG_HTTP_LISTEN", default_value = "127.0.0.1:9644")]
    pub(super) http: String,
    /// What is logged: error, warn, info, debug, trace, or a filter. The default is info, or what KAFKA_LOG4J_ROOT_LOGLEVEL says.
    #[arg(long, value_name = "LEVEL", env = "DLOG_LOG")]
    pub(super) log: Option<String>,
    /// How a line of the log looks.
    #[arg(long, value_name = "FORMAT", env = "DLOG_LOG_FORMAT", value_enum, default_value_t = Format::Text)]
    pub(super) log_format: Format,
}

/// Where settings come from, besides the environment.
#[derive(Debug, Clone, Args)]
pub(super) struct SettingOptions {
    /// A file of settings: Kafka's server.properties, or TOML where its name ends in .toml.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Any setting by Kafka's name; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) set: Vec<(String, String)>,
    /// Refuse settings that nobody knows.
    #[arg(long, env = "DLOG_STRICT", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) strict: bool,
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

/// All commands with their options, in Markdown.
pub fn reference() -> String {
    documents::reference(Cli::command())
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
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
        Some(Command::Config(ConfigCommand::Explain(options))) => done(config::explain(&options)),
        Some(Command::KafkaTopics(options)) => done(kafka::topics(&options)),
        Some(Command::KafkaConsoleConsumer(options)) => done(kafka::consume(&options)),
        Some(Command::KafkaConsoleProducer(options)) => done(kafka::produce(&options)),
        Some(Command::KafkaBrokerApiVersions(options)) => done(kafka::versions(&options)),
        Some(Command::Cub(options)) => done(kafka::cub(&options)),
        Some(Command::Completions(options)) => done(documents::completions(&options, Cli::command())),
        Some(Command::Man(options)) => done(documents::man(&options, Cli::command())),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("dlog: {message}");
        ExitCode::from(FAILED)
    })
}
