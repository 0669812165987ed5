//! `dlog config explain`.

use clap::Args;

use super::commands::SettingOptions;
use super::serve::sources;
use crate::broker::{Explained, Mode, explain as explain_settings};

/// Which settings are explained.
#[derive(Debug, Clone, Args)]
pub(super) struct ExplainOptions {
    #[command(flatten)]
    settings: SettingOptions,
    /// The defaults of dev mode instead of those of `dlog serve`.
    #[arg(long)]
    dev: bool,
    /// Only settings that somebody has set.
    #[arg(long)]
    changed: bool,
}

/// Prints a table.
pub(super) fn explain(options: &ExplainOptions) -> Result<(), String> {
    let mode = if options.dev { Mode::Dev } else { Mode::Serve };
    let all = explain_settings(mode, &sources(&options.settings, Default::default())).map_err(|e| e.to_string())?;
    let shown: Vec<&Explained> = all.iter().filter(|e| !options.changed || e.source != "default").collect();
    let width = |column: fn(&Explained) -> &str| shown.iter().map(|e| column(e).len()).max().unwrap_or(0).min(60);
    let (names, values, from) = (width(|e| &e.name), width(|e| &e.value), width(|e| &e.source));
    for e in shown {
        println!("{:<names$}  {:<values$}  {:<from$}  {}", e.name, e.value, e.source, e.standing);
    }
    Ok(())
}
