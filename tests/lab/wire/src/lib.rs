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
//!   stage       a real interface, or a namespace with traffic in it
//! ```
//!
//! A program calls [`bootstrap::enter`] first thing in `main`.

pub mod bootstrap;
pub mod generator;
pub mod limits;
pub mod link;
pub mod namespace;
pub mod stage;
pub mod talk;
pub mod traffic;

pub use self::generator::{Generator, Pace, frames};
pub use self::link::Veth;
pub use self::namespace::Namespace;
pub use self::stage::Stage;
pub use self::traffic::{Mark, Protocol, Traffic};
