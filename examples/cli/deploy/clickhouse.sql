-- Records of sensors in ClickHouse, each once: a batch that is inserted again replaces itself.
CREATE DATABASE IF NOT EXISTS ringtap;

CREATE TABLE IF NOT EXISTS ringtap.flows
(
    sensor LowCardinality(String),
    shard UInt16,
    sequence UInt64,
    kind LowCardinality(String),           -- flow, or counts
    start_ns UInt64,
    end_ns UInt64,
    protocol UInt8,
    source IPv6,                           -- of IPv4: ::ffff:192.0.2.7
    source_port UInt16,
    destination IPv6,
    destination_port UInt16,
    packets_sent UInt64,
    octets_sent UInt64,
    packets_received UInt64,
    octets_received UInt64,
    class_sent UInt8,
    class_received UInt8,
    history LowCardinality(String),
    vlan Nullable(UInt16),
    icmp_type Nullable(UInt8),
    icmp_code Nullable(UInt8),
    flows UInt64,                          -- of counts, as are the others up to drops
    overflowed UInt64,
    refused UInt64,
    lost UInt64,
    packets UInt64,
    drops UInt64,
    dns_name Nullable(String),
    dns_type LowCardinality(Nullable(String)),
    dns_code LowCardinality(Nullable(String)),
    http_host Nullable(String),
    http_method LowCardinality(Nullable(String)),
    http_status Nullable(UInt16),
    tls_sni Nullable(String),
    tls_alpn LowCardinality(Nullable(String)),
    tls_ja4 LowCardinality(Nullable(String)),
    tls_version LowCardinality(Nullable(String)),
    start DateTime64(9) ALIAS fromUnixTimestamp64Nano(start_ns::Int64),
    end DateTime64(9) ALIAS fromUnixTimestamp64Nano(end_ns::Int64)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMMDD(fromUnixTimestamp64Nano(end_ns::Int64))
ORDER BY (sensor, shard, sequence);

-- From Parquet files: those of a bucket, or with file('/var/lib/ringtap-sensor/parquet/*.parquet', 'Parquet') of a directory.
INSERT INTO ringtap.flows
SELECT * REPLACE (toIPv6OrDefault(source) AS source, toIPv6OrDefault(destination) AS destination)
FROM (
    SELECT
        sensor, shard, sequence, kind, start_ns, end_ns, protocol, source, source_port, destination,
        destination_port, packets_sent, octets_sent, packets_received, octets_received, class_sent,
        class_received, history, vlan, icmp_type, icmp_code, flows, overflowed, refused, lost, packets, drops,
        dns_name, dns_type, dns_code, http_host, http_method, http_status, tls_sni, tls_alpn, tls_ja4, tls_version
    FROM s3('https://s3.example/ringtap/*.parquet', 'Parquet')
);

-- From Kafka: transactions that were not committed are not read.
CREATE TABLE IF NOT EXISTS ringtap.topic
(
    sensor String, shard UInt16, sequence UInt64, kind String, start_ns UInt64, end_ns UInt64, protocol UInt8,
    source String, source_port UInt16, destination String, destination_port UInt16,
    packets_sent UInt64, octets_sent UInt64, packets_received UInt64, octets_received UInt64,
    class_sent UInt8, class_received UInt8, history String,
    vlan Nullable(UInt16), icmp_type Nullable(UInt8), icmp_code Nullable(UInt8),
    flows UInt64, overflowed UInt64, refused UInt64, lost UInt64, packets UInt64, drops UInt64,
    dns Tuple(name Nullable(String), type Nullable(String), code Nullable(String)),
    http Tuple(host Nullable(String), method Nullable(String), status Nullable(UInt16)),
    tls Tuple(sni Nullable(String), alpn Nullable(String), ja4 Nullable(String), version Nullable(String))
)
ENGINE = Kafka
SETTINGS kafka_broker_list = 'kafka.example:9092', kafka_topic_list = 'ringtap.flows',
    kafka_group_name = 'clickhouse', kafka_format = 'JSONEachRow';

CREATE MATERIALIZED VIEW IF NOT EXISTS ringtap.from_topic TO ringtap.flows AS
SELECT
    sensor, shard, sequence, kind, start_ns, end_ns, protocol, toIPv6OrDefault(source) AS source, source_port,
    toIPv6OrDefault(destination) AS destination, destination_port, packets_sent, octets_sent, packets_received,
    octets_received, class_sent, class_received, history, vlan, icmp_type, icmp_code, flows, overflowed, refused,
    lost, packets, drops, dns.name AS dns_name, dns.type AS dns_type, dns.code AS dns_code, http.host AS http_host,
    http.method AS http_method, http.status AS http_status, tls.sni AS tls_sni, tls.alpn AS tls_alpn,
    tls.ja4 AS tls_ja4, tls.version AS tls_version
FROM ringtap.topic;

-- What is missing of each shard: records that are not here yet, and flows of which there never was one.
SELECT
    sensor, shard,
    max(sequence) + 1 - count() AS missing,
    argMaxIf(overflowed + refused + lost, sequence, kind = 'counts') AS never_recorded
FROM ringtap.flows FINAL
GROUP BY sensor, shard
ORDER BY sensor, shard;
