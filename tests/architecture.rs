//! Rooms import only what the plan of the house allows (docs/architecture.md).

use std::path::{Path, PathBuf};

/// Each room with the rooms it may import.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &["model"]),
    ("env", &["model"]),
    ("records", &["wire", "model"]),
    ("protocol", &["wire", "model"]),
    ("storage", &["records", "wire", "env", "model"]),
    ("partition", &["storage", "records", "env", "model"]),
    ("client", &["protocol", "records", "wire", "env", "model"]),
    ("coordinator", &["partition", "protocol", "records", "wire", "env", "model"]),
    ("cluster", &["partition", "storage", "protocol", "records", "wire", "env", "model"]),
    ("server", &["coordinator", "cluster", "partition", "protocol", "records", "wire", "env", "model"]),
    ("http", &["server", "coordinator", "cluster", "partition", "protocol", "env", "model"]),
    (
        "broker",
        &["http", "server", "client", "coordinator", "cluster", "partition", "storage", "protocol", "records", "wire", "env", "model"],
    ),
    (
        "cli",
        &[
            "broker",
            "http",
            "client",
            "server",
            "coordinator",
            "cluster",
            "partition",
            "storage",
            "protocol",
            "records",
            "wire",
            "env",
            "model",
        ],
    ),
];

/// Words that only some rooms may use: (word, rooms that may, what to use instead).
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("std::fs", &["env"], "env::Disk"),
    ("SystemTime", &["env"], "env::Clock"),
    ("tokio::net", &["env"], "env::Listener"),
    ("getrandom", &["env"], "env::Entropy"),
    ("unsafe ", &["env"], "safe code"),
    ("rustix", &["env"], OF_THE_SYSTEM),
    ("libc::", &["env"], OF_THE_SYSTEM),
    ("sd_notify", &["env"], OF_THE_SYSTEM),
    ("/proc", &["env"], OF_THE_SYSTEM),
    ("std::os::", &["env"], OF_THE_SYSTEM),
    ("tokio::signal", &["env"], OF_THE_SYSTEM),
    ("cfg(unix", &["env"], OF_THE_SYSTEM),
    ("cfg(windows", &["env"], OF_THE_SYSTEM),
    ("cfg(target_", &["env"], OF_THE_SYSTEM),
    ("cfg!(", &["env"], OF_THE_SYSTEM),
    ("set_global_recorder", &[], OF_A_BROKER),
    ("counter!(", &["server", "broker"], OF_A_BROKER),
    ("gauge!(", &["server", "broker"], OF_A_BROKER),
    ("histogram!(", &["server", "broker"], OF_A_BROKER),
    ("thread_local!", &[], OF_A_BROKER),
    ("tokio::spawn", &["env", "cli"], OF_TASKS),
    ("spawn_blocking", &["env"], OF_TASKS),
    ("spawn_on(", &["env"], OF_TASKS),
    ("TaskTracker", &["env"], OF_TASKS),
    ("JoinSet", &["env"], OF_TASKS),
    ("LocalSet", &["env"], OF_TASKS),
    ("Handle::current", &["env"], OF_TASKS),
];
const OF_THE_SYSTEM: &str = "a function of env::system, which has a body for each operating system";
const OF_TASKS: &str = "env::Tasks or env::Workers::blocking, so that a panic in it stops the broker";
const OF_A_BROKER: &str =
    "a value of the broker, since several live in one process: for metrics a handle of its recorder, as in server::ServerMetrics";
/// What makes a `static` change: brokers in one process would share it. Only a command, of which a process runs one, may have such a thing.
const CHANGING: &[&str] = &["Atomic", "Mutex", "RwLock", "OnceLock", "Cell<", "mut ", "Counter", "Gauge", "Histogram"];

/// Rooms of plain synchronous code.
const NO_TOKIO: &[&str] = &["model", "wire", "records", "protocol", "storage"];

/// Rooms whose invariants protect what is stored, and the assertions that each must have at least in a thousand lines of code.
const ASSERTING: &[&str] = &["storage", "partition", "coordinator", "cluster"];
const ASSERTIONS_IN_THOUSAND: usize = 5;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|x| x == "rs") {
            found.push(path);
        }
    }
}

/// The rooms named by `crate::room` in a line.
fn named_rooms(line: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        let words: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => group.split(',').collect(),
            None => vec![rest],
        };
        let name = |word: &str| word.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
        rooms.extend(words.iter().map(|w| name(w)).filter(|w| ALLOWED.iter().any(|(room, _)| room == w)));
    }
    rooms
}

#[test]
fn rooms_import_only_what_the_plan_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut breaches = Vec::new();
    for (room, allowed) in ALLOWED {
        let mut files = Vec::new();
        sources(&root.join(room), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).expect("readable");
            let shown = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
            // Tests at the end of a file may use whatever they need.
            let product = text.split("#[cfg(test)]").next().unwrap_or("");
            for (number, line) in product.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
                let mut breach = |what: String| breaches.push(format!("src/{shown}:{}: {what}", number + 1));
                for named in named_rooms(line).iter().filter(|n| n != room && !allowed.contains(&n.as_str())) {
                    breach(format!("{room} must not import {named}"));
                }
                for (word, rooms, instead) in RESERVED.iter().filter(|(word, _, _)| line.contains(word)) {
                    if !rooms.contains(room) {
                        breach(format!("{word}: use {instead}"));
                    }
                }
                let is_static =
                    ["static ", "pub static ", "pub(crate) static ", "pub(super) static "].iter().any(|s| line.trim_start().starts_with(s));
                if is_static && *room != "cli" && CHANGING.iter().any(|word| line.contains(word)) {
                    breach(format!("a static that changes: use {OF_A_BROKER}"));
                }
                // Within env only one folder knows the operating system.
                if *room == "env" && !shown.starts_with("env/system/") {
                    for (word, _, instead) in RESERVED.iter().filter(|(word, _, instead)| *instead == OF_THE_SYSTEM && line.contains(word))
                    {
                        breach(format!("{word}: use {instead}"));
                    }
                }
                if NO_TOKIO.contains(room) && line.contains("tokio") {
                    breach(format!("{room} is plain synchronous code"));
                }
            }
        }
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn every_room_is_in_the_plan_and_says_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let face = std::fs::read_to_string(root.join("lib.rs")).expect("readable");
    let rooms: Vec<&str> = face.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut planned: Vec<&str> = ALLOWED.iter().map(|(room, _)| *room).collect();
    planned.sort();
    assert_eq!(rooms, planned);
    for room in rooms {
        let text = std::fs::read_to_string(root.join(room).join("mod.rs")).expect("a room has a face");
        assert!(text.starts_with("//! "), "src/{room}/mod.rs begins with a sentence about the room");
    }
}

#[test]
fn rooms_that_store_assert_their_invariants() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for room in ASSERTING {
        let mut files = Vec::new();
        sources(&root.join(room), &mut files);
        let (mut lines, mut assertions) = (0, 0);
        for file in files {
            let text = std::fs::read_to_string(&file).expect("readable");
            let product = text.split("#[cfg(test)]").next().unwrap_or("");
            let code = product.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
            for line in code {
                lines += 1;
                assertions += ["assert!(", "assert_eq!(", "assert_ne!("].iter().map(|word| line.matches(word).count()).sum::<usize>();
            }
        }
        assert!(assertions * 1000 >= lines * ASSERTIONS_IN_THOUSAND, "{room} has {assertions} assertions in {lines} lines of code");
    }
}
