//! Parquet files in a directory.

use std::fs::File;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Row, RowAccessor};

use crate::config::ParquetConfig;
use crate::proof::{Evidence, Tells};
use crate::record::Counts;
use crate::sink::Outcome;

pub(super) fn read(config: &ParquetConfig, see: &mut dyn FnMut(Evidence)) -> Outcome<u64> {
    let directory = &config.directory;
    let of = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut strangers = 0;
    for entry in std::fs::read_dir(directory).map_err(of)? {
        let path = entry.map_err(of)?.path();
        if path.extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        let of = |error: parquet::errors::ParquetError| format!("{}: {error}", path.display());
        let file = File::open(&path).map_err(|error| of(error.into()))?;
        let reader = SerializedFileReader::new(file).map_err(of)?;
        for row in reader.get_row_iter(None).map_err(of)? {
            match of_row(&row.map_err(of)?) {
                Some(told) => see(told),
                None => strangers += 1,
            }
        }
    }
    Ok(strangers)
}

/// Reads a record; `None` if it is none.
fn of_row(row: &Row) -> Option<Evidence> {
    let place = |name: &str| row.get_column_iter().position(|(column, _)| column == name);
    let large = |name: &str| u64::try_from(row.get_long(place(name)?).ok()?).ok();
    let small = |name: &str| row.get_int(place(name)?).ok();
    let text = |name: &str| row.get_string(place(name)?).ok();
    let body = match text("kind")?.as_str() {
        "flow" => Tells::Flow { start: large("start_ns")?, end: large("end_ns")? },
        "counts" => Tells::Counts(Counts {
            flows: large("flows")?,
            overflowed: large("overflowed")?,
            refused: large("refused")?,
            lost: large("lost")?,
            packets: large("packets")?,
            drops: large("drops")?,
        }),
        _ => return None,
    };
    let (sensor, shard) = (text("sensor")?.clone(), u16::try_from(small("shard")?).ok()?);
    Some(Evidence { sensor, shard, sequence: large("sequence")?, body })
}
