//! The program of an example.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::table::Example;

/// A folder with the built examples, where there is no cargo.
const FOLDER: &str = "RINGTAP_EXAMPLES";

/// Builds the example, unless a folder has it.
pub(crate) fn find(example: &Example) -> Result<PathBuf> {
    if let Some(folder) = env::var_os(FOLDER) {
        return Ok(Path::new(&folder).join(example.name));
    }
    // The runner is TARGET/PROFILE/lab.
    let lab = env::current_exe()?;
    let folder = lab.parent().ok_or("the runner is in no folder")?;
    let target = folder.parent().ok_or("the runner is in no target folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => return Err("the runner is in no target folder".into()),
    };
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .args(["--package", example.package, "--example", example.name])
        .args(["--features", example.features, "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .status()?;
    if !status.success() {
        return Err("the example does not build".into());
    }
    Ok(folder.join("examples").join(example.name))
}
