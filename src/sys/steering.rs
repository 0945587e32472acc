//! Receive hash keys and flow rules, accessed by ethtool's ioctl (include/uapi/linux/ethtool.h).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use super::netdev::Netdev;

const GET_HASH: u32 = 0x46;
const SET_HASH: u32 = 0x47;
const DELETE_RULE: u32 = 0x31;
const INSERT_RULE: u32 = 0x32;
const TCP_V4: u32 = 0x01;
const UDP_V4: u32 = 0x02;
/// Lets the driver choose the location (`RX_CLS_LOC_ANY`).
const ANYWHERE: u32 = u32::MAX;
/// Leaves the indirection table unchanged (`ETH_RXFH_INDIR_NO_CHANGE`).
const KEEP_TABLE: u32 = u32::MAX;

/// Length of `struct ethtool_rxfh` before the table and the key.
const HASH_LEN: usize = 24;
/// Offset in it of the hash function and the input transformation, one byte each.
const FUNCTION: usize = 16;

/// The key of a receive hash, and its function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HashKey {
    pub(crate) key: Vec<u8>,
    /// The hash function and the input transformation, returned to the driver as it reported them: 0 may mean
    /// none.
    pub(crate) function: [u8; 2],
}

/// Returns the key of the receive hash.
pub(crate) fn hash_key(socket: BorrowedFd<'_>, name: &str) -> io::Result<HashKey> {
    let asker = Netdev(socket);
    let mut sizes = bytes(&[GET_HASH, 0, 0, 0, 0, 0]);
    asker.ethtool_bytes(name, &mut sizes)?;
    let (table_len, key_len) = (word(&sizes, 2), word(&sizes, 3));
    if key_len == 0 || key_len > 1024 || table_len > 1 << 16 {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    let mut all = bytes(&[GET_HASH, 0, table_len, key_len, 0, 0]);
    let key_at = HASH_LEN + 4 * table_len as usize;
    all.resize(key_at + key_len as usize, 0);
    asker.ethtool_bytes(name, &mut all)?;
    Ok(HashKey { key: all.split_off(key_at), function: [all[FUNCTION], all[FUNCTION + 1]] })
}

/// Sets the key of the receive hash, and nothing else.
pub(crate) fn set_hash_key(socket: BorrowedFd<'_>, name: &str, hash: &HashKey) -> io::Result<()> {
    let mut command = bytes(&[SET_HASH, 0, KEEP_TABLE, hash.key.len() as u32, 0, 0]);
    command[FUNCTION..][..2].copy_from_slice(&hash.function);
    command.extend_from_slice(&hash.key);
    Netdev(socket).ethtool_bytes(name, &mut command)
}

/// The packets that a rule matches, and their destination queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowSpec {
    kind: u32,
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) destination: Option<Ipv4Addr>,
    pub(crate) source_port: Option<u16>,
    pub(crate) destination_port: Option<u16>,
    pub(crate) queue: u32,
}

impl FlowSpec {
    pub(crate) fn tcp() -> Self {
        Self::of(TCP_V4)
    }

    pub(crate) fn udp() -> Self {
        Self::of(UDP_V4)
    }

    fn of(kind: u32) -> Self {
        let (source, destination, source_port, destination_port, queue) = Default::default();
        Self { kind, source, destination, source_port, destination_port, queue }
    }
}

/// Length of `struct ethtool_rxnfc`, and the offsets in it of the queue and the rule's location.
const RULE_LEN: usize = 192;
const COOKIE: usize = 168;
const LOCATION: usize = 176;

fn rule(cmd: u32, spec: &FlowSpec, location: u32) -> Vec<u8> {
    let mut value = [0; 52];
    let mut mask = [0; 52];
    let mut set = |at: usize, bytes: Option<&[u8]>| {
        if let Some(bytes) = bytes {
            value[at..][..bytes.len()].copy_from_slice(bytes);
            mask[at..][..bytes.len()].fill(0xff);
        }
    };
    set(0, spec.source.map(|address| address.octets()).as_ref().map(|octets| octets.as_slice()));
    let destination = spec.destination.map(|address| address.octets());
    set(4, destination.as_ref().map(|octets| octets.as_slice()));
    set(8, spec.source_port.map(u16::to_be_bytes).as_ref().map(|port| port.as_slice()));
    set(10, spec.destination_port.map(u16::to_be_bytes).as_ref().map(|port| port.as_slice()));
    let mut bytes = Vec::with_capacity(RULE_LEN);
    bytes.extend_from_slice(&cmd.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4 + 8]); // the flow type and the data of other commands
    bytes.extend_from_slice(&spec.kind.to_ne_bytes());
    bytes.extend_from_slice(&value);
    bytes.extend_from_slice(&[0; 20]);
    bytes.extend_from_slice(&mask);
    bytes.resize(COOKIE, 0);
    bytes.extend_from_slice(&u64::from(spec.queue).to_ne_bytes());
    bytes.extend_from_slice(&location.to_ne_bytes());
    bytes.resize(RULE_LEN, 0);
    bytes
}

/// Inserts a rule and returns the location that the driver chose for it.
pub(crate) fn insert_rule(socket: BorrowedFd<'_>, name: &str, spec: &FlowSpec) -> io::Result<u32> {
    let mut command = rule(INSERT_RULE, spec, ANYWHERE);
    Netdev(socket).ethtool_bytes(name, &mut command)?;
    Ok(word(&command, LOCATION / 4))
}

/// Deletes the rule at a location.
pub(crate) fn delete_rule(socket: BorrowedFd<'_>, name: &str, location: u32) -> io::Result<()> {
    let mut command = rule(DELETE_RULE, &FlowSpec::of(0), location);
    Netdev(socket).ethtool_bytes(name, &mut command)
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn word(bytes: &[u8], number: usize) -> u32 {
    u32::from_ne_bytes(bytes[4 * number..][..4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_laid_out_as_the_kernel_has_it() {
        let spec = FlowSpec {
            source: Some(Ipv4Addr::new(10, 1, 2, 3)),
            destination_port: Some(443),
            queue: 3,
            ..FlowSpec::tcp()
        };
        let bytes = rule(INSERT_RULE, &spec, ANYWHERE);
        assert_eq!(bytes.len(), 192);
        assert_eq!((word(&bytes, 0), word(&bytes, 4)), (INSERT_RULE, TCP_V4));
        assert_eq!(bytes[20..32], [10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 1, 187]);
        assert_eq!(bytes[92..104], [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 255, 255]);
        assert_eq!((word(&bytes, 42), word(&bytes, 43), word(&bytes, 44)), (3, 0, ANYWHERE));
    }
}
