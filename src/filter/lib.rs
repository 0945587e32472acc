//! Packet filters in the language of pcap-filter(7), compiled to classic BPF without libpcap: for sockets, for capture
//! files, and to run offline.
//!
//! ```
//! use ringtap_filter::{BpfFilter, FilterTarget};
//!
//! let filter = BpfFilter::parse("tcp port 443 and not net 10.0.0.0/8")?;
//! println!("{}", filter.disassembly(FilterTarget::Socket)); // as `tcpdump -d` prints it
//! assert!(!filter.matches(&[0; 60]));
//! # Ok::<(), ringtap_filter::FilterError>(())
//! ```
//!
//! The crate has no dependency, and makes no system call except to read `/etc/services`, when a text first names a port
//! (`port http`). `ringtap` re-exports it as `ringtap::filter`.
//!
//! ```text
//!   "tcp port 443" ── parse ──┐
//!   BpfFilter::builder() ─────┴─► syntax tree ─── lower ──► tests ── graph ──► emit ──► program ──► kernel, vm
//!                                (ast.rs)       for a link, (tree.rs)                   (validate.rs)
//!                                                a target
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod ast;
mod builder;
#[cfg(test)]
mod cooked_tests;
mod direction;
mod display;
mod emit;
mod error;
mod graph;
#[cfg(test)]
mod inside_tests;
mod insn;
mod lex;
mod link_type;
mod listing;
mod lower;
mod names;
mod opcode;
mod parse;
mod resolver;
mod terms;
#[cfg(test)]
mod tests;
mod tree;
mod validate;
#[cfg(test)]
mod verdict_tests;
mod vlan;
mod vm;
#[cfg(test)]
mod vm_tests;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use self::ast::Expr;
pub use self::builder::BpfFilterBuilder;
pub use self::direction::PacketDirection;
pub use self::error::{FilterError, ListingError, ProgramFault};
use self::graph::Graph;
pub use self::insn::{BpfInsn, MAX_INSTRUCTIONS};
pub use self::link_type::LinkType;
use self::listing::Listing;
use self::resolver::NoNames;
pub use self::resolver::Resolver;
pub use self::terms::{Headers, Needs, Term};
pub use self::vlan::VlanTag;
pub use self::vm::Ancillary;

/// The code of `ret #number`.
const RETURN_NUMBER: u16 = opcode::RET | opcode::K;

/// The return value that accepts the whole packet.
const ALL: u32 = u32::MAX;

/// The place where a filter program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FilterTarget {
    /// On a socket, where the kernel has moved the outer VLAN tag from the frame to the packet's metadata.
    Socket,
    /// On a cooked socket (`SOCK_DGRAM`), whose packets have no link-layer header when the filter sees them. What the
    /// header would say is in the packet's metadata.
    Cooked,
    /// On frames as they were on the wire: in a file, or before the kernel's network stack.
    Offline,
}

/// A compiled packet filter (pcap-filter syntax).
///
/// ```
/// use ringtap_filter::BpfFilter;
///
/// let filter: BpfFilter = "tcp port 443 and not net 10.0.0.0/8".parse()?;
/// assert!(!filter.matches(&[0; 60]));
/// # Ok::<(), ringtap_filter::FilterError>(())
/// ```
///
/// The language is that of pcap-filter(7); the differences are listed in `docs/FILTERS.md` of ringtap. Each filter is
/// compiled twice, once for sockets and once for frames in files, because the kernel strips VLAN tags:
/// `vlan 100 and tcp` matches the same packets in both.
#[derive(Clone, PartialEq, Eq)]
pub struct BpfFilter {
    /// The parsed expression; `None` for a filter made from a ready program.
    expr: Option<Arc<Expr>>,
    text: Option<Arc<str>>,
    /// Whether the filter also matches behind VLAN tags.
    is_transparent: bool,
    /// The link type that the programs are compiled for.
    link: LinkType,
    /// Whether `socket` is for packets without the header of that type, which they have only when they are read.
    is_cooked: bool,
    socket: Arc<[BpfInsn]>,
    offline: Arc<[BpfInsn]>,
    /// The reason why there is no offline program; `offline` then accepts nothing.
    offline_fault: Option<Box<FilterError>>,
    elsewhere: Elsewhere,
}

/// A filter's programs for packets of other link types, in the order of [`LinkType::COMPILED`].
#[derive(Debug, Clone, Default)]
struct Elsewhere(Arc<[OfLink; LinkType::COMPILED.len()]>);

