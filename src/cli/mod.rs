//! The commands a person types.

mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::broker::Mode;

/// Done.
const OK: u8 = 0;
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
}

/// How a broker is started.
#[derive(Debug, Clone, Args)]
struct ServeOptions {
    /// A file of settings, as Kafka's server.properties.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the data lies; overrides log.dirs.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep nothing: the data goes into a temporary directory that is removed at the end.
    #[arg(long, conflicts_with = "data")]
    ephemeral: bool,
    /// Where to listen for clients, host:port; port 0 takes a free one. Overrides listeners.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where to listen for HTTP, host:port.
    #[arg(long, value_name = "ADDRESS", env = "DLOG_HTTP_LISTEN", default_value = "127.0.0.1:9644")]
    http: String,
    /// Any setting by Kafka's name; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    settings: Vec<(String, String)>,
    /// What is logged: error, warn, info, debug, trace, or a filter.
    #[arg(long, value_name = "LEVEL", env = "DLOG_LOG", default_value = "info")]
    log: String,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.trim().to_string(), value.trim().to_string()))
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None => serve::serve(Mode::Dev, cli.options),
        Some(Command::Serve(options)) => serve::serve(Mode::Serve, options),
    };
    match outcome {
        Ok(()) => ExitCode::from(OK),
        Err(message) => {
            eprintln!("dlog: {message}");
            ExitCode::from(FAILED)
        }
    }
}
