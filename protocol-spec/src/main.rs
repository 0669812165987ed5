//! `protocol-spec SPEC_DIR SRC_DIR`: writes the generated files into the source folder of the broker.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [spec, source] = arguments.as_slice() else {
        eprintln!("usage: protocol-spec SPEC_DIR SRC_DIR");
        return ExitCode::from(2);
    };
    match run(Path::new(spec), Path::new(source)) {
        Ok(count) => {
            println!("{count} files generated");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(spec: &Path, source: &Path) -> Result<usize, Box<dyn std::error::Error>> {
    let files = protocol_spec::generate(&protocol_spec::load(spec)?);
    for (path, text) in &files {
        let path = source.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(files.len())
}
