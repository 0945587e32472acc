//! A stream of NATS JetStream.

use std::time::Duration;

use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt;
use tokio::runtime::Builder;

use super::see_json;
use crate::config::NatsConfig;
use crate::proof::Evidence;
use crate::sink::Outcome;

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn read(config: &NatsConfig, see: &mut dyn FnMut(Evidence)) -> Outcome<u64> {
    Builder::new_current_thread().enable_all().build()?.block_on(all(config, see))
}

async fn all(config: &NatsConfig, see: &mut dyn FnMut(Evidence)) -> Outcome<u64> {
    let options = async_nats::ConnectOptions::new().connection_timeout(PATIENCE);
    let servers: Vec<_> = config.servers.iter().map(String::as_str).collect();
    let context = jetstream::new(options.connect(servers).await?);
    let mut stream = context.get_stream(&config.stream).await?;
    let (mut left, mut strangers) = (stream.info().await?.state.messages, 0);
    if left == 0 {
        return Ok(0);
    }
    let consumer = stream.create_consumer(consumer::pull::OrderedConfig::default()).await?;
    let mut messages = consumer.messages().await?;
    while left > 0 {
        let next = tokio::time::timeout(PATIENCE, messages.next()).await;
        let message = next.map_err(|_| "the stream says nothing more")?;
        let message = message.ok_or_else(|| format!("the stream ends {left} messages early"))?;
        see_json(&message?.payload, &mut strangers, see);
        left -= 1;
    }
    Ok(strangers)
}
