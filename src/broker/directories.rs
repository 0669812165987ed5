//! Opens the log directories of a broker.

use std::path::{Path, PathBuf};

use tracing::error;

use super::{Config, Error};
use crate::cluster::METADATA_TOPIC;
use crate::env::{Env, owner_of, user_and_group};
use crate::model::TopicPartition;
use crate::storage::{self, LogDirectory};

/// Opens all directories, that of the metadata log first, and returns those whose disk cannot be used. A broker does not start without its
/// metadata: it would create a new cluster beside the old one's data.
pub(super) fn open_directories(config: &Config, env: &Env) -> Result<(Vec<LogDirectory>, Vec<PathBuf>), Error> {
    if config.reset {
        config.data.iter().try_for_each(|path| LogDirectory::clear(&*env.disk, path))?;
    }
    let metadata = TopicPartition::new(METADATA_TOPIC, 0).to_string();
    let mut paths: Vec<&PathBuf> = config.data.iter().collect();
    paths.sort_by_key(|path| !env.disk.is_dir(&path.join(&metadata)));
    let has_metadata = paths.first().is_some_and(|path| env.disk.is_dir(&path.join(&metadata)));
    let (mut open, mut lost) = (Vec::<LogDirectory>::new(), Vec::new());
    for (at, path) in paths.into_iter().enumerate() {
        let cluster_id = open.first().map(|first| first.cluster_id.as_str()).or(config.cluster_id.as_deref());
        match LogDirectory::open(env.disk.clone(), &*env.entropy, path, config.node_id, cluster_id) {
            Ok(directory) => open.push(directory),
            Err(error @ storage::Error::Io { .. }) if at > 0 && has_metadata => {
                error!(%error, directory = %path.display(), "the log directory is offline: its partitions are not served until the next start");
                lost.push(path.clone());
            }
            Err(error) => return Err(not_writable(path, &error).unwrap_or_else(|| error.into())),
        }
    }
    Ok((open, lost))
}

/// The error for a directory, or for a missing one, if this user is not permitted to write there; none for other errors.
fn not_writable(path: &Path, error: &storage::Error) -> Option<Error> {
    let is_denied = matches!(error, storage::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied);
    let (user, group) = user_and_group().filter(|_| is_denied)?;
    let shown = path.display();
    let owner = path.ancestors().find_map(|above| Some((above, owner_of(above)?)));
    let (owner, remedy) = match owner {
        Some((above, (owner, of))) if above == path => {
            (format!("it belongs to user {owner}, group {of}"), format!("chown -R {user}:{group} {shown}"))
        }
        Some((above, (owner, of))) => (
            format!("{} belongs to user {owner}, group {of}", above.display()),
            format!("mkdir -p {shown} && chown -R {user}:{group} {shown}"),
        ),
        None => ("its owner is unknown".to_string(), format!("chown -R {user}:{group} {shown}")),
    };
    Some(Error::NotWritable { path: shown.to_string(), user, group, owner, remedy })
}
