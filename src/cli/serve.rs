//! `dlog` and `dlog serve`: a broker until SIGTERM or SIGINT.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::banner::announce;
use super::commands::{Format, ServeOptions, SettingOptions};
use super::output::go_on_without_a_reader;
use super::{instead, redpanda};
use crate::broker::{Broker, Config, LogTo, Mode, Seed, Sources, init_logging};
use crate::env::{Env, OPEN_FILES_WANTED, ServiceState, Signals, Workers, notify_service_manager, raise_open_files};
use crate::model::NodeId;

/// What Kafka's images take the log level from.
const KAFKAS_LOG_LEVEL: &str = "KAFKA_LOG4J_ROOT_LOGLEVEL";

/// A directory for data that goes with the value.
pub(super) struct Ephemeral {
    path: PathBuf,
    env: Env,
}

impl Ephemeral {
    /// A fresh name; the broker makes the directory.
    pub(super) fn new(env: &Env) -> Ephemeral {
        Ephemeral { path: std::env::temp_dir().join(format!("dlog-{}", env.entropy.uuid().dashed())), env: env.clone() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Ephemeral {
    fn drop(&mut self) {
        if self.env.disk.exists(&self.path)
            && let Err(error) = self.env.disk.remove_dir_all(&self.path)
        {
            eprintln!("dlog: cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Starts a broker and waits for the signal to stop.
pub(super) fn serve(mode: Mode, options: ServeOptions) -> Result<(), String> {
    go_on_without_a_reader();
    let level = options.log.clone().unwrap_or_else(kafkas_log_level);
    init_logging(&level, options.log_format.into(), LogTo::Stdout)?;
    let open_files_max = raise_open_files();
    let env = Env { workers: Workers::per_core().map_err(|e| e.to_string())?, open_files_max, ..Env::real() };
    let ephemeral = options.ephemeral.then(|| Ephemeral::new(&env));
    let config = configure(mode, &options, &env, ephemeral.as_ref().map(Ephemeral::path))?;
    if let Some(limit) = open_files_max.filter(|limit| *limit < OPEN_FILES_WANTED) {
        warn!(limit, "the limit of open files is low; each partition and each connection needs one");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(run(config, env, options.log_format, &options.ready_lines))
}

/// The level that Kafka's images are given, in our words; info without one.
fn kafkas_log_level() -> String {
    match std::env::var(KAFKAS_LOG_LEVEL).unwrap_or_default().trim().to_lowercase().as_str() {
        "" => "info".into(),
        "fatal" => "error".into(),
        "all" => "trace".into(),
        level @ ("off" | "error" | "warn" | "info" | "debug" | "trace") => level.into(),
        // It is another program's variable: it does not prevent the start.
        _ => "info".into(),
    }
}

fn configure(mode: Mode, options: &ServeOptions, env: &Env, ephemeral: Option<&Path>) -> Result<Config, String> {
    let mut flags = BTreeMap::new();
    if let Some(data) = ephemeral.or(options.data.as_deref()) {
        flags.insert("log.dirs".into(), data.display().to_string());
    }
    if let Some(listen) = &options.listen {
        flags.insert("listeners".into(), format!("PLAINTEXT://{listen}"));
    }
    let mut config = Config::read(mode, &sources(&options.settings, flags), &options.http).map_err(|e| e.to_string())?;
    config.seed = Seed::read(&*env.disk, options.create_topics.as_deref(), options.seed.as_deref()).map_err(|e| e.to_string())?;
    config.reset = options.reset;
    Ok(config)
}

/// The file, the environment, and the flags; `more` flags win over `--set`.
pub(super) fn sources(options: &SettingOptions, more: BTreeMap<String, String>) -> Sources {
    let mut flags: BTreeMap<String, String> = options.set.iter().cloned().collect();
    let mut flags_by = options.set_by.clone();
    flags_by.retain(|name, _| !more.contains_key(name));
    flags.extend(more);
    // A variable that is not UTF-8 is no setting.
    let environment = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    Sources {
        file: options.config.clone(),
        strict: options.strict,
        ignore_security: options.ignore_security_settings,
        environment,
        flags,
        flags_by,
        default_data: default_data(),
    }
}

/// `$XDG_DATA_HOME/dlog`, else `~/.local/share/dlog`, else `./dlog-data`.
fn default_data() -> PathBuf {
    let home = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    match (home("XDG_DATA_HOME"), home("HOME")) {
        (Some(data), _) => data.join("dlog"),
        (None, Some(home)) => home.join(".local/share/dlog"),
        (None, None) => PathBuf::from("dlog-data"),
    }
}

async fn run(config: Config, env: Env, format: Format, ready_lines: &[String]) -> Result<(), String> {
    let (mode, node, data) = (config.mode, config.node_id, config.data.clone());
    let mut signals = Signals::listen().map_err(|e| e.to_string())?;
    let broker = Broker::start(config, env).await.map_err(|e| instead::message(&e, &command_line()))?;
    announce(&broker, mode, &data, format);
    if matches!(format, Format::Kafka) {
        announce_as_kafka(node);
    }
    ready_lines.iter().for_each(|line| println!("{line}"));
    notify(ServiceState::Ready);
    let signal = tokio::select! {
        name = signals.next() => Some(name),
        // What happened was logged, and stopping ends with it as its error.
        _ = broker.failed() => None,
    };
    if let Some(signal) = signal {
        info!(signal, "stopping");
    }
    notify(ServiceState::Stopping);
    broker.stop().await.map_err(|e| e.to_string())?;
    info!("stopped");
    Ok(())
}

/// The words of this process's command line, each option and each value as one word.
fn command_line() -> Vec<String> {
    redpanda::one_word_each(std::env::args_os().collect()).into_iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The lines for which the start scripts of others wait, as those of Testcontainers: of a KRaft broker that serves clients, of its server, and of a
/// broker from before KRaft.
fn announce_as_kafka(node: NodeId) {
    println!(
        "INFO [BrokerLifecycleManager id={node}] The broker has been unfenced. Transitioning from RECOVERY to RUNNING. (kafka.server.BrokerLifecycleManager)"
    );
    println!("INFO [KafkaRaftServer nodeId={node}] Kafka Server started (kafka.server.KafkaRaftServer)");
    println!("INFO [KafkaServer id={node}] started (kafka.server.KafkaServer)");
}

/// Reports the state to the service manager, if there is one.
fn notify(state: ServiceState) {
    if let Err(error) = notify_service_manager(state) {
        warn!(%error, "the service manager could not be notified");
    }
}
