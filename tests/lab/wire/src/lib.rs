//! Namespaces, veth pairs and what is sent over them, without root and without a card.
//!
//! It does not use ringtap: it is the independent witness of what was sent.
//!
//! ```text
//!   bootstrap   a user and network namespace for the whole process, where it is not root
//!   namespace   a network namespace for one test, gone with it, even if the process is killed
//!   link        veth pairs and what can befall them, by rtnetlink
//!   limits      cores and memory of this process
//!   traffic     frames that can be told apart and rebuilt from their number
//!   talk        hosts that visit a server
//!   generator   sends them: flood, burst, paced
//!   host        another namespace, with a protocol stack that talks
//!   pair        two hosts that are not joined yet
//!   directory   a place for temporary files
//!   bpf, xdp    loaded programs
//!   stage       a real interface, or a namespace with traffic in it
//! ```
//!
//! A program calls [`bootstrap::enter`] first thing in `main`.

pub mod bootstrap;
pub mod bpf;
pub mod directory;
pub mod generator;
pub mod host;
pub mod limits;
pub mod link;
pub mod namespace;
mod netlink;
pub mod pair;
pub mod stage;
pub mod talk;
pub mod traffic;
pub mod xdp;

pub use self::directory::{Directory, unique_name};
pub use self::generator::{Generator, Pace, frames};
pub use self::host::Host;
pub use self::link::Veth;
pub use self::namespace::Namespace;
pub use self::pair::Pair;
pub use self::stage::Stage;
pub use self::traffic::{Mark, Protocol, Traffic};
