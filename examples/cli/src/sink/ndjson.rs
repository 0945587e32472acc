//! JSON, an object a line, into a file or to standard output.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::{Held, Outcome, Sink};
use crate::config::NdjsonConfig;
use crate::record::{Names, Record, Which};

/// What is looked through for records that were written and not acknowledged: they are fewer than a delivery has.
const TAIL: u64 = 4 << 20;

pub(super) struct Ndjson {
    /// `None` is standard output.
    path: Option<PathBuf>,
    names: Names,
    sensor: String,
    file: Option<File>,
    /// What it had when it was opened, by shard.
    held: HashMap<u16, Held>,
    scratch: Vec<u8>,
}

impl Ndjson {
    pub(super) fn new(config: &NdjsonConfig, sensor: String) -> Self {
        let path = config.path.clone().filter(|path| path.as_os_str() != "-");
        let names = config.names;
        Self { path, names, sensor, file: None, held: HashMap::new(), scratch: Vec::new() }
    }
}

impl Sink for Ndjson {
    fn open(&mut self) -> Outcome<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let name = |error| format!("{}: {error}", path.display());
        let options = File::options().read(true).append(true).create(true).open(path);
        let mut file = options.map_err(name)?;
        self.held = look_through(&mut file, &self.sensor)?;
        self.file = Some(file);
        Ok(())
    }

    fn held(&mut self, first: &Record, _: bool) -> Outcome<Held> {
        Ok(self.held.get(&first.shard).cloned().unwrap_or_default())
    }

    fn deliver(&mut self, records: &[Record]) -> Outcome<usize> {
        self.scratch.clear();
        for record in records {
            record.write_json(&self.sensor, self.names, &mut self.scratch);
            self.scratch.push(b'\n');
        }
        match &mut self.file {
            Some(file) => file.write_all(&self.scratch)?,
            None => {
                let mut out = io::stdout().lock();
                out.write_all(&self.scratch)?;
                out.flush()?;
            }
        }
        Ok(records.len())
    }
}

/// Cuts off a line that was not written to its end, and tells what stands in those before it.
fn look_through(file: &mut File, sensor: &str) -> Outcome<HashMap<u16, Held>> {
    let len = file.metadata()?.len();
    let start = len.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let (mut input, mut line, mut whole) = (BufReader::new(&mut *file), Vec::new(), start);
    let mut held = HashMap::new();
    loop {
        line.clear();
        let read = input.read_until(b'\n', &mut line)?;
        if read == 0 || !line.ends_with(b"\n") {
            break;
        }
        whole += read as u64;
        if let Some(which) = Which::read(&line)
            && which.sensor == sensor
        {
            held.insert(which.shard, Held::before(which.sequence + 1));
        }
    }
    if whole < len {
        file.set_len(whole)?;
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Body;
    use crate::record::tests::flow;

    #[test]
    fn a_line_that_was_cut_is_written_again_and_no_other() {
        let directory = ringtap_lab::Directory::new();
        let path = directory.path().join("flows.ndjson");
        let record = |sequence| Record { shard: 1, sequence, body: Body::Flow(flow(sequence)) };
        let mut sink = Ndjson::new(
            &NdjsonConfig { path: Some(path.clone()), names: Names::Ecs },
            "me".to_owned(),
        );
        sink.open().unwrap();
        assert_eq!(sink.held(&record(0), false).unwrap(), Held::default());
        assert_eq!(sink.deliver(&[record(0), record(1), record(2)]).unwrap(), 3);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 20]).unwrap();
        sink.open().unwrap();
        assert_eq!(sink.held(&record(1), true).unwrap(), Held::before(2));
        sink.deliver(&[record(2)]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), text);
    }
}
