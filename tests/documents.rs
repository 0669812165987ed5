//! The documents are true: links lead somewhere, tables are what the code says, and commands run.
//!
//! `make docs` writes the tables. A block of commands is fenced as `sh`; a second word says what it needs: `server` runs in the background to the end of
//! the document, `docker` is run by `make docker-test` instead (DOCUMENTED_DOCKER), `build` is what CI does anyway, and any other word is a program without
//! which the block is passed over. The blocks of a document run in one shell, in an empty directory and, where the system allows, in a network of their own.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use dlog::broker::KEYS;
use dlog::http::ROUTES;
use dlog::partition::Kind;
use dlog::server::SERVED;

/// With what a line of a command begins.
const COMMANDS: &[&str] = &["dlog ", "kcat ", "docker ", "docker-compose ", "make ", "cargo ", "curl ", "$ "];
/// The files under compat-tests/examples that docs/examples.md shows.
const EXAMPLES: &[(&str, &str)] = &[
    ("pytest/conftest.py", "python"),
    ("pytest/test_orders.py", "python"),
    ("go/orders_test.go", "go"),
    ("spring/src/test/java/example/OrdersTest.java", "java"),
    ("github-actions/kafka-tests.yml", "yaml"),
];
/// What a block may be besides commands.
const NOT_RUN: &[&str] = &["text", "yaml", "properties", "json", "java", "python", "go", "spec"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<(PathBuf, String)> {
    let docs = std::fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("readable").path());
    let all = docs
        .filter(|path| path.extension().is_some_and(|x| x == "md"))
        .chain([root().join("README.md"), root().join("compat-tests/README.md")]);
    all.map(|path| (path.clone(), std::fs::read_to_string(path).expect("text"))).collect()
}

/// What is in a `fence`, with its words, and the line where it begins.
fn blocks(text: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (at, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(words), None) => open = Some((at + 1, words.trim().to_string(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some((_, _, body))) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// The text without its blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Phrases that docs/style.md replaces. They must not return to the documents and to the messages of the program.
const REPLACED: &[&str] = &[
    "passed over",
    "passes over",
    "lies outside",
    "lies in",
    "mend the disk",
    "in vain",
    "is taken by",
    "throw away",
    "thrown away",
    "nobody knows",
    "coordinator knows",
    "was told",
    "is told",
    "are told",
    "be told",
    "taken over",
    "made good",
    "goes on",
    "could be had",
    "takes too long",
    "took too long",
    "is there twice",
    "says why",
    "is not offered",
    "is not known",
    "does not hold",
    "for nobody",
    "so many",
    "cut off",
    "contradicts itself",
    "leads nowhere",
    "from the start on",
];

#[test]
fn documents_and_messages_are_in_plain_english() {
    let mut found = Vec::new();
    let mut check = |path: &Path, text: &str| {
        for (at, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            found.extend(
                REPLACED.iter().filter(|words| lower.contains(**words)).map(|words| format!("{}:{}: {words}", path.display(), at + 1)),
            );
        }
    };
    let changelog = root().join("CHANGELOG.md");
    let text = std::fs::read_to_string(&changelog).expect("text");
    for (path, text) in documents().into_iter().chain([(changelog, text)]).filter(|(path, _)| !path.ends_with("style.md")) {
        check(&path, &text);
    }
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            // Messages are in the code; its tests and comments are not shown to users.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
            check(&path, &lines.collect::<Vec<_>>().join("\n"));
        }
    }
    assert!(found.is_empty(), "docs/style.md has words for these:\n{}", found.join("\n"));
}

/// A heading as a link names it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    for (path, text) in documents() {
        let text = prose(&text);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.starts_with("http")) {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().expect("a folder").join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if !place.is_empty() {
                let there = prose(&std::fs::read_to_string(&target).expect("text"));
                let headings: Vec<String> =
                    there.lines().filter_map(|line| line.strip_prefix('#')).map(|h| anchor(h.trim_start_matches('#'))).collect();
                assert!(headings.iter().any(|h| h == place), "{}: {link}: there is {headings:?}", path.display());
            }
        }
    }
}