/// A program that is compiled on first use; `None` if packets of that link type cannot match.
type OfLink = OnceLock<Option<Arc<[BpfInsn]>>>;

impl Elsewhere {
    fn program(&self, filter: &BpfFilter, link: LinkType) -> Option<&Arc<[BpfInsn]>> {
        let at = LinkType::COMPILED.iter().position(|of| *of == link)?;
        self.0[at].get_or_init(|| Some(filter.for_link(link).ok()?.socket)).as_ref()
    }
}

/// Always equal, as these programs follow from the rest of the filter.
impl PartialEq for Elsewhere {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Elsewhere {}

impl BpfFilter {
    /// Compiles an expression of the pcap-filter language; an empty one matches all packets.
    ///
    /// The first name of a port in the process reads `/etc/services`. Other names are not looked up.
    ///
    /// # Errors
    /// The position of the fault and what was expected there.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Self::parse_with(text, &NoNames)
    }

    /// Compiles an expression whose names of hosts, networks and interfaces `resolver` looks up, each once and now.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse), and for a name that the resolver does not know.
    pub fn parse_with(text: &str, resolver: &dyn Resolver) -> Result<Self, FilterError> {
        let expr = parse::parse(text, resolver)?;
        let link = expr.link();
        let mut filter = Self::of(Arc::new(expr), link, false)?;
        filter.text = Some(text.trim().into());
        Ok(filter)
    }

    /// Returns a builder for a filter made of terms, all of which must hold.
    pub fn builder() -> BpfFilterBuilder {
        BpfFilterBuilder::new()
    }

    /// Creates a filter from a ready program, used both on sockets and offline.
    ///
    /// # Errors
    /// The reason why the kernel would refuse the program.
    pub fn new(program: impl Into<Vec<BpfInsn>>) -> Result<Self, ProgramFault> {
        let program: Arc<[BpfInsn]> = program.into().into();
        validate::validate(&program)?;
        Ok(Self::of_programs(Arc::clone(&program), program))
    }

    /// A filter without text. Its programs may have been made for any link.
    fn of_programs(socket: Arc<[BpfInsn]>, offline: Arc<[BpfInsn]>) -> Self {
        Self {
            expr: None,
            text: None,
            is_transparent: false,
            link: LinkType::ETHERNET,
            is_cooked: false,
            socket,
            offline,
            offline_fault: None,
            elsewhere: Elsewhere::default(),
        }
    }

    /// Creates a filter from a program as printed by `tcpdump -dd` or `-ddd`.
    ///
    /// # Errors
    /// [`ListingError::Text`] if the text is not such a listing; otherwise as for [`new`](Self::new).
    pub fn from_listing(text: &str) -> Result<Self, ListingError> {
        let program = listing::read(text).ok_or_else(|| {
            ListingError::Text(FilterError::whole("rows of four numbers, as `tcpdump -dd` prints"))
        })?;
        Self::new(program).map_err(ListingError::Program)
    }

    fn of(expr: Arc<Expr>, link: LinkType, is_transparent: bool) -> Result<Self, FilterError> {
        let compile = |target| compile(&expr, link, target, is_transparent);
        let socket = compile(FilterTarget::Socket)?;
        let is_alike = !expr.speaks_of_tags() && !expr.speaks_of_metadata();
        let offline =
            if is_alike { Ok(Arc::clone(&socket)) } else { compile(FilterTarget::Offline) };
        let (offline, offline_fault) = match offline {
            Ok(offline) => (offline, None),
            Err(fault) => (Arc::from([BpfInsn::ret(0)]), Some(Box::new(fault))),
        };
        // On Ethernet a filter that contradicts itself is the caller's; elsewhere, it asks for what is not there.
        if link != LinkType::ETHERNET && *socket == [BpfInsn::ret(0)] {
            let why = format!("no packet of link type {} can match", link.0);
            return Err(FilterError::whole(why));
        }
        let programs = Self::of_programs(socket, offline);
        Ok(Self { expr: Some(expr), link, is_transparent, offline_fault, ..programs })
    }

    /// Checks that the filter can run offline. Some conditions can only be evaluated by the kernel, such as the
    /// packet's direction (`inbound`). A filter that fails this check [`matches`](Self::matches) no frame.
    ///
    /// # Errors
    /// The reason.
    pub fn check_offline(&self) -> Result<(), FilterError> {
        self.offline_fault.as_ref().map_or(Ok(()), |fault| Err((**fault).clone()))
    }

