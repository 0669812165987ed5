//! The real binary as a child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The signal that ends a broker: the portable code knows Ctrl-C only.
pub const END_SIGNAL: &str = if cfg!(feature = "portable") { "-INT" } else { "-TERM" };

pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
    /// From the start of the process to the line that says where it listens.
    pub ready: Duration,
    /// What the broker has logged since.
    log: Arc<Mutex<Vec<String>>>,
}

pub fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dlog"));
    command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(data);
    command.env_remove("DLOG_HTTP_LISTEN").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Process {
    pub fn start(mut command: Command) -> Process {
        let begin = Instant::now();
        let mut child = command.spawn().expect("the binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = loop {
            let line = lines.next().expect("the broker says where it listens before it ends").expect("text");
            if let Some(address) = line.trim().strip_prefix("plaintext") {
                break address.trim().parse().expect("an address");
            }
        };
        let ready = begin.elapsed();
        // The log goes on, and the broker must not wait for who reads it.
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = log.clone();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| kept.lock().expect("no panic").push(line)));
        Process { child, address, ready, log }
    }

    /// The lines that the broker has logged since it listens; they go on coming until it ends.
    pub fn log(&self) -> Arc<Mutex<Vec<String>>> {
        self.log.clone()
    }

    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    pub fn terminate(mut self) -> bool {
        Command::new("kill").arg(END_SIGNAL).arg(self.child.id().to_string()).status().expect("kill runs");
        self.child.wait().expect("it ends").success()
    }

    /// A number of `/proc/PID/status` in bytes.
    pub fn memory(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = text.lines().find(|l| l.starts_with(field)).expect("a field of status");
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// CPU time so far, user and system.
    pub fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        Duration::from_millis(ticks * 10)
    }
}

/// A broker ends with its test, also where that fails.
impl Drop for Process {
    fn drop(&mut self) {
        // Errors say that it has ended before.
        let _ = self.child.kill().and_then(|()| self.child.wait().map(drop));
    }
}

/// Runs a command that must fail, and returns its exit code and what it said.
pub fn failure(mut command: Command) -> (i32, String) {
    let mut child = command.spawn().expect("the binary runs");
    let code = child.wait().expect("it ends").code().unwrap_or(-1);
    let mut text = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
    (code, text)
}