#[test]
fn tables_are_what_the_code_says() {
    table("configuration.md", "settings", &settings());
    table("protocol.md", "served", &served());
    table("commands.md", "commands", &dlog::cli::reference());
    table("http.md", "routes", &routes());
    for (file, language) in EXAMPLES {
        let text = std::fs::read_to_string(root().join("compat-tests/examples").join(file)).expect("an example");
        table("examples.md", file, &format!("```{language}\n{text}```\n"));
    }
}

/// Holds what is between the marks of a document to `wanted`, or writes it where WRITE_DOCS is set.
fn table(document: &str, name: &str, wanted: &str) {
    let path = root().join("docs").join(document);
    let text = std::fs::read_to_string(&path).expect("the document");
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = text.split_once(&begin).expect("the mark of its begin");
    let (found, after) = rest.split_once(&end).expect("the mark of its end");
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{wanted}{end}{after}")).expect("written");
    } else {
        assert!(found == wanted, "docs/{document}: {name} is stale: run `make docs`");
    }
}

fn settings() -> String {
    let mut lines = String::from("| key | type | default | |\n|---|---|---|---|\n");
    for key in KEYS {
        let kind = match key.kind {
            Kind::Boolean => "boolean",
            Kind::Int => "int",
            Kind::Short => "short",
            Kind::Long => "long",
            Kind::Double => "double",
            Kind::String => "string",
            Kind::List => "list",
            Kind::Class => "class",
            Kind::Password => "password",
        };
        let default = if key.default.is_empty() { "none".into() } else { key.default.replace(',', ", ") };
        let dev = key.dev_default.map(|dev| format!("; {dev} in dev mode")).unwrap_or_default();
        writeln!(lines, "| `{}` | {kind} | {default}{dev} | {} |", key.name, key.doc).expect("memory");
    }
    lines
}

fn routes() -> String {
    let mut text = String::new();
    for route in ROUTES {
        writeln!(text, "## {} {}\n\n{}\n", route.method, route.path, route.help).expect("memory");
        if !route.parameters.is_empty() {
            text.push_str("| parameter | |\n|---|---|\n");
            route.parameters.iter().for_each(|(name, help)| writeln!(text, "| `{name}` | {help} |").expect("memory"));
            text.push('\n');
        }
        text.push_str("| status | |\n|---|---|\n");
        route.answers.iter().for_each(|(status, help)| writeln!(text, "| {status} | {help} |").expect("memory"));
        text.push('\n');
    }
    text
}

fn served() -> String {
    let mut lines = String::from("| key | API | versions |\n|---|---|---|\n");
    for api in SERVED {
        let versions = if api.min == api.max { api.min.to_string() } else { format!("{}-{}", api.min, api.max) };
        writeln!(lines, "| {} | {} | {versions} |", api.key as i16, api.key.name()).expect("memory");
    }
    lines
}

#[test]
fn commands_run() {
    let docker = std::env::var_os("DOCUMENTED_DOCKER").is_some();
    let alone = Command::new("unshare").args(["-rn", "ip", "link", "set", "lo", "up"]).output().is_ok_and(|done| done.status.success());
    for (path, text) in documents() {
        let script = script_of(&path, &text, docker);
        let needs_network = script.contains(SERVER_LOG);
        if script.is_empty() {
            continue;
        }
        if needs_network && !alone {
            // A broker of somebody else may have the port.
            eprintln!("{}: no network of its own, so its commands are not run", path.display());
            continue;
        }
        run(&path, &script, needs_network);
    }
}

const SERVER_LOG: &str = "server.log";

