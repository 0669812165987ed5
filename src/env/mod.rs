//! The world: clock, chance, disk, network, threads; the only room that a test replaces.
//!
//! An [`Env`] is built once a broker, in `main` or in a test. Nobody else calls the system clock, a random source, `std::fs` or
//! `tokio::net`, or knows which operating system this is. Waiting uses `tokio::time`, which tests can pause.

mod clock;
mod disk;
mod entropy;
mod fail_stop;
mod memory_disk;
mod network;
mod real_disk;
mod system;
mod workers;

use std::sync::Arc;

pub use clock::{Clock, ManualClock, SystemClock};
pub use disk::{DIRECT_BLOCK, Disk, File, Lock, Map, OpenMode};
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
    is_device_failure, listening_process, open_files_max, owner_of, process_use, process_with_file, raise_open_files, tell_service_manager,
    user_and_group,
};
pub use workers::Workers;

/// What one broker sees of the world.
#[derive(Clone)]
pub struct Env {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Listeners and connections.
    pub network: Arc<dyn Network>,
    /// Threads that serve connections.
    pub workers: Workers,
    /// How many files and connections this broker may have open; none is unlimited. Brokers of one process share its limit: each gets a part.
    pub open_files_max: Option<u64>,
}

impl Env {
    /// The real world with all of the process' open files; connections run where everything else does.
    pub fn real() -> Env {
        Env {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            disk: Arc::new(RealDisk),
            network: Arc::new(RealNetwork::default()),
            workers: Workers::none(),
            open_files_max: open_files_max(),
        }
    }
}
