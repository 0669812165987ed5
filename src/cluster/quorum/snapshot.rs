//! The bytes of a snapshot, as openraft passes them on.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use crate::env::File;

/// The bytes of a snapshot.
#[derive(Debug, Clone)]
pub enum StoredSnapshot {
    /// A file of this node. It is read only if another node needs it; it can be read although a newer snapshot has replaced it.
    File(Arc<dyn File>),
    /// What was received from another node.
    Received(Vec<u8>),
}

impl StoredSnapshot {
    /// All of it.
    pub(super) fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            StoredSnapshot::Received(bytes) => Ok(Cow::Borrowed(bytes)),
            StoredSnapshot::File(file) => {
                let mut bytes = vec![0; file.size()? as usize];
                let read = file.read_at(0, &mut bytes)?;
                bytes.truncate(read);
                Ok(Cow::Owned(bytes))
            }
        }
    }
}
