//! Streams of Redis.

use redis::Value;

use super::see_json;
use crate::config::RedisConfig;
use crate::proof::Evidence;
use crate::sink::Outcome;

/// Entries that are asked for at once.
const CHUNK: usize = 1000;

pub(super) fn read(config: &RedisConfig, see: &mut dyn FnMut(Evidence)) -> Outcome<u64> {
    let of = |error: redis::RedisError| format!("{}: {error}", config.url);
    let client = redis::Client::open(config.url.reveal()).map_err(of)?;
    let mut connection = client.get_connection().map_err(of)?;
    let (mut keys, mut cursor) = (Vec::new(), 0_u64);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(format!("{}:*:*", config.prefix))
            .arg("TYPE")
            .arg("stream");
        let (next, some): (u64, Vec<String>) = scan.query(&mut connection).map_err(of)?;
        keys.extend(some);
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    keys.sort();
    keys.dedup(); // a scan may name one twice
    let mut strangers = 0;
    for key in keys {
        let mut from = "-".to_owned();
        loop {
            let mut range = redis::cmd("XRANGE");
            range.arg(&key).arg(&from).arg("+").arg("COUNT").arg(CHUNK);
            let entries: Vec<(String, Vec<Value>)> = range.query(&mut connection).map_err(of)?;
            let Some((last, _)) = entries.last() else { break };
            from = format!("({last}");
            for (_, fields) in &entries {
                match &fields[..] {
                    [Value::BulkString(name), Value::BulkString(text)] if name == b"record" => {
                        see_json(text, &mut strangers, see);
                    }
                    _ => strangers += 1,
                }
            }
        }
    }
    Ok(strangers)
}