    /// Returns this filter extended to packets behind one or two VLAN tags.
    ///
    /// Without this, a filter that does not mention tags matches untagged frames when it runs offline, and on a
    /// socket also frames with one tag, because the kernel strips that tag. `ether[…]` still counts from the
    /// frame's first byte.
    ///
    /// ```
    /// use ringtap_filter::BpfFilter;
    ///
    /// let filter = BpfFilter::parse("udp port 53")?.vlan_transparent()?;
    /// # Ok::<(), ringtap_filter::FilterError>(())
    /// ```
    ///
    /// # Errors
    /// An error if the filter mentions VLAN tags itself, or was made from a ready program.
    pub fn vlan_transparent(&self) -> Result<Self, FilterError> {
        let expr = self.spoken()?;
        if expr.speaks_of_tags() {
            return Err(FilterError::whole("a filter that does not speak of `vlan` itself"));
        }
        let of_link = Self::of(Arc::clone(expr), self.link, true)?;
        let transparent = Self { text: self.text.clone(), ..of_link };
        if self.is_cooked { transparent.on_cooked() } else { Ok(transparent) }
    }

    /// Compiles this filter for a cooked socket (`SOCK_DGRAM`): its packets begin with the network layer when the
    /// kernel runs the filter, and with a header of Linux cooked captures ([`LinkType::LINUX_SLL2`]) when they are
    /// read. A socket does this by itself. A filter made from a ready program is returned unchanged.
    ///
    /// # Errors
    /// An error if the filter asks for something that is not known of cooked packets (`ether host`).
    pub fn on_cooked(&self) -> Result<Self, FilterError> {
        let Some(expr) = &self.expr else { return Ok(self.clone()) };
        let cooked =
            compile(expr, LinkType::LINUX_SLL2, FilterTarget::Cooked, self.is_transparent)?;
        Ok(Self { is_cooked: true, socket: cooked, ..self.for_link(LinkType::LINUX_SLL2)? })
    }

    /// Returns whether the filter was made from a ready program. Such a filter runs as it is on packets of any link type,
    /// and on those of a cooked socket without the header that they are given later.
    pub fn is_program(&self) -> bool {
        self.expr.is_none()
    }

    fn spoken(&self) -> Result<&Arc<Expr>, FilterError> {
        self.expr.as_ref().ok_or_else(|| {
            FilterError::whole(
                "a filter that was given as text or terms: a program is of one kind of link",
            )
        })
    }

    /// Compiles this filter for another link type. A socket does this by itself for the filters it is given.
    ///
    /// # Errors
    /// An error if the filter asks for something that such links do not have, or was made from a ready
    /// program. Failing to compile for offline use is not an error here; see
    /// [`check_offline`](Self::check_offline).
    pub fn for_link(&self, link: LinkType) -> Result<Self, FilterError> {
        let of_link = Self::of(Arc::clone(self.spoken()?), link, self.is_transparent)?;
        Ok(Self { text: self.text.clone(), ..of_link })
    }

    /// Compiles this filter for an interface's link type. With `None` the link type is unknown, and only
    /// filters that do not look at the link header compile. A filter made from a ready program is returned
    /// unchanged.
    ///
    /// # Errors
    /// The errors of [`for_link`](Self::for_link).
    pub fn on(&self, link: Option<LinkType>) -> Result<Self, FilterError> {
        let link = link.unwrap_or(LinkType::UNKNOWN);
        if self.is_program() || self.is_of(link) { Ok(self.clone()) } else { self.for_link(link) }
    }

    /// Whether `socket` is for packets that begin with a header of this type.
    fn is_of(&self, link: LinkType) -> bool {
        link == self.link && !self.is_cooked
    }

    /// Returns the program for `target`; see [`check_offline`](Self::check_offline).
    ///
    /// A filter has one program for sockets: that of [`FilterTarget::Cooked`] if [`on_cooked`](Self::on_cooked) has returned
    /// it, otherwise that of [`FilterTarget::Socket`]. This returns it for either.
    pub fn program(&self, target: FilterTarget) -> &[BpfInsn] {
        match target {
            FilterTarget::Socket | FilterTarget::Cooked => &self.socket,
            FilterTarget::Offline => &self.offline,
        }
    }

