//! Parsing, compiling and running filters, without a kernel.

use super::*;
use crate::error::ProgramFault;

fn error(text: &str) -> FilterError {
    match BpfFilter::parse(text) {
        Err(error) => error,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn every_kind_of_syntax_error_says_where_and_what_was_expected() {
    let cases: &[(&str, usize, &str)] = &[
        ("tcp port", 8, "a port"),
        ("tcp port 70000", 9, "0 to 65535"),
        ("port nowhere", 5, "no `nowhere` is known"),
        ("udp port ftp", 9, "is none"),
        ("icmp port 7", 10, "`tcp`, `udp` or `sctp`"),
        ("host", 4, "an address"),
        ("host example.com", 5, "knows no host"),
        ("host 1.2.3.400", 5, "below 256"),
        ("host 1.2.3.4/24", 12, "`net` before"),
        ("net 10.0.0.0/33", 13, "at most 32 bits"),
        ("net 10.0.0.1/8", 13, "bits behind the mask"),
        ("net 2001:db8::/129", 15, "at most 128 bits"),
        ("net 2001:db8::1/32", 16, "bits behind the prefix"),
        ("net 10.0.0.0 mask 8", 18, "a mask"),
        ("tcp host 1.2.3.4", 9, "no transport protocol"),
        ("ether host 1.2.3.4", 11, "a MAC address"),
        ("host 02:00:00:00:00:01", 5, "`ether` before"),
        ("ip host ::1", 8, "an IPv4 address"),
        ("ip6 host 1.2.3.4", 9, "an IPv6 address"),
        ("src proto 6", 4, "no direction"),
        ("ip proto 256", 9, "0 to 255"),
        ("ip proto nothing", 9, "no `nothing` is known"),
        ("ether proto 1500", 12, "1501 to 65535"),
        ("vlan 5000", 5, "0 to 4095"),
        ("greater", 7, "a length"),
        ("arp protochain 6", 15, "`ip` or `ip6` before `protochain`"),
        ("ether protochain 6", 17, "`ip` or `ip6` before `protochain`"),
        ("tcp proto 6", 10, "`ether`, `ip` or `ip6` before `proto`"),
        ("net example", 4, "knows no network"),
        ("gateway foo", 8, "MAC address is known"),
        ("ip6 gateway foo", 12, "`ip`, `arp`"),
        ("ether gateway foo", 14, "`ip`, `arp`"),
        ("ether host foo", 11, "a MAC address"),
        ("ifname eth0", 7, "an interface"),
        ("ifname", 6, "the name"),
        ("ip broadcast", 3, "without the network's mask"),
        ("geneve 16777216", 7, "0 to 16777215"),
        ("isis proto 32", 11, "0 to 31"),
        ("isis proto lsp", 11, "`lsp`, stand alone"),
        ("iso proto foo", 10, "known here"),
        ("decnet host 1.2", 7, "no addresses of DECnet"),
        ("byte 3", 6, "`=`"),
        ("byte 3 = 256", 9, "below 256"),
        ("80", 0, "a qualifier"),
        ("frob 1", 0, "`frob` is not known"),
        ("(tcp", 4, "`)`"),
        ("tcp)", 3, "`and`, `or`"),
        ("tcp and", 7, "a condition"),
        ("not", 3, "a condition"),
        ("tcp udp", 4, "`and`, `or`"),
        ("tcp[13", 6, "`]`"),
        ("tcp[0:3] = 1", 6, "1, 2 or 4 bytes"),
        ("tcp[0]", 6, "a comparison"),
        ("ip[0] / 0 = 1", 8, "not 0"),
        ("ip[0] << 32 = 1", 9, "at most 31"),
        ("ah[0] = 1", 2, "no offsets"),
        ("len + len", 9, "a comparison"),
        ("len + - = 3", 8, "a number"),
        ("port 08", 5, "digits 0 to 7"),
        ("ether[0] = 99999999999", 11, "at most 32 bits"),
        ("tcp ; udp", 4, "an operator"),
        ("héllo", 1, "an operator"),
        ("port 80 or vlan 1 or 81", 21, "a qualifier"),
    ];
    for (text, position, expected) in cases {
        let error = error(text);
        assert_eq!(error.position(), Some(*position), "{text}: {error}");
        assert!(error.expected().contains(expected), "{text}: {error}");
        let shown = error.to_string();
        let caret = shown.lines().last().unwrap();
        let column = text[..*position].chars().count();
        assert_eq!(caret.find('^'), Some(2 + column), "{shown}");
    }
    // Errors found after parsing have no position.
    for (text, expected) in [
        ("vlan and inbound and mpls and arp", "behind `mpls`"),
        ("pppoes and llc", "filter: no `llc` behind `pppoes`"),
        ("pppoes and mpls and iso", "filter: no protocol but `ip` and `ip6` behind `mpls`"),
        ("pppoes and mpls and stp", "filter: no protocol but"),
        ("ip[0x10000] = 1", "inside of a packet"),
        ("ether[5 - 8] = 1", "inside of a packet"),
        ("len / (1-1) = 1", "not 0"),
        ("len % -0 = 1", "not 0"),
        ("1 / (2-2) = 1", "not 0"),
        ("len << (16+16) = 1", "at most 31"),
    ] {
        let error = error(text);
        assert!(error.position().is_none() && error.to_string().contains(expected), "{error}");
    }
    assert!(error("geneve or tcp").to_string().starts_with("filter: no condition behind `geneve`"));
    let shown = error("tcp and\u{202e}\n").to_string();
    assert!(!shown.contains('\u{202e}'), "{shown}");
    assert!(error("tcp and\n").to_string().ends_with("\n  tcp and\n         ^"));
}

#[test]
fn long_words_and_signs_take_no_longer_than_they_are() {
    for piece in ["-", ":", "!", "1:", "(", "a", "1-", "1.", "::", "\\", "[", "0x", "=", "\t"] {
        let text = piece.repeat((64 << 10) / piece.len());
        // Either an error, or blanks, which match all packets. A scan back for each word would take half a
        // minute.
        assert!(BpfFilter::parse(&text).is_err() || piece == "\t");
    }
}

#[test]
fn neither_depth_nor_length_is_without_bounds() {
    let nested = format!("{}tcp{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(error(&nested).expected().contains("levels of nesting"));
    assert!(error(&"not ".repeat(10_000)).expected().contains("levels of nesting"));
    let minus = format!("len = {}1", "-".repeat(10_000));
    assert!(error(&minus).expected().contains("levels of nesting"));
    let brackets = format!("{}0{} = 0", "ip[".repeat(5_000), "]".repeat(5_000));
    assert!(error(&brackets).expected().contains("levels of nesting"));
    assert!(error(&"tcp or ".repeat(150_000)).expected().contains("64 KiB"));
    let many = vec!["ip[0] = 1"; 4_500].join(" or ");
    assert!(error(&many).expected().contains("4096 conditions"));
    // Alternating operators, so that each term is nested in the next.
    let spine = |changes: usize| {
        let terms = (0..changes).map(|at| format!("len = {at} {} ", ["or", "and"][at % 2]));
        format!("{}tcp", terms.collect::<String>())
    };
    BpfFilter::parse(&spine(190)).unwrap();
    assert!(error(&spine(3_000)).expected().contains("levels of nesting"));
    let sum = |count: usize| format!("len = {}1", "1 + ".repeat(count));
    BpfFilter::parse(&sum(150)).unwrap();
    assert!(error(&sum(3_000)).expected().contains("operations in a comparison"));
    let deep = (0..17).map(|at| format!("ip[{at}] + ")).collect::<String>();
    BpfFilter::parse(&format!("{deep}ip[17] = 5")).unwrap();
    // Every other port, as neighbours become one range.
    let ports = |count| (0..count).map(|port| format!("port {}", 2 * port)).collect::<Vec<_>>();
    BpfFilter::parse(&ports(450).join(" or ")).unwrap();
    let refused = error(&ports(4_096).join(" or ")).to_string();
    assert!(refused.starts_with("filter: no program of "), "{refused}");
    assert!(error(&ports(4_096).join(" or ")).expected().contains("the kernel takes 4096"));
    assert!(error(&ports(4_097).join(" or ")).expected().contains("4096 conditions"));
    let build = |builder: BpfFilterBuilder| builder.build().unwrap_err().to_string();
    assert!(build(BpfFilter::builder().ports(0..65_535)).contains("4096 conditions"));
    let chain = (0..10_000)
        .fold(BpfFilter::builder().tcp(), |inner, _| BpfFilter::builder().udp().or(move |_| inner));
    assert!(build(chain).contains("one in another"));
    let long = (0..2_100).map(|at| format!("ether[{at}] = 1 or ")).collect::<String>();
    assert!(error(&format!("{long}tcp")).expected().contains("the kernel takes 4096"));
}

#[test]
fn what_asks_for_far_too_many_tests_is_refused_before_they_are_made() {
    for tunnel in ["geneve", "vxlan"] {
        for count in [8, 25, 3_000] {
            let many = vec![tunnel; count].join(" and ");
            assert!(error(&many).expected().contains("tunnels so deep"), "{many}");
        }
    }
    for most in [["geneve"; 3].join(" and "), ["vxlan"; 6].join(" and ")] {
        BpfFilter::parse(&most).unwrap();
    }
    let chains = vec!["protochain 6"; 3_000].join(" or ");
    let ports: Vec<String> = (0..3_500).map(|port| format!("src port {port} or ip")).collect();
    for text in [
        chains.clone(),
        chains.replace("or", "and not"),
        format!("vlan and ({chains})"),
        format!("geneve and ({chains})"),
        format!("geneve and geneve and geneve and ({})", ports[..2_000].join(" or ")),
    ] {
        let expr = parse::parse(&text, &NoNames).unwrap();
        let lowered = lower::lower(&expr, LinkType::ETHERNET, FilterTarget::Offline, false);
        assert!(lowered.unwrap_err().expected().contains("values and more"), "{}", &text[..40]);
    }
    // Nor does it take many tests, if each computes much.
    let deep = format!("{}0{} = 1", "ether[".repeat(55), "]".repeat(55));
    let deep = format!("{} and ({})", ["geneve"; 3].join(" and "), vec![deep; 100].join(" or "));
    assert!(error(&deep).expected().contains("values and more"));
    let chains = format!("{} and (protochain 5 or 6 or 7)", ["vxlan"; 5].join(" and "));
    assert!(error(&chains).expected().contains("values and more"));
    // Those that a graph has no room for are not made either.
    assert!(error(&["tcp"; 2_900].join(" or ")).expected().contains("16385 tests"));
}

#[test]
fn jumps_beyond_255_instructions_lead_where_they_should() {
    let text: Vec<String> = (0..700).map(|at| format!("ether[{}] = {}", at, at % 7)).collect();
    let all = BpfFilter::parse(&format!("not ({})", text.join(" or "))).unwrap();
    let mut frame = vec![9; 800];
    assert!(all.matches(&frame), "none of them");
    for at in [0, 1, 350, 698, 699] {
        frame[at] = (at % 7) as u8;
        assert!(!all.matches(&frame), "{at}");
        frame[at] = 9;
    }
    let every = BpfFilter::parse(&text.join(" and ")).unwrap();
    let mut frame: Vec<u8> = (0..700).map(|at| (at % 7) as u8).collect();
    assert!(every.matches(&frame));
    frame[699] = 9;
    assert!(!every.matches(&frame));
}

#[test]
fn offsets_that_are_computed_lead_to_their_bytes() {
    // An IPv4 header of 24 bytes, so that the TCP header begins at 38; each byte holds its own position.
    let mut frame: Vec<u8> = (0..80).collect();
    frame[12..15].copy_from_slice(&[8, 0, 0x46]);
    frame[20..22].fill(0);
    frame[23] = 6;
    frame[47] = 3;
    for (text, meant) in [
        ("tcp[5] = 43", true),
        ("tcp[5] = 39", false),
        ("tcp[ip[3]] = 55", true),  // ip[3] is 17
        ("tcp[ip[3]] = 51", false), // without options
        ("tcp[tcp[9]] = 41", true),
        ("tcp[tcp[9] + 1:2] = 0x2a2b", true),
        ("tcp[tcp[9] + tcp[9]] = tcp[6]", true),
        ("ip[tcp[9]] = 17", true),
        ("ip[tcp[9]] = tcp[ip[3]]", false),
        ("ip[ip[3]] = tcp[ip[3]] - 24", true), // 31 and 55
        ("ether[tcp[9] + ip[3] - 2:4] = 0x12130000", true),
        ("tcp[5] - tcp[4] = 1", true),
        ("tcp[4] - tcp[5] = 1", false),
        ("tcp[4] << tcp[9] = 336", true),
        ("tcp[5] / tcp[9] = 14", true),
        ("tcp[9] / tcp[5] = 14", false),
        ("1 << tcp[9] = 8", true),
        ("tcp[9] << 1 = 2", false),
        ("-tcp[9] + 4 = 1", true),
        ("len = 80", true),
        ("len - tcp[9] = 76", false),
    ] {
        assert_eq!(BpfFilter::parse(text).unwrap().matches(&frame), meant, "{text}");
    }
    // Two paths to the last test leave different values in A or in X.
    for (text, meant) in [
        ("(ether[40] > ether[41] or ether[3] = 3) and ether[40] < 20", false),
        ("(tcp[0] = 1 or ip[tcp[9]] = 17) and tcp[4] = 42", true),
    ] {
        assert_eq!(BpfFilter::parse(text).unwrap().matches(&frame), meant, "{text}");
    }
    // Deep enough that the left side is computed first.
    let deep = format!("tcp[5]{} = 7", " - tcp[9]".repeat(12));
    assert!(BpfFilter::parse(&deep).unwrap().matches(&frame));
    assert!(!BpfFilter::parse(&deep.replace('7', "8")).unwrap().matches(&frame));
}

#[test]
fn arithmetic_has_sixteen_cells_for_intermediate_results() {
    // link[20] - (link[21] - (… - link[20 + depth])): a cell for each.
    let mut frame = [0_u8; 60];
    for (byte, value) in frame[20..].iter_mut().zip(1_u32..) {
        *byte = (value * 37 % 251) as u8;
    }
    let nested = |depth: usize| {
        let (mut text, mut value) = (format!("link[{}]", 20 + depth), u32::from(frame[20 + depth]));
        for at in (20..20 + depth).rev() {
            text = format!("link[{at}] - ({text})");
            value = u32::from(frame[at]).wrapping_sub(value);
        }
        (text, value)
    };
    for depth in 1..=16 {
        let (text, value) = nested(depth);
        let matches = |text: String| BpfFilter::parse(&text).unwrap().matches(&frame);
        assert!(matches(format!("{text} = {value}")), "{depth}");
        assert!(!matches(format!("{text} = {}", value.wrapping_add(1))), "{depth}");
    }
    let (text, _) = nested(17);
    assert!(error(&format!("{text} = 1")).to_string().contains("16 intermediate results"));
}

#[test]
fn the_builder_says_the_same_as_the_text() {
    use std::net::Ipv4Addr;
    let builder = BpfFilter::builder;
    let host = Ipv4Addr::new(10, 1, 2, 3);
    let pairs = [
        (builder(), ""),
        (builder().tcp().dst_port(443), "tcp and tcp dst port 443"),
        (builder().ipv4().src_host(host), "ip and ip src host 10.1.2.3"),
        (builder().net(host, 8), "ip net 10.0.0.0/8"),
        (builder().udp().ports([53, 5353]), "udp and (udp port 53 or udp port 5353)"),
        (builder().vlan_id(7).arp(), "vlan 7 and arp"),
        (builder().udp().or(|b| b.arp()).negate(), "not (udp or arp)"),
        (builder().eth_type(0x88cc).negate(), "not ether proto 0x88cc"),
        (builder().icmp().or(|b| b.ipv6().ip_proto(58)), "ip proto 1 or (ip6 and proto 58)"),
        (builder().host([0xfe80, 0, 0, 0, 0, 0, 0, 1]), "ip6 host fe80::1"),
        (builder().dst_host(host), "ip dst host 10.1.2.3"),
        (builder().src_net(host, 16), "ip src net 10.1.0.0/16"),
        (builder().dst_net(host, 16), "ip dst net 10.1.0.0/16"),
        (builder().udp().src_port(53), "udp and udp src port 53"),
        (builder().port(53), "port 53"),
        (builder().udp().port(53), "udp and udp port 53"),
        (builder().vlan().udp(), "vlan and udp"),
        (builder().vlan_id(4095), "vlan 4095"),
    ];
    for (builder, text) in pairs {
        let (built, parsed) = (builder.build().unwrap(), BpfFilter::parse(text).unwrap());
        for target in [FilterTarget::Socket, FilterTarget::Offline] {
            let [built, parsed] =
                [&built, &parsed].map(|filter| Listing(filter.program(target)).to_string());
            assert_eq!(built, parsed, "{text}");
        }
    }
    let only = builder().or(|b| b.udp()).build().unwrap();
    assert_eq!(
        only.program(FilterTarget::Offline),
        BpfFilter::parse("udp").unwrap().program(FilterTarget::Offline)
    );
    let wrong = |builder: BpfFilterBuilder| builder.build().unwrap_err().to_string();
    assert!(wrong(builder().vlan_id(4096)).contains("0 to 4095"));
    let many = |count| (0..count).fold(builder(), |builder, _| builder.udp());
    let is_about_conditions = |error: &FilterError| error.to_string().contains("conditions");
    assert!(!many(4096).build().as_ref().is_err_and(is_about_conditions));
    assert!(wrong(many(4097)).contains("at most 4096 conditions"));
    assert!(wrong(builder().net(host, 40)).contains("at most 32 bits"));
    assert!(wrong(builder().tcp().or(|b| b)).contains("at least one term"));
    assert!(wrong(builder().ports([])).contains("at least one port"));
    assert!(wrong(builder().ipv4().arp()).contains("never do"));
    assert!(wrong(builder().or(|b| b.net(host, 99))).contains("at most 32 bits"));
}

#[test]
fn a_program_is_shown_and_read_as_tcpdump_does() {
    let filter = BpfFilter::parse("ip and tcp port 443").unwrap();
    let text = filter.disassembly(FilterTarget::Socket);
    assert!(
        text.starts_with("(000) ldh      [12]\n(001) jeq      #0x800           jt 2\tjf "),
        "{text}"
    );
    assert!(text.contains("ldxb     4*([14]&0xf)") && text.contains("ldh      [x + 14]"), "{text}");
    assert!(text.ends_with("ret      #0"), "{text}");
    let rows: String = filter
        .program(FilterTarget::Socket)
        .iter()
        .map(|i| format!("{{ 0x{:x}, {}, {}, 0x{:08x} }},\n", i.code, i.jt, i.jf, i.k))
        .collect();
    let read = BpfFilter::from_listing(&rows).unwrap();
    assert_eq!(read.program(FilterTarget::Offline), filter.program(FilterTarget::Socket));
    assert!(BpfFilter::from_listing("1\n6 0 0 65535\n").unwrap().matches(&[]));
    for wrong in ["{ 1, 2 }", "6 0 0", "a b c d", "6 0 300 0"] {
        assert!(matches!(BpfFilter::from_listing(wrong), Err(ListingError::Text(_))), "{wrong}");
    }
    assert!(matches!(
        BpfFilter::from_listing(""),
        Err(ListingError::Program(ProgramFault::Length { .. }))
    ));
}

#[test]
fn a_raw_program_is_refused_with_the_reason() {
    let insn = |code, jt, jf, k| BpfInsn { code, jt, jf, k };
    let end = insn(6, 0, 0, 1);
    let cases: &[(&[BpfInsn], ProgramFault)] = &[
        (&[], ProgramFault::Length { instructions: 0 }),
        (&[end; 4097], ProgramFault::Length { instructions: 4097 }),
        (&[insn(0x20, 0, 0, 0)], ProgramFault::NoReturn),
        (&[insn(0xff, 0, 0, 0), end], ProgramFault::Unknown { at: 0, code: 0xff }),
        (&[insn(0x15, 1, 0, 0), end], ProgramFault::JumpOut { at: 0 }),
        (&[insn(0x05, 0, 0, 1), end], ProgramFault::JumpOut { at: 0 }),
        (&[insn(0x34, 0, 0, 0), end], ProgramFault::DivisionByZero { at: 0 }),
        (&[insn(0x64, 0, 0, 32), end], ProgramFault::Shift { at: 0 }),
        (&[insn(0x02, 0, 0, 16), end], ProgramFault::NoSuchCell { at: 0 }),
        (&[insn(0x60, 0, 0, 3), end], ProgramFault::UnsetCell { at: 0 }),
        (&[insn(0x20, 0, 0, 0xffff_f001), end], ProgramFault::UnknownAncillary { at: 0 }),
    ];
    for (program, fault) in cases {
        match BpfFilter::new(program.to_vec()) {
            Err(found) => assert_eq!(found, *fault),
            other => panic!("{fault}: {other:?}"),
        }
    }
}

#[test]
fn any_program_that_is_taken_ends_on_any_bytes() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 16
    };
    let rounds = if cfg!(miri) { 300 } else { 60_000 };
    let mut run = 0;
    for _ in 0..rounds {
        let len = 1 + roll() % 8;
        let mut program: Vec<BpfInsn> = (0..len)
            .map(|_| BpfInsn {
                code: (roll() % 0xb8) as u16,
                jt: (roll() % 4) as u8,
                jf: (roll() % 4) as u8,
                k: if roll() % 3 == 0 { roll() as u32 } else { (roll() % 20) as u32 },
            })
            .collect();
        program.push(BpfInsn { code: 0x16, jt: 0, jf: 0, k: 0 });
        let Ok(filter) = BpfFilter::new(program) else { continue };
        let frame: Vec<u8> = (0..roll() % 40).map(|_| roll() as u8).collect();
        filter.matches(&frame);
        filter.matches_with(
            &frame,
            &Ancillary { wire_len: Some(roll() as u32), ..Ancillary::default() },
        );
        run += 1;
    }
    assert!(run > rounds / 50, "{run}");
}

#[test]
fn links_of_other_kinds_have_their_own_offsets() {
    let tcp = BpfFilter::parse("tcp dst port 80").unwrap();
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.extend([0x30, 0x39, 0, 80]);
    let with = |header: &[u8]| [header, &packet].concat();
    let cases: &[(LinkType, &[u8])] = &[
        (LinkType::ETHERNET, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0]),
        (LinkType::RAW, &[]),
        (LinkType::NULL, &2_u32.to_ne_bytes()),
        (LinkType::LINUX_SLL, &[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0]),
        (LinkType::LINUX_SLL2, &[8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (link, header) in cases {
        let filter = tcp.for_link(*link).unwrap();
        assert!(filter.matches(&with(header)), "{link:?}");
        let mut other = with(header);
        *other.last_mut().unwrap() = 81;
        assert!(!filter.matches(&other), "{link:?}");
    }
    let vlan = BpfFilter::parse("vlan").unwrap();
    assert!(vlan.for_link(LinkType::RAW).unwrap_err().to_string().contains("no `vlan`"));
    assert!(tcp.for_link(LinkType(253)).unwrap_err().to_string().contains("253"));
    assert!(BpfFilter::new([BpfInsn::ret(1)]).unwrap().for_link(LinkType::RAW).is_err());
}

#[test]
fn what_a_filter_says_may_be_parsed_again_and_says_the_same() {
    let cases = [
        ("", "0 = 0"),
        ("port 80 or 443", "port 80 or port 443"),
        ("tcp src and dst portrange 20-10", "tcp src and dst portrange 10-20"),
        ("net 10 and not (ip6 host ::1 or arp)", "net 10.0.0.0/8 and not (ip6 host ::1 or arp)"),
        ("net 10.0.0.0 mask 255.0.0.255", "net 10.0.0.0 mask 255.0.0.255"),
        ("src net 2001:db8::/32", "src net 2001:db8::/32"),
        ("ip proto udp or proto 6", "ip proto 17 or proto 6"),
        (
            "ether proto arp or ether src 2:0:0:0:0:1",
            "ether proto 0x0806 or ether src host 02:00:00:00:00:01",
        ),
        ("vlan 5 and pppoes 7 and mpls", "vlan 5 and pppoes 7 and mpls"),
        ("tcp[tcpflags] & (tcp-syn|tcp-ack) != 0", "tcp[13] & (2 | 16) != 0"),
        ("ip[2:2] - -len >> 2 <= ip6[0:4]", "(ip[2:2] - (-len)) >> 2 <= ip6[0:4]"),
        ("greater 5 and less 9 and broadcast", "greater 5 and less 9 and broadcast"),
        ("(arp or ip6) and port 5", "(arp or ip6) and port 5"),
        ("arp or ip6 and port 5 or rarp", "(arp or ip6) and port 5 or rarp"),
        ("rarp or (arp or ip6 and port 5)", "rarp or ((arp or ip6) and port 5)"),
        (
            "ip multicast or ip6 multicast or multicast",
            "ip multicast or ip6 multicast or multicast",
        ),
    ];
    for (text, said) in cases {
        let filter = BpfFilter::parse(text).unwrap();
        assert_eq!(filter.to_string(), said);
        let again = BpfFilter::parse(said).unwrap();
        assert_eq!(again.to_string(), said);
        assert_eq!(
            again.program(FilterTarget::Socket),
            filter.program(FilterTarget::Socket),
            "{text}"
        );
    }
    let terms = (0..190).map(|at| format!("len = {at} {} ", ["or", "and"][at % 2]));
    let alternating = BpfFilter::parse(&format!("{}tcp", terms.collect::<String>())).unwrap();
    let again = BpfFilter::parse(&alternating.to_string()).unwrap();
    assert_eq!(again, BpfFilter { text: again.text.clone(), ..alternating });
    let built = BpfFilter::builder().eth_type(0x88cc).or(|b| b.udp().negate()).build().unwrap();
    assert_eq!(built.to_string(), "ether proto 0x88cc or not udp");
    let raw = BpfFilter::new([BpfInsn::ret(1)]).unwrap();
    assert_eq!(raw.to_string(), "(000) ret      #1");
}

#[test]
fn a_transparent_filter_takes_the_same_packets_behind_tags() {
    let (tag, provider) = ([0x81, 0, 0, 5], [0x88, 0xa8, 0x60, 7]);
    let mut plain = vec![0; 12];
    plain.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    plain.extend([0x30, 0x39, 0, 80]);
    plain.resize(60, 0);
    let behind = |tags: &[[u8; 4]]| {
        let mut frame = plain.clone();
        frame.splice(12..12, tags.concat());
        frame
    };
    let once = [behind(&[tag]), behind(&[provider])];
    let twice = behind(&[provider, tag]);
    for (text, is_meant) in
        [("tcp dst port 80", true), ("not tcp port 80", false), ("not arp", true)]
    {
        let filter = BpfFilter::parse(text).unwrap().vlan_transparent().unwrap();
        for frame in once.iter().chain([&plain, &twice]) {
            assert_eq!(filter.matches(frame), is_meant, "{text}");
        }
        // The kernel has moved the outer tag to the metadata.
        for frame in once.iter().chain([&plain]) {
            assert_eq!(filter.matches_with(frame, &Ancillary::default()), is_meant, "{text}");
        }
        assert_eq!(filter.to_string(), BpfFilter::parse(text).unwrap().to_string());
    }
    assert!(!BpfFilter::parse("tcp dst port 80").unwrap().matches(&once[0]));
    let tagged = BpfFilter::parse("not (tcp or vlan 7)").unwrap();
    assert!(tagged.vlan_transparent().unwrap_err().to_string().contains("`vlan`"));
    assert!(BpfFilter::new([BpfInsn::ret(1)]).unwrap().vlan_transparent().is_err());
    let put_back = |filter: &BpfFilter| filter.matches_with(&once[0], &Ancillary::default());
    assert!(
        put_back(&BpfFilter::parse("vlan 5 and tcp").unwrap()),
        "a tag in the bytes of a socket's frame"
    );
    assert!(!put_back(&BpfFilter::parse("vlan 6 and tcp").unwrap()));
    // An 802.11 data frame that an access point sends, a SNAP header, a tag, IPv4 with TCP.
    let tcp = [&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0][..], &[0; 28]].concat();
    let header = [&[0x08, 0x02][..], &[0; 22], &[0xaa, 0xaa, 3, 0, 0, 0]].concat();
    let wireless = BpfFilter::parse("tcp").unwrap().vlan_transparent().unwrap();
    let wireless = wireless.on(Some(LinkType::IEEE802_11)).unwrap();
    let only_untagged = BpfFilter::parse("tcp").unwrap().on(Some(LinkType::IEEE802_11)).unwrap();
    let untagged = [&header[..], &[8, 0], &tcp].concat();
    let tagged = [&header[..], &[0x81, 0, 0, 5, 8, 0], &tcp].concat();
    assert!(wireless.matches(&untagged) && wireless.matches(&tagged));
    assert!(only_untagged.matches(&untagged) && !only_untagged.matches(&tagged));
    let raw = BpfFilter::parse("tcp").unwrap().vlan_transparent().unwrap();
    assert!(raw.for_link(LinkType::RAW).unwrap().matches(&plain[14..]));
    let other_way_round = BpfFilter::parse("tcp").unwrap().for_link(LinkType::RAW).unwrap();
    assert!(other_way_round.vlan_transparent().unwrap().matches(&plain[14..]));
}

#[test]
fn alternatives_of_a_builder_move_nothing_in_each_other() {
    let arp = [[0; 12].as_slice(), &[8, 6], &[0; 46]].concat();
    let filter = BpfFilter::builder().vlan().udp().or(|b| b.arp()).build().unwrap();
    assert!(filter.matches(&arp));
    assert!(filter.matches_with(&arp, &Ancillary::default()));
}

#[test]
fn what_only_the_kernel_knows_is_not_asked_for_offline() {
    let filter = BpfFilter::parse("inbound or arp").unwrap();
    let fault = filter.check_offline().unwrap_err().to_string();
    assert!(fault.starts_with("filter: no `inbound`") && fault.contains("which way it went"));
    let fault = BpfFilter::parse("ifindex 3").unwrap().check_offline().unwrap_err().to_string();
    assert!(fault.starts_with("filter: no `ifindex`"), "{fault}");
    assert!(!filter.matches(&[0; 60]));
    filter.for_link(LinkType::LINUX_SLL).unwrap().check_offline().unwrap();
    BpfFilter::parse("arp").unwrap().check_offline().unwrap();
}

#[test]
fn what_is_beside_a_packet_is_read_as_the_kernel_does() {
    let insn = |code, k| BpfInsn { code, jt: 0, jf: 0, k };
    let run = |program: &[BpfInsn]| {
        let mut frame = vec![0; 60];
        frame[14 + 9] = 17;
        BpfFilter::new(program).unwrap().matches_with(&frame, &Ancillary::default())
    };
    let is = |k| BpfInsn { code: 0x15, jt: 1, jf: 0, k };
    let (no, yes) = (insn(6, 0), insn(6, 1));
    assert!(run(&[insn(0x30, 0xfff0_0009), is(17), no, yes]), "from the network layer on");
    assert!(run(&[insn(0x30, 0xffe0_0017), is(17), no, yes]), "from the link layer on");
    // A ^ X, addressed by an offset.
    assert!(run(&[insn(0, 6), insn(1, 3), insn(0x20, 0xffff_f028), is(5), no, yes]));
}
