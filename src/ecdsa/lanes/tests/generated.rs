//! The scripts still write the files with the constants.

use std::{path::Path, process::Command};

/// Where Python is at hand, the scripts write the files as they stand.
#[test]
fn scripts_write_the_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("lanes");
    let files = [
        ("k256.py", "k256/constants.rs"),
        ("eisenstein.py", "k256/eisenstein.rs"),
        ("p256.py", "p256/constants.rs"),
    ];
    for (script, file) in files {
        let script = folder.join("generate").join(script);
        let Ok(output) = Command::new("python3").arg(&script).output() else {
            eprintln!("no python3: not checked");
            return;
        };
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
        let written = std::fs::read(folder.join(file)).unwrap();
        assert!(output.stdout == written, "{file} is not what {} writes", script.display());
    }
}
