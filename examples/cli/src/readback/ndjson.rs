//! Lines of JSON in a file, or in all files of a directory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::see_json;
use crate::config::NdjsonConfig;
use crate::proof::Evidence;
use crate::sink::Outcome;

pub(super) fn read(config: &NdjsonConfig, see: &mut dyn FnMut(Evidence)) -> Outcome<u64> {
    let path = match &config.path {
        Some(path) if path.as_os_str() != "-" => path,
        _ => return lines(std::io::stdin(), see),
    };
    let of = |error: std::io::Error| format!("{}: {error}", path.display());
    if !path.is_dir() {
        return file(path, see);
    }
    let mut strangers = 0;
    for entry in std::fs::read_dir(path).map_err(of)? {
        let path = entry.map_err(of)?.path();
        if path.extension().is_some_and(|extension| extension == "ndjson") {
            strangers += file(&path, see)?;
        }
    }
    Ok(strangers)
}

fn file(path: &Path, see: &mut dyn FnMut(Evidence)) -> Outcome<u64> {
    let of = |error| format!("{}: {error}", path.display());
    lines(File::open(path).map_err(of)?, see)
}

fn lines(input: impl Read, see: &mut dyn FnMut(Evidence)) -> Outcome<u64> {
    let (mut input, mut line, mut strangers) = (BufReader::new(input), Vec::new(), 0);
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(strangers);
        }
        see_json(&line, &mut strangers, see);
    }
}
