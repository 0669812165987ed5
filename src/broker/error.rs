//! The reasons why a broker does not start, each with a remedy.

use super::Free;
use crate::{cluster, storage};

/// An error that prevents a broker from starting or from stopping cleanly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An invalid setting.
    #[error("{key}={value}: {what}")]
    Setting {
        /// Kafka's name.
        key: String,
        /// The configured value.
        value: String,
        /// What is wrong, and what would be valid.
        what: String,
    },
    /// A setting that requires authentication, authorization or encryption.
    #[error(
        "{name} (from {source_name}) asks for {protection}, which is not supported yet: any client could read and write everything. Remove the setting, or accept an open broker with --ignore-security-settings (DLOG_IGNORE_SECURITY_SETTINGS=true)"
    )]
    Unprotected {
        /// The setting or the variable.
        name: String,
        /// The environment, the flags, or a file; with the key in the file if its name differs.
        source_name: String,
        /// What it requires.
        protection: &'static str,
    },
    /// An unknown environment variable that starts with our prefix, under `--strict`.
    #[error("the environment variable {name} is {what}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The configuration file.
    #[error("the configuration file {path}: {what}")]
    File {
        /// Where.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// Ports or directories that other processes use.
    #[error("cannot start: {}; stop that, or use {free}", what.join("; "))]
    Taken {
        /// Each port or directory with the process that uses it.
        what: Vec<String>,
        /// Addresses and directories that are free.
        free: Box<Free>,
    },
    /// A directory that the user of this process may not write to.
    #[error(
        "cannot write to {path} as user {user}, group {group}: {owner}; run `{remedy}` as root (for a volume of a container: on the host), or choose another directory with --data"
    )]
    NotWritable {
        /// The directory.
        path: String,
        /// The user of this process.
        user: u32,
        /// The group of this process.
        group: u32,
        /// The owner of the directory.
        owner: String,
        /// The command that changes that.
        remedy: String,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address with --{flag}")]
    Bind {
        /// Host and port.
        address: String,
        /// The flag that changes it.
        flag: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The seed cannot be stored.
    #[error("cannot seed: {path}: {what}")]
    Seed {
        /// The file, topic or group.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The log directory.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The metadata.
    #[error("the cluster's metadata: {0}")]
    Cluster(#[from] cluster::Error),
    /// A part of the broker has panicked.
    #[error(
        "the broker has stopped because an invariant is violated ({0}); the next start recovers its logs as after a crash. Please report this"
    )]
    Failed(String),
    /// Closing the logs.
    #[error("the logs were not closed cleanly, the next start will check them: {0}")]
    Close(String),
}
