//! What a record costs.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ringtap_lab::{Directory, unique_name};

use crate::config::SinkConfig;
use crate::record::{Body, Flow};
use crate::say::say;
use crate::sink::{self, Courier, Outcome};
use crate::spool::Spool;

/// As many as a shard hands over together.
const CHUNK: u64 = 256;
/// A sink that has not taken all by then is too slow to be measured.
const PATIENCE: Duration = Duration::from_secs(120);

/// Shards whose records they are.
const SHARDS: u16 = 4;

/// Spools records, then delivers them to each sink over `couriers` connections. Prints the time and the CPU time of this process.
pub(super) fn run(sinks: &[SinkConfig], records: u64, couriers: Option<u16>) -> Outcome<()> {
    say!("{:<24} records/s   CPU ns a record   records/s a core", "")?;
    for (at, config) in sinks.iter().enumerate() {
        let directory = Directory::new();
        let mut spool = Spool::open(directory.path(), 256 * records + (1 << 20), SHARDS)?;
        let reader = spool.reader("measure")?;
        let clock = Clock::start();
        let mut next = 0;
        while next < records {
            let chunk = next..records.min(next + CHUNK);
            next = chunk.end;
            let bodies: Vec<Body> = chunk.map(|number| Body::Flow(Flow::sample(number))).collect();
            let shard = (next / CHUNK % u64::from(SHARDS)) as u16;
            if !spool.append(shard, &bodies)? {
                return Err("the spool has no room".into());
            }
        }
        if at == 0 {
            clock.tell("spool", records)?;
        }
        spool.close();
        // No receiver has anything of a sensor of this name.
        let sensor = unique_name();
        let mut config = config.clone();
        if let Some(count) = couriers {
            config.set_lanes(count)?;
        }
        let sinks = sink::make(&config, &sensor, 1)?;
        let clock = Clock::start();
        let courier = Courier::start(config.kind().to_owned(), sinks, reader)?;
        if !courier.finish(Instant::now() + PATIENCE)? {
            return Err(format!("{} has not taken all in {PATIENCE:?}", config.kind()).into());
        }
        clock.tell(config.kind(), records)?;
    }
    Ok(())
}

struct Clock {
    wall: Instant,
    processor: i64,
}

impl Clock {
    fn start() -> Self {
        Self { wall: Instant::now(), processor: processor() }
    }

    fn tell(&self, what: &str, records: u64) -> io::Result<()> {
        let (wall, count) = (self.wall.elapsed().as_secs_f64(), records as f64);
        let each = (processor() - self.processor) as f64 * 1e3 / count;
        say!("{what:<24} {:>9.0} {each:>17.0} {:>18.0}", count / wall, 1e9 / each)
    }
}

/// Microseconds that this process has had.
fn processor() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0, |usage| (usage.user_time() + usage.system_time()).num_microseconds())
}
