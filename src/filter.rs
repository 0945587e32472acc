//! Which packets: as text, by a builder, or as a program; in the kernel and offline.
//!
//! ```text
//!   "tcp port 443" ── parse ──┐
//!   BpfFilter::builder() ─────┴─► what it says ── lower ──► tests ── graph ──► emit ──► program ──► kernel, vm
//!                                (ast.rs)       for a link, (tree.rs)                   (validate.rs)
//!                                                a target
//! ```

mod ast;
mod builder;
mod display;
mod emit;
mod graph;
mod lex;
mod listing;
mod lower;
mod names;
mod opcode;
mod parse;
#[cfg(test)]
mod tests;
mod tree;
mod validate;
mod vm;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use self::ast::Expr;
pub use self::builder::BpfFilterBuilder;
use self::graph::Graph;
use self::listing::Listing;
pub use self::vm::Ancillary;
use crate::error::{Error, FilterError, Result};
use crate::packet::{LinkType, Packet};
pub use crate::sys::cbpf::BpfInsn;

/// The code of `ret #number`.
const RETURN_NUMBER: u16 = opcode::RET | opcode::K;

/// How much of a packet is accepted: all of it.
const ALL: u32 = u32::MAX;

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FilterTarget {
    /// On a socket: the kernel has taken a VLAN tag out of the frame, and keeps it beside.
    Socket,
    /// On frames as they were on the wire: in a file, or before the kernel's stack.
    Offline,
}

/// A compiled packet filter (pcap-filter syntax).
///
/// ```
/// use ringtap::BpfFilter;
///
/// let filter: BpfFilter = "tcp port 443 and not net 10.0.0.0/8".parse()?;
/// assert!(!filter.matches(&[0; 60]));
/// # Ok::<(), ringtap::Error>(())
/// ```
///
/// The language is that of pcap-filter(7); what differs is in `docs/FILTERS.md`. It is compiled twice, for sockets
/// and for frames in files, since the kernel strips VLAN tags: `vlan 100 and tcp` means the same packets in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfFilter {
    /// What it says; a program from elsewhere says nothing but itself.
    expr: Option<Arc<Expr>>,
    text: Option<Arc<str>>,
    /// Whether tags are looked through.
    is_transparent: bool,
    /// What the packets begin with that its programs are for.
    link: LinkType,
    socket: Arc<[BpfInsn]>,
    offline: Arc<[BpfInsn]>,
    /// Why there is none offline, which then accepts nothing.
    offline_fault: Option<Box<FilterError>>,
    elsewhere: Elsewhere,
}

/// A filter's programs for packets of other links, made when the first of those is looked at.
#[derive(Debug, Clone, Default)]
struct Elsewhere(Arc<OnceLock<Vec<OfLink>>>);

/// A program for packets of a link.
type OfLink = (LinkType, Arc<[BpfInsn]>);

impl Elsewhere {
    fn program(&self, filter: &BpfFilter, link: LinkType) -> Option<&Arc<[BpfInsn]>> {
        let all = LinkType::COMPILED.into_iter();
        let made = self.0.get_or_init(|| {
            all.filter_map(|link| Some((link, filter.for_link(link).ok()?.socket))).collect()
        });
        made.iter().find(|(of, _)| *of == link).map(|(_, program)| program)
    }
}

/// It follows from the rest of the filter.
impl PartialEq for Elsewhere {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Elsewhere {}

impl BpfFilter {
    /// Compiles an expression of the pcap-filter language; an empty one is of all packets.
    ///
    /// # Errors
    /// [`Error::Filter`] with the place and what was expected there.
    pub fn parse(text: &str) -> Result<Self> {
        let expr = parse::parse(text).map_err(Error::from)?;
        let mut filter = Self::of(Arc::new(expr), LinkType::ETHERNET, false)?;
        filter.text = Some(text.trim().into());
        Ok(filter)
    }

    /// Terms, all of which must hold.
    pub fn builder() -> BpfFilterBuilder {
        BpfFilterBuilder::new()
    }

    /// A program made elsewhere, for sockets and offline alike.
    ///
    /// # Errors
    /// [`Error::Program`] with what the kernel would refuse it for.
    pub fn new(program: impl Into<Vec<BpfInsn>>) -> Result<Self> {
        let program: Arc<[BpfInsn]> = program.into().into();
        validate::validate(&program).map_err(Error::Program)?;
        let (socket, offline) = (Arc::clone(&program), program);
        let (is_transparent, offline_fault) = (false, None);
        let (link, elsewhere) = (LinkType::ETHERNET, Elsewhere::default()); // or whatever it was made for
        let (expr, text) = (None, None);
        Ok(Self { expr, text, is_transparent, link, socket, offline, offline_fault, elsewhere })
    }

