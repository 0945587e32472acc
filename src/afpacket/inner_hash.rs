//! A classic BPF program for fanout that hashes the addresses and ports inside a tunnel.
//!
//! The kernel's own flow hash looks into GRE and IP in IP, but not into what UDP carries: all of a GTP-U tunnel's
//! flows are one to it, and the two directions of a flow in VXLAN are two.
//!
//! ```text
//!   IP ─► UDP ─► VXLAN, Geneve, GTP-U ─┐
//!    │                                 ├─► [Ethernet ─► [tag] ─►] IP ─► addresses, ports ─► hash
//!    ├─► GRE ──────────────────────────┤
//!    ├─► IP in IP, 6in4 ───────────────┤
//!    └─► anything else: the outer IP ──┘
//! ```

use ringtap_filter::BpfInsn;

const WORD: u32 = libc::BPF_W;
const HALF: u32 = libc::BPF_H;
const BYTE: u32 = libc::BPF_B;

/// Where the packet's EtherType, its direction and the kind of its interface are (`SKF_AD_PROTOCOL`, `SKF_AD_PKTTYPE`,
/// `SKF_AD_HATYPE`, linux/filter.h).
const ETHER_TYPE: u32 = 0xffff_f000;
const DIRECTION: u32 = 0xffff_f004;
const HARDWARE: u32 = 0xffff_f01c;

/// Cells of scratch memory: offsets of the outer IP header and of the current one, and values.
const OUTER: u32 = 0;
const BASE: u32 = 1;
const HASH: u32 = 2;
const PROTOCOL: u32 = 3;
const FLAGS: u32 = 4;

const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const BRIDGING: u32 = 0x6558;
const ERSPAN: u32 = 0x88be;
const TAGS: [u32; 2] = [0x8100, 0x88a8];

/// Targets of jumps, in their order in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Sent,
    SentFrame,
    OuterTag,
    InnerTag,
    OuterIp,
    OuterV6,
    Transport,
    Udp,
    Vxlan,
    Geneve,
    Gtp,
    GtpExtended,
    Gre,
    Erspan,
    Ethernet,
    Tagged,
    Inner,
    Outer,
    Ip,
    V6,
    Ports,
    HasPorts,
    Done,
}

const LABELS: usize = Label::Done as usize + 1;

/// Returns the program: the same value for both directions of a flow. What is not IP has the value 0.
pub(super) fn program() -> Vec<BpfInsn> {
    let mut program = Assembler::new();
    program.network();
    program.outer();
    program.udp_tunnels();
    program.gre();
    program.inner();
    program.hash();
    program.finish()
}

#[derive(Debug)]
struct Assembler {
    insns: Vec<BpfInsn>,
    places: [usize; LABELS],
    /// Positions of jumps, and their targets.
    jumps: Vec<(usize, Label)>,
}

/// The parts of the program. X is the offset of the header that is read.
impl Assembler {
    /// Goes to the outer IP header. The bytes of a received packet begin behind its link-layer header, and those of a sent
    /// frame with it.
    ///
    /// They are not read relative to the network header (`SKF_NET_OFF`), which would be the same for both: behind a tag
    /// it differs, and before 2025 the kernel read only what is in the packet's first buffer that way.
    fn network(&mut self) {
        self.insn(libc::BPF_LDX | libc::BPF_IMM, 0);
        self.insn(libc::BPF_LD | WORD | libc::BPF_ABS, DIRECTION);
        self.when_is([libc::PACKET_OUTGOING.into()], Label::Sent);
        self.insn(libc::BPF_LD | WORD | libc::BPF_ABS, ETHER_TYPE);
        self.go(Label::OuterTag);
        self.place(Label::Sent);
        self.insn(libc::BPF_LD | WORD | libc::BPF_ABS, HARDWARE);
        self.when_is([libc::ARPHRD_ETHER.into(), libc::ARPHRD_LOOPBACK.into()], Label::SentFrame);
        self.insn(libc::BPF_LD | WORD | libc::BPF_ABS, ETHER_TYPE);
        self.go(Label::OuterIp);
        self.place(Label::SentFrame);
        self.advance(14);
        self.insn(libc::BPF_LD | HALF | libc::BPF_ABS, 12);
        for label in [Label::OuterTag, Label::InnerTag] {
            self.place(label);
            self.unless(TAGS, Label::OuterIp);
            self.load(HALF, 2);
            self.store(PROTOCOL);
            self.advance(4);
            self.recall(PROTOCOL);
        }
        self.place(Label::OuterIp);
    }