/// The blocks of a document that are to be run, as one script: those for Docker, or the others.
fn script_of(path: &Path, text: &str, docker: bool) -> String {
    let found = std::env::var("PATH").unwrap_or_default();
    let has = |program: &str| found.split(':').any(|folder| Path::new(folder).join(program).exists());
    let mut script = String::new();
    for (line, words, body) in blocks(text) {
        let (language, need) = words.split_once(' ').unwrap_or((&words, ""));
        let place = format!("{}:{line}", path.display());
        assert!(language == "sh" || NOT_RUN.contains(&language), "{place}: a block is sh or one of {NOT_RUN:?}, not {words:?}");
        let hidden = body.lines().find(|line| language != "sh" && COMMANDS.iter().any(|word| line.starts_with(word)));
        assert_eq!(hidden, None, "{place}: a command is in a block that is not run");
        let block = match (language, need) {
            ("sh", "build") => continue,
            ("sh", need) if (need == "docker") != docker => continue,
            ("sh", "server") => {
                format!(
                    "({body}) >{SERVER_LOG} 2>&1 &\nfor _ in {{1..200}}; do dlog health && break; sleep 0.05; done 2>/dev/null\ndlog health\n"
                )
            }
            ("sh", need) if need.is_empty() || has(need) => body,
            _ => continue,
        };
        write!(script, "echo {place} >&2\n{block}").expect("memory");
    }
    script
}

fn run(path: &Path, script: &str, in_own_network: bool) {
    let binaries = Path::new(env!("CARGO_BIN_EXE_dlog")).parent().expect("a folder").display().to_string();
    let found = std::env::var("PATH").unwrap_or_default();
    // What stays in the background ends with the shell.
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{script}");
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(if in_own_network { "unshare" } else { "bash" });
    if in_own_network {
        command.args(["-rn", "bash", "-c"]).arg(format!("ip link set lo up\n{script}"));
    } else {
        command.arg("-c").arg(script);
    }
    let command = command.current_dir(folder.path()).env("PATH", format!("{binaries}:{found}"));
    let done = command.env("HOME", folder.path()).env("XDG_DATA_HOME", folder.path().join("data")).output().expect("bash runs");
    let said = String::from_utf8_lossy(&done.stderr);
    let log = std::fs::read_to_string(folder.path().join(SERVER_LOG)).unwrap_or_default();
    assert!(done.status.success(), "{}: {}\n{said}\n{}\n{log}", path.display(), done.status, String::from_utf8_lossy(&done.stdout));
}

#[test]
fn targets_and_options_that_are_named_exist() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("text");
    let targets: BTreeSet<&str> = makefile.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    let help = |words: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_dlog")).args(words).arg("--help").output().expect("it runs");
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let plain = help(&[]);
    for (path, text) in documents() {
        let code = prose(&text).split('`').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>();
        let blocks = blocks(&text)
            .into_iter()
            .filter(|(_, words, _)| words.starts_with("sh"))
            .flat_map(|(_, _, body)| body.lines().map(str::to_string).collect::<Vec<_>>());
        for line in code.into_iter().chain(blocks) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["make", target, ..] = words.as_slice() {
                assert!(targets.contains(target), "{}: `{line}`: there is no such target", path.display());
            }
            if let ["dlog", rest @ ..] = words.as_slice() {
                let own = rest.iter().position(|word| *word == "--").map_or(rest, |end| &rest[..end]);
                let command: Vec<&str> =
                    own.iter().take_while(|word| !word.starts_with('-') && !word.contains(|c: char| c.is_uppercase())).copied().collect();
                let asked = if command.is_empty() { plain.clone() } else { help(&command[..1.min(command.len())]) + &help(&command) };
                for option in own.iter().filter_map(|word| word.strip_prefix("--")).filter_map(|word| word.split(['=', ',', ';']).next()) {
                    assert!(asked.contains(&format!("--{option}")), "{}: `{line}`: there is no --{option}", path.display());
                }
            }
        }
    }
}
