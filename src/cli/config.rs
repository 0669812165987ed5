//! `dlog config explain`.

use std::process::ExitCode;

use clap::Args;

use super::commands::{SettingOptions, default_serve_options};
use super::serve::sources;
use crate::broker::{Explained, Mode, explain as explain_settings};

/// Which settings are explained.
#[derive(Debug, Clone, Args)]
pub(super) struct ExplainOptions {
    #[command(flatten)]
    settings: SettingOptions,
    /// Use the defaults of dev mode (dlog without a command) instead of those of dlog serve.
    #[arg(long)]
    dev: bool,
    /// Print only settings that are set explicitly or rejected.
    #[arg(long)]
    changed: bool,
}

/// The broker would not start with these settings.
const REJECTED: u8 = 1;
/// Values of more characters do not widen the column.
const WIDTH_MAX: usize = 60;

/// Prints a table under a line that says whose defaults it shows; the exit code is 1 where the broker would not start.
pub(super) fn explain(options: &ExplainOptions) -> Result<ExitCode, String> {
    let mode = if options.dev { Mode::Dev } else { Mode::Serve };
    let sources = sources(&options.settings, Default::default());
    // As `serve` would read it; what is wrong with it is shown too.
    let http = default_serve_options().http;
    let all = explain_settings(mode, &sources, &http).map_err(|e| e.to_string())?;
    println!("{}", if options.dev { "# dlog (dev mode)" } else { "# dlog serve (dev mode: --dev)" });
    let is_shown = |e: &&Explained| !options.changed || e.source != "default" || e.rejected.is_some();
    let shown: Vec<&Explained> = all.iter().filter(is_shown).collect();
    let width = |column: fn(&Explained) -> &str| shown.iter().map(|e| column(e).chars().count()).max().unwrap_or(0).min(WIDTH_MAX);
    let (names, values, from) = (width(|e| &e.name), width(|e| &e.value), width(|e| &e.source));
    for e in &shown {
        let standing = e.rejected.as_ref().map_or_else(|| e.standing.to_string(), |what| format!("REJECTED: {what}"));
        println!("{:<names$}  {:<values$}  {:<from$}  {standing}", e.name, e.value, e.source);
    }
    let rejected = shown.iter().filter(|e| e.rejected.is_some()).count();
    if rejected > 0 {
        eprintln!(
            "dlog: {} would not start: {rejected} of these settings {}",
            if options.dev { "dlog" } else { "dlog serve" },
            if rejected == 1 { "is rejected" } else { "are rejected" }
        );
        return Ok(ExitCode::from(REJECTED));
    }
    Ok(ExitCode::SUCCESS)
}