    /// Finds what the outer IP header carries.
    fn outer(&mut self) {
        self.insn(libc::BPF_STX, OUTER);
        self.version();
        self.when_is([6], Label::OuterV6);
        // Neither version.
        self.insns.push(BpfInsn { jt: 1, jf: 0, ..jump(libc::BPF_JEQ, 4) });
        self.insns.push(BpfInsn::ret(0));
        self.load(HALF, 6);
        self.when(libc::BPF_JSET, 0x3fff, Label::Outer); // a fragment
        self.load(BYTE, 9);
        self.store(PROTOCOL);
        self.v4_header_len();
        self.advance_by_a();
        self.go(Label::Transport);
        self.place(Label::OuterV6);
        self.load(BYTE, 6);
        self.store(PROTOCOL);
        self.advance(40);
        self.place(Label::Transport);
        self.recall(PROTOCOL);
        self.when_is([17], Label::Udp);
        self.when_is([47], Label::Gre);
        self.when_is([4, 41], Label::Inner);
        self.go(Label::Outer);
    }

    fn udp_tunnels(&mut self) {
        self.place(Label::Udp);
        self.load(HALF, 2);
        self.when_is([4789, 8472], Label::Vxlan);
        self.when_is([6081], Label::Geneve);
        self.when_is([2152], Label::Gtp);
        self.go(Label::Outer);

        self.place(Label::Vxlan);
        self.advance(8 + 8);
        self.go(Label::Ethernet);

        self.place(Label::Geneve);
        self.load(HALF, 8 + 2);
        self.store(PROTOCOL);
        self.load(BYTE, 8);
        self.alu(libc::BPF_AND, 0x3f);
        self.alu(libc::BPF_LSH, 2);
        self.alu(libc::BPF_ADD, 8 + 8);
        self.advance_by_a();
        self.recall(PROTOCOL);
        self.when_is([BRIDGING], Label::Ethernet);
        self.when_is([IPV4, IPV6], Label::Inner);
        self.go(Label::Outer);

        // Only user data, the message of type 255, has a packet in it.
        self.place(Label::Gtp);
        self.load(BYTE, 8 + 1);
        self.unless([0xff], Label::Outer);
        self.load(BYTE, 8);
        self.when(libc::BPF_JSET, 0x07, Label::GtpExtended);
        self.advance(8 + 8);
        self.go(Label::Inner);
        self.place(Label::GtpExtended);
        self.alu(libc::BPF_AND, 0x04);
        self.store(FLAGS);
        self.insn(libc::BPF_STX, BASE);
        // The length of the first extension header in words, if there is one: at most one is looked over.
        self.load(BYTE, 8 + 12);
        self.insn(libc::BPF_MISC | libc::BPF_TAX, 0);
        self.recall(FLAGS);
        self.insn(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_X, 0);
        self.insn(libc::BPF_LDX | libc::BPF_MEM, BASE);
        self.alu(libc::BPF_ADD, 8 + 12);
        self.advance_by_a();
        self.go(Label::Inner);
    }

    fn gre(&mut self) {
        self.place(Label::Gre);
        self.load(HALF, 0);
        self.when(libc::BPF_JSET, 0x4007, Label::Outer); // routing, or not version 0
        self.store(FLAGS);
        self.load(HALF, 2);
        self.store(PROTOCOL);
        self.advance(4);
        for field in [15, 13, 12] {
            self.flag_times(field, 4); // checksum, key and sequence number
        }
        self.recall(PROTOCOL);
        self.when_is([BRIDGING], Label::Ethernet);
        self.when_is([ERSPAN], Label::Erspan);
        self.when_is([IPV4, IPV6], Label::Inner);
        self.go(Label::Outer);
        // Type II has a header and a sequence number, type I neither.
        self.place(Label::Erspan);
        self.flag_times(12, 8);
        self.go(Label::Ethernet);
    }

    /// Goes to the IP header in the tunnel, or back to the outer one if there is none.
    fn inner(&mut self) {
        self.place(Label::Ethernet);
        self.load(HALF, 12);
        self.when_is(TAGS, Label::Tagged);
        self.advance(14);
        self.go(Label::Inner);
        self.place(Label::Tagged);
        self.advance(18);
        self.place(Label::Inner);
        self.version();
        self.when_is([4, 6], Label::Ip);
        self.place(Label::Outer);
        self.insn(libc::BPF_LDX | libc::BPF_MEM, OUTER);
    }

