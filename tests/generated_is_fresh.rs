//! The checked-in generated code is what the specs say.

use std::path::Path;

#[test]
fn generated_code_is_what_make_protocol_writes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let spec = protocol_spec::load(&root.join("protocol-spec")).expect("the specs are sound");
    let files = protocol_spec::generate(&spec);
    for (path, text) in &files {
        let on_disk = std::fs::read_to_string(root.join("src").join(path)).unwrap_or_default();
        assert!(on_disk == *text, "src/{} is stale: run `make protocol`", path.display());
    }
    let folder = root.join("src/protocol/generated");
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let name = entry.expect("readable").file_name();
        assert!(files.contains_key(&Path::new("protocol/generated").join(&name)), "{name:?} has no spec any more: delete it");
    }
}