    /// A program as `tcpdump -dd` or `-ddd` prints it.
    ///
    /// # Errors
    /// [`Error::Filter`] where it is not that; as [`new`](Self::new).
    pub fn from_listing(text: &str) -> Result<Self> {
        let program = listing::read(text)
            .ok_or_else(|| FilterError::whole("rows of four numbers, as `tcpdump -dd` prints"))?;
        Self::new(program)
    }

    fn of(expr: Arc<Expr>, link: LinkType, is_transparent: bool) -> Result<Self> {
        let compile = |target| compile(&expr, link, target, is_transparent);
        let socket = compile(FilterTarget::Socket)?;
        let is_alike = !expr.speaks_of_tags() && !expr.speaks_of_direction();
        let offline =
            if is_alike { Ok(Arc::clone(&socket)) } else { compile(FilterTarget::Offline) };
        let (offline, offline_fault) = match offline {
            Ok(offline) => (offline, None),
            Err(fault) => (Arc::from([BpfInsn::ret(0)]), Some(Box::new(fault))),
        };
        let (expr, text, elsewhere) = (Some(expr), None, Elsewhere::default());
        Ok(Self { expr, text, is_transparent, link, socket, offline, offline_fault, elsewhere })
    }

    /// Whether it can be asked offline: which way a packet went, say, only the kernel knows (`inbound`). One that
    /// cannot [`matches`](Self::matches) nothing.
    ///
    /// # Errors
    /// [`Error::Filter`] with why it cannot.
    pub fn check_offline(&self) -> Result<()> {
        self.offline_fault.as_ref().map_or(Ok(()), |fault| Err(Error::Filter(fault.clone())))
    }

    /// The same packets, and those that are the same behind a VLAN tag or two.
    ///
    /// A filter that does not speak of tags is otherwise about untagged frames offline, and about those with one tag,
    /// which the kernel strips, in a socket. `ether[…]` goes on counting from the frame's first byte.
    ///
    /// ```
    /// use ringtap::BpfFilter;
    ///
    /// let filter = BpfFilter::parse("udp port 53")?.vlan_transparent()?;
    /// # Ok::<(), ringtap::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Filter`] where it speaks of tags itself, or is a program from elsewhere.
    pub fn vlan_transparent(&self) -> Result<Self> {
        let expr = self.spoken()?;
        if expr.speaks_of_tags() {
            return Err(FilterError::whole("a filter that does not speak of `vlan` itself").into());
        }
        Ok(Self { text: self.text.clone(), ..Self::of(Arc::clone(expr), self.link, true)? })
    }

    fn spoken(&self) -> Result<&Arc<Expr>, FilterError> {
        self.expr.as_ref().ok_or_else(|| {
            FilterError::whole(
                "a filter that was given as text or terms: a program is of one kind of link",
            )
        })
    }

    /// The same packets on links of another kind. A socket does this by itself with a filter that it is given.
    ///
    /// # Errors
    /// [`Error::Filter`] where such links do not have what it asks for, or it is a program from elsewhere. Where only
    /// offline nobody knows ([`check_offline`](Self::check_offline)), it is none yet.
    pub fn for_link(&self, link: LinkType) -> Result<Self> {
        let of_link = Self::of(Arc::clone(self.spoken()?), link, self.is_transparent)?;
        Ok(Self { text: self.text.clone(), ..of_link })
    }

    /// The same packets where an interface's begin like this, or, as for all that asks nothing of the beginning, with
    /// what is not known; a program from elsewhere is itself.
    pub(crate) fn on(&self, link: Option<LinkType>) -> Result<Self> {
        let link = link.unwrap_or(LinkType::UNKNOWN);
        if self.expr.is_none() || link == self.link {
            Ok(self.clone())
        } else {
            self.for_link(link)
        }
    }

    /// Its program; see [`check_offline`](Self::check_offline).
    pub fn program(&self, target: FilterTarget) -> &[BpfInsn] {
        match target {
            FilterTarget::Socket => &self.socket,
            FilterTarget::Offline => &self.offline,
        }
    }