    fn hash(&mut self) {
        self.place(Label::Ip);
        self.insn(libc::BPF_STX, BASE);
        self.version();
        self.when_is([6], Label::V6);
        self.load(WORD, 12);
        self.store(HASH);
        self.mix(WORD, 16);
        self.load(HALF, 6);
        self.when(libc::BPF_JSET, 0x3fff, Label::Done); // only the first fragment has ports
        self.load(BYTE, 9);
        self.store(PROTOCOL);
        self.v4_header_len();
        self.advance_by_a();
        self.go(Label::Ports);

        self.place(Label::V6);
        self.load(WORD, 8);
        self.store(HASH);
        for at in (12..40).step_by(4) {
            self.mix(WORD, at);
        }
        self.load(BYTE, 6);
        self.store(PROTOCOL);
        self.advance(40);

        self.place(Label::Ports);
        self.recall(PROTOCOL);
        self.when_is([6, 17, 33, 132, 136], Label::HasPorts);
        self.go(Label::Done);
        self.place(Label::HasPorts);
        self.insn(libc::BPF_STX, BASE);
        self.mix(HALF, 0);
        self.mix(HALF, 2);

        self.place(Label::Done);
        self.recall(HASH);
        self.alu(libc::BPF_MUL, 0x9e37_79b1); // 2^32 divided by the golden ratio: spreads every bit upwards
        self.alu(libc::BPF_RSH, 16);
        self.insn(libc::BPF_RET | libc::BPF_A, 0);
    }
}

const fn jump(comparison: u32, k: u32) -> BpfInsn {
    BpfInsn { code: (libc::BPF_JMP | comparison | libc::BPF_K) as u16, jt: 0, jf: 1, k }
}

/// Instructions, and short sequences of them.
impl Assembler {
    fn new() -> Self {
        Self { insns: Vec::with_capacity(256), places: [0; LABELS], jumps: Vec::new() }
    }

    fn insn(&mut self, code: u32, k: u32) {
        self.insns.push(BpfInsn { code: code as u16, jt: 0, jf: 0, k });
    }

    /// Loads the number at an offset from X into A.
    fn load(&mut self, size: u32, at: u32) {
        self.insn(libc::BPF_LD | size | libc::BPF_IND, at);
    }

    fn version(&mut self) {
        self.load(BYTE, 0);
        self.alu(libc::BPF_RSH, 4);
    }

    fn v4_header_len(&mut self) {
        self.load(BYTE, 0);
        self.alu(libc::BPF_AND, 0x0f);
        self.alu(libc::BPF_LSH, 2);
    }

    /// Applies an operation to A and a constant.
    fn alu(&mut self, operation: u32, k: u32) {
        self.insn(libc::BPF_ALU | operation | libc::BPF_K, k);
    }

    fn advance(&mut self, bytes: u32) {
        self.insn(libc::BPF_LD | libc::BPF_IMM, bytes);
        self.advance_by_a();
    }

    fn advance_by_a(&mut self) {
        self.insn(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0);
        self.insn(libc::BPF_MISC | libc::BPF_TAX, 0);
    }

    /// Advances by that many bytes if the flag with this number is set; `bytes` is a power of two.
    fn flag_times(&mut self, flag: u32, bytes: u32) {
        self.recall(FLAGS);
        self.alu(libc::BPF_RSH, flag);
        self.alu(libc::BPF_AND, 1);
        self.alu(libc::BPF_LSH, bytes.ilog2());
        self.advance_by_a();
    }

    fn store(&mut self, cell: u32) {
        self.insn(libc::BPF_ST, cell);
    }

    fn recall(&mut self, cell: u32) {
        self.insn(libc::BPF_LD | libc::BPF_MEM, cell);
    }

    /// Adds the number at an offset from X, which is in [`BASE`], to the hash.
    fn mix(&mut self, size: u32, at: u32) {
        self.load(size, at);
        self.insn(libc::BPF_LDX | libc::BPF_MEM, HASH);
        self.insn(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0);
        self.store(HASH);
        self.insn(libc::BPF_LDX | libc::BPF_MEM, BASE);
    }

    fn go(&mut self, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.insn(libc::BPF_JMP | libc::BPF_JA, 0);
    }

    /// Jumps if the comparison of A holds.
    fn when(&mut self, comparison: u32, k: u32, to: Label) {
        self.insns.push(jump(comparison, k));
        self.go(to);
    }

    /// Jumps if A is one of the values.
    fn when_is<const N: usize>(&mut self, values: [u32; N], to: Label) {
        values.into_iter().for_each(|value| self.when(libc::BPF_JEQ, value, to));
    }

    /// Jumps if A is none of the values.
    fn unless<const N: usize>(&mut self, values: [u32; N], to: Label) {
        for (number, value) in values.into_iter().enumerate() {
            // Over the other comparisons and the jump.
            let over = (N - number) as u8;
            self.insns.push(BpfInsn { jt: over, jf: 0, ..jump(libc::BPF_JEQ, value) });
        }
        self.go(to);
    }

    fn place(&mut self, label: Label) {
        self.places[label as usize] = self.insns.len();
    }

    fn finish(mut self) -> Vec<BpfInsn> {
        for (at, label) in self.jumps {
            self.insns[at].k = (self.places[label as usize] - at - 1) as u32;
        }
        self.insns
    }
}
