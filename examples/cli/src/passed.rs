//! Packet sockets that one process opens for another: descriptors from 3 on, whose number is in the environment, as systemd
//! passes them (sd_listen_fds(3)).

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};
use listenfd::ListenFd;
use nix::libc::{AF_PACKET, SOCK_DGRAM, SOCK_RAW};

use crate::sink::Outcome;

/// The first descriptor of those (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// A program that gets them. It has to take the place of this process, whose number the environment has.
pub(crate) fn program_with(sockets: Vec<OwnedFd>, words: &[OsString]) -> Outcome<Command> {
    let (program, arguments) = words.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("LISTEN_FDS", sockets.len().to_string());
    command.env("LISTEN_PID", std::process::id().to_string());
    command.env_remove("LISTEN_FDNAMES");
    let mappings = sockets.into_iter().zip(FIRST..);
    let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.collect())?;
    Ok(command)
}

/// Takes what this process was given: packet sockets, in their order.
pub(crate) fn sockets() -> Outcome<Vec<OwnedFd>> {
    let mut passed = ListenFd::from_env();
    let count = passed.len();
    if count == 0 {
        return Err("no socket was passed: start it by `ringtap pass -i INTERFACE -- …`".into());
    }
    let take = |at| {
        // Those of `any` have no link-layer header.
        let raw = passed.take_custom(at, AF_PACKET, SOCK_RAW, "packet socket");
        let socket =
            raw.or_else(|_| passed.take_custom(at, AF_PACKET, SOCK_DGRAM, "packet socket"));
        Ok(socket?.ok_or("a socket is there once")?)
    };
    (0..count).map(take).collect()
}
