//! The command line that is suggested when ports or directories are in use: the user's own, with only these replaced.

use crate::broker::{Error, Free};

/// Options that set an address or a directory, as the words of the command line name them.
struct Names {
    listen: &'static [&'static str],
    http: &'static [&'static str],
    data: &'static [&'static str],
    set: &'static [&'static str],
}

const OF_DLOG: Names = Names { listen: &["--listen"], http: &["--http-listen", "--http"], data: &["--data"], set: &["--set"] };
/// `rpk redpanda start` has no option for the HTTP address and for directories. Its `--set` accepts Kafka's settings too.
const OF_RPK: Names = Names { listen: &[], http: &[], data: &[], set: &["--set", "-X"] };
/// The variable for a command without an option for the HTTP address.
const HTTP_VARIABLE: &str = "DLOG_HTTP_LISTEN";

/// The message of an error at the start of a broker. `words` is the command line that was used.
pub(super) fn message(error: &Error, words: &[String]) -> String {
    match error {
        Error::Taken { what, free } => {
            format!("cannot start: {}; stop that, or use this: {}", what.join("; "), command_line(words, free))
        }
        other => other.to_string(),
    }
}

/// The command line with the free places, as a shell reads it.
fn command_line(words: &[String], free: &Free) -> String {
    let names = if words.get(1).is_some_and(|word| word == "rpk") { OF_RPK } else { OF_DLOG };
    let mut words = words.to_vec();
    if let Some(listeners) = &free.listeners {
        let is_replaced = free.listen.as_ref().is_some_and(|listen| replace(&mut words, names.listen, None, listen));
        if !is_replaced && !replace(&mut words, names.set, Some("listeners"), listeners) {
            match (&free.listen, names.listen.first()) {
                (Some(listen), Some(option)) => words.extend([option.to_string(), listen.clone()]),
                _ => words.extend(["--set".to_string(), format!("listeners={listeners}")]),
            }
        }
    }
    if let Some(advertised) = &free.advertised
        && !replace(&mut words, names.set, Some("advertised.listeners"), advertised)
    {
        words.extend(["--set".to_string(), format!("advertised.listeners={advertised}")]);
    }
    if let Some(data) = &free.data
        && !replace(&mut words, names.data, None, data)
        && !replace(&mut words, names.set, Some("log.dirs"), data)
    {
        match names.data.first() {
            Some(option) => words.extend([option.to_string(), data.clone()]),
            None => words.extend(["--set".to_string(), format!("log.dirs={data}")]),
        }
    }
    let mut before = String::new();
    if let Some(http) = &free.http
        && !replace(&mut words, names.http, None, http)
    {
        match names.http.first() {
            Some(option) => words.extend([option.to_string(), http.clone()]),
            None => before = format!("{HTTP_VARIABLE}={} ", quoted(http)),
        }
    }
    before + &words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// Replaces the value of the last of these options, or the value of `key` in the last one that sets it (`--set key=value`); false if there is none.
fn replace(words: &mut [String], options: &[&str], key: Option<&str>, value: &str) -> bool {
    let is_it = |text: &str| key.is_none_or(|key| text.split_once('=').is_some_and(|(name, _)| name.trim() == key));
    let value = key.map_or_else(|| value.to_string(), |key| format!("{key}={value}"));
    for at in (1..words.len()).rev() {
        let (before, rest) = words.split_at_mut(at);
        let (Some(word), Some(option)) = (rest.first_mut(), before.last()) else { continue };
        if options.contains(&option.as_str()) && is_it(word) {
            *word = value;
            return true;
        }
        let joined = options.iter().find_map(|option| {
            let text = word.strip_prefix(option)?;
            let text = if option.starts_with("--") { text.strip_prefix('=')? } else { text };
            (!text.is_empty() && is_it(text)).then(|| word.strip_suffix(text).unwrap_or_default().to_string())
        });
        if let Some(option) = joined {
            *word = option + &value;
            return true;
        }
    }
    false
}

/// A quoted word for a shell's command line.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word.to_string() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_use_is_replaced() {
        let some = |text: &str| Some(text.to_string());
        let port = Free { listeners: some("PLAINTEXT://h:2"), listen: some("h:2"), ..Free::default() };
        let both = Free { listeners: some("A://h:2,B://h:3"), advertised: some("A://x:2"), ..Free::default() };
        let data = Free { data: some("/d-2"), ..Free::default() };
        let http = Free { http: some("h:5"), ..Free::default() };
        for (typed, free, expected) in [
            ("dlog", &port, "dlog --listen h:2"),
            ("dlog serve --config f --strict --listen h:1 --set a=b", &port, "dlog serve --config f --strict --listen h:2 --set a=b"),
            ("dlog --listen=h:1 serve", &port, "dlog --listen=h:2 serve"),
            ("dlog --set listeners=PLAINTEXT://h:1 --reset", &port, "dlog --set listeners=PLAINTEXT://h:2 --reset"),
            ("dlog --set listeners=x --listen h:1", &port, "dlog --set listeners=x --listen h:2"),
            ("dlog serve", &both, "dlog serve --set listeners=A://h:2,B://h:3 --set advertised.listeners=A://x:2"),
            (
                "dlog --set=advertised.listeners=A://x:1 --set listeners=A://h:1,B://h:3",
                &both,
                "dlog --set=advertised.listeners=A://x:2 --set listeners=A://h:2,B://h:3",
            ),
            ("dlog serve --data /d --listen h:1 --http x:9", &data, "dlog serve --data /d-2 --listen h:1 --http x:9"),
            ("dlog serve --set log.dirs=/d", &data, "dlog serve --set log.dirs=/d-2"),
            ("dlog serve --config f", &data, "dlog serve --config f --data /d-2"),
            ("dlog --http h:4 --data d", &http, "dlog --http h:5 --data d"),
            ("dlog --http-listen=h:4", &http, "dlog --http-listen=h:5"),
            ("dlog --ephemeral", &http, "dlog --ephemeral --http-listen h:5"),
            ("dlog rpk redpanda start --smp 1", &http, "DLOG_HTTP_LISTEN=h:5 dlog rpk redpanda start --smp 1"),
            ("dlog rpk redpanda start -Xlog.dirs=/d", &data, "dlog rpk redpanda start -Xlog.dirs=/d-2"),
            ("dlog rpk redpanda start", &port, "dlog rpk redpanda start --set listeners=PLAINTEXT://h:2"),
        ] {
            let words: Vec<String> = typed.split(' ').map(str::to_string).collect();
            assert_eq!(command_line(&words, free), expected);
        }
        assert_eq!(command_line(&["dlog".into(), "--data".into(), "it's a".into()], &http), "dlog --data 'it'\\''s a' --http-listen h:5");
    }
}
