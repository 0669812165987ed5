//! `dlog run -- COMMAND`: a broker for one command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use clap::Args;
use tokio::process::Command;

use super::commands::SettingOptions;
use super::output::go_on_without_a_reader;
use super::serve::{Ephemeral, sources};
use crate::broker::{Broker, Config, LogFormat, LogTo, Mode, Seed, init_logging};
use crate::env::{Env, Signals, ask_to_end, end_signal, raise_open_files};

/// The command cannot be started, as shells say it.
const NOT_FOUND: u8 = 127;
/// A command that a signal ended has this and the signal's number as exit code, as shells say it.
const SIGNALLED: i32 = 128;

/// What to run.
#[derive(Debug, Clone, Args)]
pub(super) struct RunOptions {
    #[command(flatten)]
    settings: SettingOptions,
    /// A directory of topics, records and group offsets that are there when the command starts.
    #[arg(long, value_name = "DIR")]
    seed: Option<PathBuf>,
    /// What is logged, to stderr.
    #[arg(long, value_name = "LEVEL", env = "DLOG_LOG", default_value = "warn")]
    log: String,
    /// The command with its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command; the exit code is its own.
pub(super) fn run(options: RunOptions) -> Result<ExitCode, String> {
    go_on_without_a_reader();
    init_logging(&options.log, LogFormat::Text, LogTo::Stderr)?;
    let env = Env { open_files_max: raise_open_files(), ..Env::real() };
    let data = Ephemeral::new(&env);
    let flags = BTreeMap::from([
        ("log.dirs".to_string(), data.path().display().to_string()),
        ("listeners".to_string(), "PLAINTEXT://127.0.0.1:0".to_string()),
    ]);
    let mut sources = sources(&options.settings, flags);
    // The environment is the command's.
    sources.environment.clear();
    let mut config = Config::read(Mode::Dev, &sources, "127.0.0.1:0").map_err(|e| e.to_string())?;
    config.seed = Seed::read(&*env.disk, None, options.seed.as_deref()).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(beside(config, env, &options.command))
}

async fn beside(config: Config, env: Env, command: &[String]) -> Result<ExitCode, String> {
    // Ctrl-C reaches the command too, since it is of our process group: it decides what that means.
    let mut signals = Signals::listen().map_err(|e| e.to_string())?;
    let broker = Broker::start(config, env.clone()).await.map_err(|e| e.to_string())?;
    let bootstrap = broker.listeners().first().map(|(_, address)| address.to_string()).unwrap_or_default();
    let (program, arguments) = command.split_first().ok_or("a command is missing")?;
    let child = Command::new(program)
        .args(arguments)
        .env("KAFKA_BOOTSTRAP_SERVERS", &bootstrap)
        .env("BOOTSTRAP_SERVERS", &bootstrap)
        .env("DLOG_BOOTSTRAP_SERVER", &bootstrap)
        .env("DLOG_HTTP_SERVER", broker.http().to_string())
        .spawn();
    let status = match child {
        Err(error) => {
            eprintln!("dlog: cannot run {program}: {error}");
            broker.stop().await.map_err(|e| e.to_string())?;
            return Ok(ExitCode::from(NOT_FOUND));
        }
        Ok(mut child) => tokio::select! {
            status = child.wait() => status,
            _ = signals.next_to_us() => {
                // It may have ended by itself.
                let _ = ask_to_end(&mut child);
                child.wait().await
            }
        },
    };
    let status = status.map_err(|e| format!("{program}: {e}"))?;
    if !status.success() {
        keep(&broker, &env, program, status).await;
    }
    broker.stop().await.map_err(|e| e.to_string())?;
    let code = status.code().or(end_signal(status).map(|signal| SIGNALLED + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

async fn keep(broker: &Broker, env: &Env, program: &str, status: ExitStatus) {
    let folder = std::env::temp_dir().join(format!("dlog-run-{}", env.entropy.uuid().dashed()));
    match tokio::task::block_in_place(|| broker.keep_tails(Path::new(&folder))) {
        Ok(kept) => eprintln!(
            "dlog: {program} ended with {status}; the last records of {} partition(s) and the state of {} group(s) are in {}",
            kept.partitions,
            kept.groups,
            folder.display()
        ),
        Err(error) => eprintln!("dlog: {program} ended with {status}, and what the broker held could not be kept: {error}"),
    }
}
