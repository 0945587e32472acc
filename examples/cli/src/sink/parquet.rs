//! Parquet files in a directory, `SENSOR-NUMBER.parquet`: each is whole or not there.
//!
//! Records count as delivered when their file has its name; so one that a kill cut off is written anew. A file's
//! metadata says up to where each shard's records are in it or before.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;

use super::{Held, Outcome, Sink};
use crate::config::ParquetConfig;
use crate::record::{App, Body, Flow, Record};

const SCHEMA: &str = "message record {
    required binary sensor (UTF8);
    required int32 shard;
    required int64 sequence;
    required binary kind (UTF8);
    required int64 start_ns;
    required int64 end_ns;
    required int32 protocol;
    required binary source (UTF8);
    required int32 source_port;
    required binary destination (UTF8);
    required int32 destination_port;
    required int64 packets_sent;
    required int64 octets_sent;
    required int64 packets_received;
    required int64 octets_received;
    required binary history (UTF8);
    required int32 reason;
    required int64 flows;
    required int64 missing;
    required int64 drops;
    required int32 class_sent;
    required int32 class_received;
    optional int32 vlan;
    optional int32 icmp_type;
    optional int32 icmp_code;
    required int64 overflowed;
    required int64 refused;
    required int64 lost;
    required int64 packets;
    optional binary application (UTF8);
    optional binary dns_name (UTF8);
    optional binary dns_type (UTF8);
    optional binary dns_code (UTF8);
    optional binary http_host (UTF8);
    optional binary http_method (UTF8);
    optional int32 http_status;
    optional binary tls_sni (UTF8);
    optional binary tls_alpn (UTF8);
    optional binary tls_ja4 (UTF8);
    optional binary tls_version (UTF8);
}";

/// The columns of the schema that are optional.
const OPTIONAL: [std::ops::Range<usize>; 2] = [22..25, 29..40];

/// The name of the metadata.
const HELD: &str = "ringtap.held";

pub(super) struct Parquet {
    config: ParquetConfig,
    sensor: String,
    schema: Arc<Type>,
    next: u64,
    /// The next number that it has not, by shard.
    held: HashMap<u16, u64>,
}

impl Parquet {
    pub(super) fn new(config: &ParquetConfig, sensor: String) -> Outcome<Self> {
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        Ok(Self { config: config.clone(), sensor, schema, next: 1, held: HashMap::new() })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.config.directory.join(format!("{}-{number:08}.parquet", self.sensor))
    }

    /// The number of the last file that is whole.
    fn last(&self) -> Outcome<Option<u64>> {
        let mut last = None;
        for entry in fs::read_dir(&self.config.directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| {
                let number = name.strip_prefix(&self.sensor)?.strip_prefix('-')?;
                number.strip_suffix(".parquet")?.parse::<u64>().ok()
            });
            last = last.max(number);
        }
        Ok(last)
    }
}

impl Sink for Parquet {
    fn open(&mut self) -> Outcome<()> {
        fs::create_dir_all(&self.config.directory)
            .map_err(|error| format!("{}: {error}", self.config.directory.display()))?;
        self.held = HashMap::new();
        if let Some(last) = self.last()? {
            let file = SerializedFileReader::new(File::open(self.path(last))?)?;
            let metadata = file.metadata().file_metadata().key_value_metadata();
            let text = metadata.into_iter().flatten().find(|pair| pair.key == HELD);
            let text = text.and_then(|pair| pair.value.as_deref()).unwrap_or("{}");
            self.held = serde_json::from_str(text)?;
            self.next = last + 1;
        }
        Ok(())
    }

    fn held(&mut self, first: &Record, _: bool) -> Outcome<Held> {
        Ok(Held::before(self.held.get(&first.shard).copied().unwrap_or(0)))
    }

    fn deliver(&mut self, records: &[Record]) -> Outcome<usize> {
        let mut held = self.held.clone();
        held.extend(records.iter().map(|record| (record.shard, record.sequence + 1)));
        let pair = KeyValue::new(HELD.to_owned(), serde_json::to_string(&held)?);
        let properties = WriterProperties::builder()
            .set_compression(parquet::basic::Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![pair]))
            .build();
        let path = self.path(self.next);
        let unfinished = path.with_extension("unfinished");
        let file = File::create(&unfinished)?;
        let schema = Arc::clone(&self.schema);
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
        let mut group = writer.next_row_group()?;
        let mut number = 0;
        while let Some(mut column) = group.next_column()? {
            write_column(column.untyped(), number, &self.sensor, records)?;
            column.close()?;
            number += 1;
        }
        group.close()?;
        writer.finish()?;
        writer.inner().sync_all()?;
        fs::rename(&unfinished, &path)?;
        self.next += 1;
        self.held = held;
        Ok(records.len())
    }

    fn appetite(&self) -> (usize, Duration) {
        (self.config.records, Duration::from_secs(self.config.seconds))
    }
}