    /// Its program offline, that returns `value` where it accepts.
    pub(crate) fn program_returning(&self, value: u32) -> Vec<BpfInsn> {
        let accept = |insn: &BpfInsn| match insn.code {
            RETURN_NUMBER if insn.k != 0 => BpfInsn { k: value, ..*insn },
            _ => *insn,
        };
        self.offline.iter().map(accept).collect()
    }

    /// Its program for sockets, that accepts no more than so many bytes.
    pub(crate) fn cut_to(&self, bytes: u32) -> Vec<BpfInsn> {
        let cut = |insn: &BpfInsn| match insn.code {
            RETURN_NUMBER => BpfInsn { k: insn.k.min(bytes), ..*insn },
            _ => *insn,
        };
        self.socket.iter().map(cut).collect()
    }

    /// Whether a frame is meant, as it is in a file or on the wire; see [`check_offline`](Self::check_offline).
    pub fn matches(&self, frame: &[u8]) -> bool {
        vm::run(&self.offline, frame, &Ancillary::default()) != 0
    }

    /// As [`matches`](Self::matches), with what is known of the frame beside its bytes: its length on the wire.
    pub fn matches_offline(&self, frame: &[u8], known: &Ancillary) -> bool {
        vm::run(&self.offline, frame, known) != 0
    }

    /// Whether a frame is meant as the kernel has it: what it knows of it beside.
    ///
    /// Of a program from elsewhere, a load of what [`Ancillary`] does not have (netlink attributes, a random number,
    /// where the payload begins) rejects the frame.
    pub fn matches_with(&self, frame: &[u8], known: &Ancillary) -> bool {
        vm::run(&self.socket, frame, known) != 0
    }

    /// Whether a captured packet is meant, as the kernel would decide, whatever link it is from.
    ///
    /// Of a packet whose tag is in its bytes, be it from AF_XDP or put back by
    /// [`vlan_reinsert`](crate::capture::CaptureBuilder::vlan_reinsert), that is what [`matches`](Self::matches) says: a filter
    /// that does not speak of tags means untagged frames, unless it is
    /// [`vlan_transparent`](Self::vlan_transparent).
    pub fn matches_packet(&self, packet: &Packet<'_>) -> bool {
        let known = Ancillary {
            wire_len: Some(packet.original_len() as u32),
            vlan: packet.stripped_vlan(),
            direction: packet.direction(),
            protocol: packet.ll_protocol().unwrap_or_default(),
            rxhash: packet.rxhash().unwrap_or_default(),
            ifindex: packet.interface_index().unwrap_or_default(),
            hatype: packet.meta().link.map_or(0, |link| link.hardware),
            ..Ancillary::default()
        };
        let link = packet.link_type().unwrap_or(LinkType::UNKNOWN);
        let is_same = self.expr.is_none() || link == self.link || packet.meta().link.is_none();
        let program = if is_same { Some(&self.socket) } else { self.elsewhere.program(self, link) };
        program.is_some_and(|program| vm::run(program, packet.data(), &known) != 0)
    }

    /// The program for `target`, as `tcpdump -d` prints it: one instruction per line.
    pub fn disassembly(&self, target: FilterTarget) -> String {
        Listing(self.program(target)).to_string()
    }

    /// Its text, where it was given as one.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

fn compile(
    expr: &Expr,
    link: LinkType,
    target: FilterTarget,
    is_transparent: bool,
) -> Result<Arc<[BpfInsn]>, FilterError> {
    let condition = lower::lower(expr, link, target, is_transparent)?;
    let program = emit::emit(&Graph::new(&condition)?, ALL)?;
    match validate::validate(&program) {
        Ok(()) => Ok(program.into()),
        Err(fault) => Err(FilterError::whole(format!("what a program can do: {fault}"))),
    }
}

impl FromStr for BpfFilter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// The program for sockets, as `tcpdump -d` prints it.
/// Writes the expression with everything spelled out: parsing it gives the same program. A program from elsewhere has no
/// expression and is written as its [`disassembly`](BpfFilter::disassembly).
///
/// ```
/// let filter = ringtap::BpfFilter::builder().tcp().ports([80, 443]).build()?;
/// assert_eq!(filter.to_string(), "tcp and (tcp port 80 or tcp port 443)");
/// # Ok::<(), ringtap::Error>(())
/// ```
impl fmt::Display for BpfFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.expr {
            Some(expr) => expr.fmt(f),
            None => Listing(&self.socket).fmt(f),
        }
    }
}