    /// Returns the offline program, changed to return `value` for each packet that it accepts. A program that returns the
    /// accumulator becomes three instructions longer.
    pub fn program_returning(&self, value: u32) -> Vec<BpfInsn> {
        let accept = |number| if number == 0 { 0 } else { value };
        // If A is 0, that, otherwise the value.
        let by_a = [BpfInsn::jump(opcode::JEQ, 0), BpfInsn::ret(0), BpfInsn::ret(value)];
        returning(&self.offline, accept, by_a)
    }

    /// Returns the program for sockets, changed to accept at most `bytes` bytes of a packet. A program that returns the
    /// accumulator becomes three instructions longer.
    pub fn cut_to(&self, bytes: u32) -> Vec<BpfInsn> {
        let by_a = [BpfInsn::jump(opcode::JGT, bytes), BpfInsn::ret(bytes), BpfInsn::RET_A];
        returning(&self.socket, |number| number.min(bytes), by_a)
    }

    /// Returns whether the filter matches a frame as it is in a file or on the wire; see
    /// [`check_offline`](Self::check_offline).
    pub fn matches(&self, frame: &[u8]) -> bool {
        vm::run(&self.offline, frame, &Ancillary::default()) != 0
    }

    /// As [`matches`](Self::matches), with what is known about the frame besides its bytes, such as its length
    /// on the wire.
    pub fn matches_offline(&self, frame: &[u8], known: &Ancillary) -> bool {
        vm::run(&self.offline, frame, known) != 0
    }

    /// Returns whether the filter matches a frame as the kernel has it, together with the frame's metadata.
    ///
    /// If a ready program loads a value that [`Ancillary`] does not have (netlink attributes, a random number,
    /// the offset of the payload), the frame is rejected.
    pub fn matches_with(&self, frame: &[u8], known: &Ancillary) -> bool {
        vm::run(&self.socket, frame, known) != 0
    }

    /// Returns whether the filter matches a frame of any link type, as the kernel would decide. With `None` the link
    /// type is unknown.
    ///
    /// If the frame's VLAN tag is in its bytes, the result is that of [`matches`](Self::matches): a filter that does
    /// not mention tags matches only untagged frames, unless it is [`vlan_transparent`](Self::vlan_transparent).
    pub fn matches_on(&self, link: Option<LinkType>, frame: &[u8], known: &Ancillary) -> bool {
        let link = link.unwrap_or(LinkType::UNKNOWN).compiled();
        let is_same = self.is_program() || self.is_of(link);
        let program = if is_same { Some(&self.socket) } else { self.elsewhere.program(self, link) };
        program.is_some_and(|program| vm::run(program, frame, known) != 0)
    }

    /// Returns the program for `target` as `tcpdump -d` prints it, one instruction per line.
    pub fn disassembly(&self, target: FilterTarget) -> String {
        Listing(self.program(target)).to_string()
    }

    /// Returns the text that the filter was parsed from, if any.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

/// Changes the numbers that a program returns. Where it returns A, it goes on with `by_a`, which is added to its end.
fn returning(program: &[BpfInsn], number: impl Fn(u32) -> u32, by_a: [BpfInsn; 3]) -> Vec<BpfInsn> {
    let end = program.len();
    let changed = |(at, insn): (usize, &BpfInsn)| match insn.code {
        RETURN_NUMBER => BpfInsn { k: number(insn.k), ..*insn },
        code if code == BpfInsn::RET_A.code => BpfInsn::skip((end - at - 1) as u32),
        _ => *insn,
    };
    let mut changed: Vec<BpfInsn> = program.iter().enumerate().map(changed).collect();
    if program.iter().any(|insn| insn.code == BpfInsn::RET_A.code) {
        changed.extend(by_a);
    }
    changed
}

impl fmt::Debug for BpfFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BpfFilter").field(&format_args!("{self}")).finish()
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
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}

/// Writes the expression with everything spelled out. Parsing the result gives the same program, except for a filter that
/// is [`vlan_transparent`](BpfFilter::vlan_transparent), and for a builder's `or` beside `vlan`: the text has no words for
/// these. A filter made from a ready program has no expression, so its [`disassembly`](BpfFilter::disassembly) for sockets is
/// written instead.
///
/// ```
/// let filter = ringtap_filter::BpfFilter::builder().tcp().ports([80, 443]).build()?;
/// assert_eq!(filter.to_string(), "tcp and (tcp port 80 or tcp port 443)");
/// # Ok::<(), ringtap_filter::FilterError>(())
/// ```
impl fmt::Display for BpfFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.expr {
            Some(expr) => expr.fmt(f),
            None => Listing(&self.socket).fmt(f),
        }
    }
}