/// Writes the column of the schema with this number.
fn write_column(
    column: &mut ColumnWriter<'_>,
    number: usize,
    sensor: &str,
    records: &[Record],
) -> Outcome<()> {
    match column {
        ColumnWriter::Int32ColumnWriter(column) => {
            let values = records.iter().map(|record| small(record, number));
            let there: Vec<i16> = values.clone().map(|value| value.is_some().into()).collect();
            let levels = is_optional(number).then_some(&there[..]);
            column.write_batch(&values.flatten().collect::<Vec<_>>(), levels, None)?;
        }
        ColumnWriter::Int64ColumnWriter(column) => {
            let values: Vec<_> =
                records.iter().map(|record| large(record, number) as i64).collect();
            column.write_batch(&values, None, None)?;
        }
        ColumnWriter::ByteArrayColumnWriter(column) => {
            let values = records.iter().map(|record| text(record, number, sensor));
            let there: Vec<i16> = values.clone().map(|value| value.is_some().into()).collect();
            let levels = is_optional(number).then_some(&there[..]);
            let bytes = |text: String| ByteArray::from(text.into_bytes());
            column.write_batch(&values.flatten().map(bytes).collect::<Vec<_>>(), levels, None)?;
        }
        _ => return Err("the schema has no such column".into()),
    }
    Ok(())
}

fn is_optional(column: usize) -> bool {
    OPTIONAL.iter().any(|columns| columns.contains(&column))
}

fn flow_of(record: &Record) -> Option<&Flow> {
    match &record.body {
        Body::Flow(flow) => Some(flow),
        Body::Counts(_) => None,
    }
}

/// `None` in a column that is optional.
fn small(record: &Record, column: usize) -> Option<i32> {
    let flow = flow_of(record);
    match column {
        1 => return Some(record.shard.into()),
        22 => return flow?.vlan.map(i32::from),
        23 => return flow?.icmp.map(|(kind, _)| kind.into()),
        24 => return flow?.icmp.map(|(_, code)| code.into()),
        35 => match flow?.app.as_deref()? {
            App::Http(http) => return http.status.map(i32::from),
            _ => return None,
        },
        _ => {}
    }
    Some(flow.map_or(0, |flow| match column {
        6 => flow.protocol.into(),
        8 => flow.initiator.port().into(),
        10 => flow.responder.port().into(),
        20 => flow.sent.class.into(),
        21 => flow.received.class.into(),
        _ => flow.reason as i32,
    }))
}

fn large(record: &Record, column: usize) -> u64 {
    match (&record.body, column) {
        (_, 2) => record.sequence,
        (Body::Flow(flow), 4) => flow.start,
        (Body::Flow(flow), 5) => flow.end,
        (Body::Flow(flow), 11) => flow.sent.packets,
        (Body::Flow(flow), 12) => flow.sent.octets,
        (Body::Flow(flow), 13) => flow.received.packets,
        (Body::Flow(flow), 14) => flow.received.octets,
        (Body::Counts(counts), 17) => counts.flows,
        (Body::Counts(counts), 18) => counts.overflowed + counts.refused + counts.lost,
        (Body::Counts(counts), 19) => counts.drops,
        (Body::Counts(counts), 25) => counts.overflowed,
        (Body::Counts(counts), 26) => counts.refused,
        (Body::Counts(counts), 27) => counts.lost,
        (Body::Counts(counts), 28) => counts.packets,
        _ => 0,
    }
}

/// `None` in a column that is optional.
fn text(record: &Record, column: usize, sensor: &str) -> Option<String> {
    let flow = flow_of(record);
    if let Some(of_app) = column.checked_sub(29) {
        return app_text(flow?, of_app);
    }
    Some(match column {
        0 => sensor.to_owned(),
        3 => if flow.is_some() { "flow" } else { "counts" }.to_owned(),
        7 => flow.map_or(String::new(), |flow| flow.initiator.ip().to_string()),
        9 => flow.map_or(String::new(), |flow| flow.responder.ip().to_string()),
        _ => flow.map_or(String::new(), |flow| flow.history().to_owned()),
    })
}

/// A column of what an application said: the number is among those.
fn app_text(flow: &Flow, column: usize) -> Option<String> {
    match (flow.app.as_deref()?, column) {
        (app, 0) => Some(app.name(flow.protocol == 17).to_owned()),
        (App::Dns(dns), 1) => dns.name.clone(),
        (App::Dns(dns), 2) => dns.kind.clone(),
        (App::Dns(dns), 3) => dns.code.clone(),
        (App::Http(http), 4) => http.host.clone(),
        (App::Http(http), 5) => http.method.clone(),
        (App::Tls(tls), 7) => tls.sni.clone(),
        (App::Tls(tls), 8) => tls.alpn.clone(),
        (App::Tls(tls), 9) => tls.ja4.clone(),
        (App::Tls(tls), 10) => tls.version.clone(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_for_clickhouse_asks_for_columns_that_there_are() {
        let recipe = include_str!("../../deploy/clickhouse.sql");
        let schema = parse_message_type(SCHEMA).unwrap();
        let columns: Vec<_> = schema.get_fields().iter().map(|field| field.name()).collect();
        assert_eq!(columns.len(), OPTIONAL[1].end, "the last are optional");
        for (at, field) in schema.get_fields().iter().enumerate() {
            assert_eq!(
                field.get_basic_info().repetition().to_string() == "OPTIONAL",
                is_optional(at)
            );
        }
        let asked =
            recipe.split("SELECT\n        ").nth(1).unwrap().split("FROM s3(").next().unwrap();
        let asked: Vec<_> = asked.split(',').map(str::trim).collect();
        assert!(asked.len() > 30 && asked.iter().all(|name| columns.contains(name)), "{asked:?}");
    }
}
