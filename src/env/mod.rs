//! The outside world: clock, randomness, disk, network, threads; the only room that tests replace.
//!
//! An [`Env`] is built once per broker, in `main` or in a test. No other room calls the system clock, a random source, `std::fs` or
//! `tokio::net`, or depends on the operating system. Waiting uses `tokio::time`, which tests can pause.

mod clock;
mod disk;
mod ended;
mod entropy;
mod fail_stop;
mod memory_disk;
mod network;
mod real_disk;
mod system;
mod tasks;
mod workers;

use std::sync::Arc;

use tracing::Span;

pub use clock::{Clock, ManualClock, SystemClock};
pub use disk::{DIRECT_BLOCK, Disk, File, Lock, Map, OpenMode};
pub use ended::ended_by;
pub use entropy::{Entropy, SystemEntropy};
pub use fail_stop::{FailStop, panic_message};
pub use memory_disk::{Crash, Cut, MemoryDisk};
pub use network::{
    Accept, ByteStream, Company, Listener, Network, NewConnection, Part, Pending, ReadHalf, RealNetwork, WriteHalf, host_and_port,
    split_stream,
};
pub use real_disk::RealDisk;
pub use system::{
    Descriptor, OPEN_FILES_WANTED, Process, ProcessUse, ServiceState, Signals, ask_to_end, container_gateway, end_signal,
    is_device_failure, listening_process, notify_service_manager, open_files_max, owner_of, process_use, process_with_file,
    raise_open_files, user_and_group,
};
pub use tasks::Tasks;
pub use workers::Workers;

/// The environment of one broker.
#[derive(Clone)]
pub struct Env {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Listeners and connections.
    pub network: Arc<dyn Network>,
    /// Threads that serve connections.
    pub workers: Workers,
    /// The limit of this broker's open files and connections; none means no limit. Brokers in one process share its limit: each gets a part.
    pub open_files_max: Option<u64>,
    /// The span of this broker's log lines: none, or one with the broker's id where several brokers run in the process.
    pub log_span: Span,
}

impl Env {
    /// The machine's environment with the process's whole limit of open files; connections are served in the caller's runtime.
    pub fn real() -> Env {
        Env {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            disk: Arc::new(RealDisk),
            network: Arc::new(RealNetwork::default()),
            workers: Workers::none(),
            open_files_max: open_files_max(),
            log_span: Span::none(),
        }
    }
}
