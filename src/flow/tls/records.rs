//! The records of one side, and the handshake messages that lie across them.

/// What a side's bytes have.
pub(super) enum Item<'a> {
    /// A handshake message, with its header.
    Handshake(&'a [u8]),
    Alert {
        level: u8,
        description: u8,
    },
    /// From here on the side is encrypted, before TLS 1.3.
    ChangeCipherSpec,
    /// A record of data.
    Data,
    /// A message longer than the limit, which is skipped.
    TooLong,
}

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const HEARTBEAT: u8 = 24;

/// Longest record: 16 KiB, and what encryption adds (RFC 5246 §6.2.3).
const LONGEST: u16 = (1 << 14) + 2048;

/// Returns whether the first bytes of a side may be those of TLS: a record with a hello, or the beginning of one.
pub fn is_tls(bytes: &[u8]) -> bool {
    match bytes {
        [] => false,
        [HANDSHAKE] | [HANDSHAKE, 3] => true,
        [HANDSHAKE, 3, minor, rest @ ..] => {
            *minor <= 4 && rest.get(2).is_none_or(|of| matches!(of, 1 | 2))
        }
        _ => false,
    }
}

/// The state of a side's records.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    header: [u8; 5],
    /// How many bytes of the header are there.
    has: u8,
    /// How many bytes of the record's content are to come.
    left: u16,
    /// Bytes of a message that is not complete.
    message: Vec<u8>,
    /// The level of an alert of which the rest is to come.
    level: Option<u8>,
    /// How many bytes of a message are to be skipped.
    skip: usize,
}

impl Records {
    pub(super) fn held(&self) -> usize {
        self.message.capacity()
    }

    pub(super) fn is_between(&self) -> bool {
        self.has == 0 && self.message.is_empty()
    }

    /// Leaves out bytes that are missing, if they all lie in a record whose content is not read. Returns whether they do.
    pub(super) fn skip(&mut self, missing: u64) -> bool {
        let is_within = self.has == 5 && self.header[0] == DATA && u64::from(self.left) > missing;
        if is_within {
            self.left -= missing as u16;
        }
        is_within
    }

    /// Reads bytes up to the next item, and returns the bytes behind it. `wants` says which messages are kept;
    /// the contents of handshake records are skipped if `is_encrypted`.
    pub(super) fn next<'a>(
        &mut self,
        mut bytes: &'a [u8],
        longest: usize,
        is_encrypted: bool,
        wants: impl Fn(u8) -> bool,
        each: &mut dyn FnMut(Item<'_>),
    ) -> Result<&'a [u8], &'static str> {
        while self.has < 5 {
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(bytes) };
            self.header[usize::from(self.has)] = byte;
            self.has += 1;
            bytes = rest;
            if self.has == 5 {
                self.begin(each)?;
            }
        }
        let (content, rest) = bytes.split_at(bytes.len().min(usize::from(self.left)));
        self.left -= content.len() as u16;
        match self.header[0] {
            HANDSHAKE if !is_encrypted => self.handshake(content, longest, wants, each),
            ALERT if !is_encrypted && self.header[3..] == [0, 2] => self.alert(content, each),
            _ => {}
        }
        if self.left == 0 {
            self.has = 0;
        }
        Ok(rest)
    }

    /// Takes in the header of a record.
    fn begin(&mut self, each: &mut dyn FnMut(Item<'_>)) -> Result<(), &'static str> {
        let [of, major, _, high, low] = self.header;
        let len = u16::from_be_bytes([high, low]);
        if !matches!(of, CHANGE_CIPHER_SPEC..=HEARTBEAT) || major != 3 || len > LONGEST {
            return Err("bytes that are not a record of TLS");
        }
        self.left = len;
        match of {
            CHANGE_CIPHER_SPEC => each(Item::ChangeCipherSpec),
            DATA => each(Item::Data),
            _ => {}
        }
        Ok(())
    }

    fn handshake(
        &mut self,
        mut content: &[u8],
        longest: usize,
        wants: impl Fn(u8) -> bool,
        each: &mut dyn FnMut(Item<'_>),
    ) {
        while !content.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(content.len());
                self.skip -= skipped;
                content = &content[skipped..];
                continue;
            }
            // A message that lies in the record as a whole is not copied.
            if self.message.is_empty()
                && let Some(len) = length(content)
                && let Some((message, rest)) = content.split_at_checked(len)
                && len <= longest
            {
                if wants(message[0]) {
                    each(Item::Handshake(message));
                }
                content = rest;
                continue;
            }
            let have = self.message.len();
            let want = length(&self.message).unwrap_or(4);
            let (part, rest) = content.split_at(content.len().min(want - have));
            self.message.extend_from_slice(part);
            content = rest;
            self.gathered(longest, &wants, each);
        }
    }

    /// Tells the message that was gathered if it is complete, and skips it if it is not wanted.
    fn gathered(
        &mut self,
        longest: usize,
        wants: impl Fn(u8) -> bool,
        each: &mut dyn FnMut(Item<'_>),
    ) {
        let Some(len) = length(&self.message) else { return };
        let is_wanted = wants(self.message[0]);
        if is_wanted && len > longest {
            each(Item::TooLong);
        }
        if !is_wanted || len > longest {
            self.skip = len - self.message.len();
            self.message.clear();
        } else if len == self.message.len() {
            each(Item::Handshake(&self.message));
            self.message = Vec::new();
        }
    }

    fn alert(&mut self, content: &[u8], each: &mut dyn FnMut(Item<'_>)) {
        for &byte in content {
            match self.level.take() {
                None => self.level = Some(byte),
                Some(level) => each(Item::Alert { level, description: byte }),
            }
        }
    }
}

/// The length of a message with its header, if that is there.
fn length(message: &[u8]) -> Option<usize> {
    let &[_, a, b, c, ..] = message else { return None };
    Some(4 + u32::from_be_bytes([0, a, b, c]) as usize)
}
