//! Redis streams: an entry a record, in a stream a sensor and shard, `PREFIX:SENSOR:SHARD`.
//!
//! An entry's identifier is the record's number plus one (0 is none of Redis'), so Redis itself refuses a record that it
//! has, and tells the last one that it had.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Connection, RedisError, Value};

use super::{Held, Outcome, Sink};
use crate::config::RedisConfig;
use crate::record::Record;

/// The longest that a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Redis {
    client: redis::Client,
    config: RedisConfig,
    sensor: String,
    connection: Option<Connection>,
    scratch: Vec<u8>,
}

impl Redis {
    pub(super) fn new(config: &RedisConfig, sensor: String) -> Outcome<Self> {
        let client = redis::Client::open(config.url.reveal()).map_err(|error| {
            format!("{}: {error}; a URL is redis://HOST:PORT/DATABASE", config.url)
        })?;
        let config = config.clone();
        Ok(Self { client, config, sensor, connection: None, scratch: Vec::new() })
    }

    fn key(&self, shard: u16) -> String {
        format!("{}:{}:{shard}", self.config.prefix, self.sensor)
    }
}

impl Sink for Redis {
    fn open(&mut self) -> Outcome<()> {
        self.connection = None;
        let name =
            |error: RedisError| format!("{}: {error}", self.client.get_connection_info().addr());
        let connection = self.client.get_connection_with_timeout(PATIENCE).map_err(name)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        self.connection = Some(connection);
        Ok(())
    }

    fn held(&mut self, first: &Record, _: bool) -> Outcome<Held> {
        let (shard, from) = (first.shard, first.sequence);
        let key = self.key(shard);
        let connection = self.connection.as_mut().ok_or("it is not open")?;
        let exists: bool = redis::cmd("EXISTS").arg(&key).query(connection)?;
        if !exists {
            return Ok(Held::default());
        }
        let about: HashMap<String, Value> =
            redis::cmd("XINFO").arg("STREAM").arg(&key).query(connection)?;
        let last = about.get("last-generated-id").ok_or("a stream has a last identifier")?;
        let last: String = redis::from_redis_value_ref(last)?;
        let number = last.split('-').next().and_then(|number| number.parse().ok());
        let next = number.ok_or_else(|| format!("{key} has entries of somebody else's"))?;
        if next < from {
            crate::say::note!(
                "sink redis: {key} has lost {} records that it had acknowledged",
                from - next
            );
        }
        Ok(Held::before(next))
    }

    fn deliver(&mut self, records: &[Record]) -> Outcome<usize> {
        let mut pipe = redis::pipe();
        pipe.atomic(); // a record that is refused takes those behind it along
        for record in records {
            self.scratch.clear();
            record.write_json(&self.sensor, self.config.names, &mut self.scratch);
            let command = pipe.cmd("XADD").arg(self.key(record.shard));
            if let Some(most) = self.config.most {
                command.arg("MAXLEN").arg("~").arg(most);
            }
            let id = format!("{}-0", record.sequence + 1);
            command.arg(id).arg("record").arg(&self.scratch).ignore();
        }
        let connection = self.connection.as_mut().ok_or("it is not open")?;
        pipe.query::<()>(connection)?;
        Ok(records.len())
    }
}
