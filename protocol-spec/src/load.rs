//! Loads the folder of specifications.

use std::path::Path;

use crate::{Error, Spec, check, parse};

/// Reads, parses and checks `errors.spec`, `apis/*.spec` and `records/*.spec` below `root`.
pub fn load(root: &Path) -> Result<Spec, Error> {
    let mut all = Spec::default();
    let mut files = vec![root.join("errors.spec")];
    for folder in ["apis", "records"] {
        let folder = root.join(folder);
        let entries = std::fs::read_dir(&folder).map_err(|e| unreadable(&folder, e))?;
        files.extend(entries.filter_map(|e| e.ok()).map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "spec")));
    }
    files.sort();
    for path in files {
        let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, e))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = path.display().to_string();
        let spec = parse(&name, &stem, &text)?;
        check(&name, &spec)?;
        all.apis.extend(spec.apis);
        all.messages.extend(spec.messages);
        all.errors.extend(spec.errors);
        all.layouts.extend(spec.layouts);
    }
    all.apis.sort_by_key(|api| api.key);
    Ok(all)
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error { file: path.display().to_string(), line: 0, what: error.to_string() }
}
