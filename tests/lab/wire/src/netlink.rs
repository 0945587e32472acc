//! Requests of rtnetlink, as bytes: the crates for this take half a minute to compile.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct nlattr`.
const ATTRIBUTE: usize = 4;
/// More than a description of an interface takes.
const ANSWER: usize = 1 << 16;

/// A request: its kind, a C struct of that kind, and attributes.
#[derive(Debug)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub(crate) fn new(kind: u16, flags: libc::c_int, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend(body);
        Self(bytes)
    }

    /// Adds an attribute.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let len = (ATTRIBUTE + value.len()) as u16;
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.align();
        self
    }

    /// Adds an attribute that is a number.
    pub(crate) fn with_number(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute that is a text.
    pub(crate) fn with_text(self, kind: u16, value: &str) -> Self {
        self.with(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute that has a C struct, or nothing, and other attributes in it.
    pub(crate) fn with_nested(
        self,
        kind: u16,
        body: &[u8],
        fill: impl FnOnce(Self) -> Self,
    ) -> Self {
        const NESTED: u16 = libc::NLA_F_NESTED as u16;
        let start = self.0.len();
        let mut filled = fill(self.with(kind | NESTED, body));
        let len = (filled.0.len() - start) as u16;
        filled.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        filled
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Sends it and reads the answer; `None` for a bare acknowledgement.
    pub(crate) fn send(mut self) -> io::Result<Option<Answer>> {
        let len = (self.0.len() as u32).to_ne_bytes();
        self.0[..4].copy_from_slice(&len);
        let mut socket = open()?;
        socket.write_all(&self.0)?;
        let mut bytes = vec![0; ANSWER];
        let len = socket.read(&mut bytes)?;
        bytes.truncate(len);
        let truncated = || io::Error::other("an answer that is cut off");
        let kind = bytes.get(4..6).ok_or_else(truncated)?;
        if i32::from(u16::from_ne_bytes([kind[0], kind[1]])) != libc::NLMSG_ERROR {
            return Ok(Some(Answer(bytes)));
        }
        let code = bytes.get(HEADER..HEADER + 4).ok_or_else(truncated)?;
        match i32::from_ne_bytes(code.try_into().expect("four bytes")) {
            0 => Ok(None),
            code => Err(io::Error::from_raw_os_error(-code)),
        }
    }
}

/// An answer of the kernel.
#[derive(Debug)]
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    /// Four bytes of its C struct.
    pub(crate) fn number_at(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.0.get(HEADER + at..)?.get(..4)?.try_into().ok()?))
    }

    /// The value of an attribute, behind a C struct of `body` bytes.
    pub(crate) fn attribute(&self, body: usize, wanted: u16) -> Option<&[u8]> {
        let mut rest = self.0.get(HEADER + body..)?;
        loop {
            let number =
                |at: usize| Some(u16::from_ne_bytes(rest.get(at..at + 2)?.try_into().ok()?));
            let (len, kind) = (usize::from(number(0)?), number(2)?);
            if kind == wanted {
                return rest.get(ATTRIBUTE..len);
            }
            rest = rest.get(len.max(ATTRIBUTE).next_multiple_of(4)..)?;
        }
    }
}

fn open() -> io::Result<File> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no memory involved.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}
