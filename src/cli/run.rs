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
use crate::http::utc;
use crate::model::counted;

/// The command cannot be started, as shells say it.
const NOT_FOUND: u8 = 127;
/// A command that a signal ended has this and the signal's number as exit code, as shells say it.
const SIGNALLED: i32 = 128;

/// What to run.
#[derive(Debug, Clone, Args)]
pub(super) struct RunOptions {
    #[command(flatten)]
    settings: SettingOptions,
    /// A directory with topics, records and group offsets to create before the command starts.
    #[arg(long, value_name = "DIR")]
    seed: Option<PathBuf>,
    /// Topics to create before the command starts: name:partitions:replicas[:cleanup.policy], separated by commas.
    #[arg(long, value_name = "TOPICS", env = "KAFKA_CREATE_TOPICS")]
    create_topics: Option<String>,
    /// The directory in which a new folder with the last records and the groups is created if the command fails. The default is the directory
    /// for temporary files.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The log level; the log is written to stderr.
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
        ("advertised.listeners".to_string(), String::new()),
    ]);
    let mut sources = sources(&options.settings, flags);
    sources.environment.retain(|(name, _)| is_for_the_broker(name));
    let mut config = Config::read(Mode::Dev, &sources, "127.0.0.1:0").map_err(|e| e.to_string())?;
    config.seed = Seed::read(&*env.disk, options.create_topics.as_deref(), options.seed.as_deref()).map_err(|e| e.to_string())?;
    config.keep_deleted = true;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    let keep = options.keep.clone().unwrap_or_else(std::env::temp_dir);
    runtime.block_on(beside(config, env, &options.command, &keep))
}

/// Whether a variable is a setting of this broker. Where it listens and where its data is are decided here, and the rest of the environment is the
/// command's: it may hold the address of another broker.
fn is_for_the_broker(name: &str) -> bool {
    const NOT: &[&str] = &[
        "LISTENERS",
        "ADVERTISED_LISTENERS",
        "LISTENER_SECURITY_PROTOCOL_MAP",
        "INTER_BROKER_LISTENER_NAME",
        "CONTROLLER_LISTENER_NAMES",
        "CONTROLLER_QUORUM_VOTERS",
        "CONTROLLER_QUORUM_BOOTSTRAP_SERVERS",
        "PROCESS_ROLES",
        "LOG_DIR",
        "LOG_DIRS",
        "METADATA_LOG_DIR",
        "BOOTSTRAP_SERVERS",
        "BOOTSTRAP_SERVER",
        "HOME",
    ];
    let key = name.strip_prefix("KAFKA_CFG_").or_else(|| name.strip_prefix("KAFKA_"));
    // Those of security are the command's: there is none here, and clients have settings of the same names.
    const OF_CLIENTS: &[&str] = &["SASL_", "SSL_", "TLS_", "SECURITY_"];
    key.is_some_and(|key| !NOT.contains(&key) && !OF_CLIENTS.iter().any(|prefix| key.starts_with(prefix)))
}

async fn beside(config: Config, env: Env, command: &[String], keep_in: &Path) -> Result<ExitCode, String> {
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
        keep(&broker, &env, program, status, keep_in);
    }
    broker.stop().await.map_err(|e| e.to_string())?;
    let code = status.code().or(end_signal(status).map(|signal| SIGNALLED + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// With this the folders of kept runs begin.
const KEPT: &str = "dlog-run-";

/// Saves the contents of the broker in a new folder, and prints its path with the number of saved runs: they are never removed automatically.
fn keep(broker: &Broker, env: &Env, program: &str, status: ExitStatus, directory: &Path) {
    let time = utc(env.clock.wall_ms()).replace(':', "");
    let id = env.entropy.uuid().dashed();
    let folder = directory.join(format!("{KEPT}{time}-{}", id.split('-').next().unwrap_or_default()));
    let kept = match tokio::task::block_in_place(|| broker.keep_tails(&folder)) {
        Ok(kept) => kept,
        Err(error) => return eprintln!("dlog: {program} ended with {status}, and the contents of the broker could not be saved: {error}"),
    };
    let names = env.disk.list(directory).unwrap_or_default();
    let runs = names.iter().filter(|name| name.starts_with(KEPT)).count();
    let runs = if runs == 1 { "1 run is".to_string() } else { format!("{runs} runs are") };
    let deleted = match kept.deleted {
        0 => String::new(),
        1 => " (1 of them of a deleted topic)".to_string(),
        deleted => format!(" ({deleted} of them of deleted topics)"),
    };
    eprintln!(
        "dlog: {program} ended with {status}; the last records of {}{deleted} and the state of {} are in {}; {runs} kept in {}",
        counted(kept.partitions + kept.deleted, "partition"),
        counted(kept.groups, "group"),
        folder.display(),
        directory.display()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_environment_count_but_for_where_the_broker_is() {
        for name in ["KAFKA_NUM_PARTITIONS", "KAFKA_CFG_NUM_PARTITIONS", "KAFKA_AUTO_CREATE_TOPICS_ENABLE", "KAFKA_CREATE_TOPICS"] {
            assert!(is_for_the_broker(name), "{name}");
        }
        for name in ["KAFKA_LISTENERS", "KAFKA_CFG_ADVERTISED_LISTENERS", "KAFKA_LOG_DIRS", "KAFKA_BOOTSTRAP_SERVERS", "CLUSTER_ID", "PATH"]
        {
            assert!(!is_for_the_broker(name), "{name}");
        }
    }
}
