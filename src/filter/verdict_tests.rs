//! What filters say of frames: by link type, side, tag, direction, and when they are cut.

use super::*;

/// An Ethernet frame with an IPv4 packet of this protocol.
fn ipv4(protocol: u8) -> Vec<u8> {
    let mut frame = vec![0; 60];
    (frame[12], frame[14], frame[23]) = (8, 0x45, protocol);
    frame
}

#[test]
fn a_frame_is_judged_by_its_own_link_type_and_filters_stay_equal() {
    let (udp, tcp) = (ipv4(17), ipv4(6));
    let filter = BpfFilter::parse("udp").unwrap();
    let known = Ancillary::default();
    let on = |link, frame: &[u8]| filter.matches_on(link, frame, &known);
    let (ethernet, raw) = (Some(LinkType::ETHERNET), Some(LinkType::RAW));
    assert_eq!([on(ethernet, &udp), on(ethernet, &tcp)], [true, false]);
    assert_eq!([on(raw, &udp[14..]), on(raw, &tcp[14..])], [true, false]);
    assert_eq!([on(raw, &udp), on(ethernet, &udp[14..])], [false, false]);
    let monitor = Some(LinkType(105));
    assert!(!on(monitor, &udp), "where its header ends is not known");
    assert_eq!(
        [on(Some(LinkType::RAW_BSD), &udp[14..]), on(Some(LinkType::RAW_BSD), &udp)],
        [true, false]
    );
    for any in ["", "greater 10"] {
        assert!(BpfFilter::parse(any).unwrap().matches_on(monitor, &udp, &known), "{any}");
    }
    // What says nothing of the link's header can be asked of any.
    let long = BpfFilter::parse("greater 50").unwrap();
    assert!(long.matches_on(None, &udp, &known) && !long.matches_on(None, &udp[20..], &known));
    assert!(long.matches_offline(&udp[20..], &Ancillary::of_len(50)), "50 bytes on the wire");
    assert!(!long.matches_offline(&udp, &Ancillary::of_len(49)));
    let compiled = |link| filter.on(link).unwrap();
    assert_eq!([compiled(raw).matches(&udp[14..]), compiled(ethernet).matches(&udp)], [true; 2]);
    assert_eq!(filter.on(None).unwrap_err().position(), None, "`udp` looks at the link's header");
    let ready = BpfFilter::new([BpfInsn::ret(20)]).unwrap();
    assert_eq!(ready.on(raw).unwrap(), ready);
    assert_eq!(filter, BpfFilter::parse("udp").unwrap(), "though one has been used elsewhere");
    assert_ne!(filter, long);
}

#[test]
fn a_program_is_cut_and_made_to_return_a_value_where_it_accepts() {
    let filter = BpfFilter::parse("udp").unwrap();
    let returns = |program: &[BpfInsn]| {
        let returns = program.iter().filter(|insn| insn.code == 6).map(|insn| insn.k);
        let mut returns: Vec<u32> = returns.collect();
        returns.sort_unstable();
        returns
    };
    assert_eq!(returns(filter.program(FilterTarget::Socket)), [0, u32::MAX]);
    assert_eq!(returns(&filter.cut_to(96)), [0, 96]);
    assert_eq!(returns(&filter.program_returning(1)), [0, 1]);
    assert_eq!(filter.cut_to(96).len(), filter.program(FilterTarget::Socket).len());
    let shorter = BpfFilter::new([BpfInsn::ret(20)]).unwrap();
    assert_eq!(returns(&shorter.cut_to(96)), [20], "what accepts less goes on doing so");
    // `ld [0]; jeq #7; ret a; ret a`: as many bytes as the frame's first word says.
    let insn = |code, jt, jf, k| BpfInsn { code, jt, jf, k };
    let by_length =
        [insn(0x20, 0, 0, 0), insn(0x15, 0, 1, 7), insn(0x16, 0, 0, 0), insn(0x16, 0, 0, 0)];
    let by_length = BpfFilter::new(by_length).unwrap();
    let accepted = |program: Vec<BpfInsn>, word: u32| {
        BpfFilter::new(program.clone()).expect("the kernel takes it");
        vm::run(&program, &[&word.to_be_bytes()[..], &[0; 60]].concat(), &Ancillary::default())
    };
    for (word, cut, value) in [(0, 0, 0), (7, 7, 1), (95, 95, 1), (97, 96, 1), (u32::MAX, 96, 1)] {
        assert_eq!(accepted(by_length.cut_to(96), word), cut);
        assert_eq!(accepted(by_length.program_returning(1), word), value);
    }
}

#[test]
fn a_tag_is_in_the_bytes_offline_and_beside_them_on_a_socket() {
    let plain = ipv4(17);
    let tagged = [&plain[..12], &[0x81, 0, 0, 5], &plain[12..]].concat();
    let filter = BpfFilter::parse("vlan 5 and udp").unwrap();
    assert_eq!([filter.matches(&tagged), filter.matches(&plain)], [true, false]);
    let tag = |tci| Some(VlanTag { tci, tpid: 0x8100 });
    let beside = |vlan| filter.matches_with(&plain, &Ancillary { vlan, ..Ancillary::default() });
    assert_eq!([beside(tag(5)), beside(tag(6)), beside(None)], [true, false, false]);
    let through = BpfFilter::parse(" udp ").unwrap().vlan_transparent().unwrap();
    assert_eq!(through.text(), Some("udp"));
    assert_eq!(through.for_link(LinkType::RAW).unwrap().text(), Some("udp"));
}

/// A TCP or UDP packet of IPv4 from and to these hosts (the last byte of 10.0.0.0/24) and ports.
fn between(protocol: u8, hosts: [u8; 2], ports: [u16; 2]) -> Vec<u8> {
    let mut frame = ipv4(protocol);
    (frame[26], frame[29], frame[30], frame[33]) = (10, hosts[0], 10, hosts[1]);
    frame[34..36].copy_from_slice(&ports[0].to_be_bytes());
    frame[36..38].copy_from_slice(&ports[1].to_be_bytes());
    frame
}

#[test]
fn alternatives_that_share_a_side_or_not_take_what_each_would_take() {
    let sides: Vec<(&str, [usize; 2])> = vec![("src", [0, 0]), ("dst", [1, 1]), ("", [0, 1])];
    for (one, of_one) in &sides {
        for (other, of_other) in &sides {
            let filter = |what: &str, a: &str, b: &str| {
                let text = format!("{one} {what} {a} or {other} {what} {b}");
                BpfFilter::parse(&text).unwrap_or_else(|error| panic!("{error}"))
            };
            let hosts = filter("host", "10.0.0.1", "10.0.0.2");
            let ports = filter("port", "1", "2");
            let ranges = filter("portrange", "1-1", "2-3");
            for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
                let has = |sides: &[usize; 2], number: u8| {
                    sides.iter().any(|&at| [from, to][at] == number)
                };
                let frame = between(17, [from, to], [from.into(), to.into()]);
                let expected = has(of_one, 1) || has(of_other, 2);
                assert_eq!(hosts.matches(&frame), expected, "{hosts}: {from} {to}");
                assert_eq!(ports.matches(&frame), expected, "{ports}: {from} {to}");
                let in_range = expected || has(of_other, 3);
                assert_eq!(ranges.matches(&frame), in_range, "{ranges}: {from} {to}");
            }
        }
    }
    let families = BpfFilter::parse("src host 10.0.0.1 or src host fe80::1").unwrap();
    assert!(families.matches(&between(17, [1, 2], [0; 2])));
    assert!(!families.matches(&between(17, [2, 1], [0; 2])));
    let mut six = vec![0; 60];
    (six[12], six[13], six[14], six[22], six[23], six[37]) = (0x86, 0xdd, 0x60, 0xfe, 0x80, 1);
    assert!(families.matches(&six));
    let transports = BpfFilter::parse("tcp src port 7 or udp src port 8").unwrap();
    for (protocol, port, expected) in [(6, 7, true), (6, 8, false), (17, 7, false), (17, 8, true)] {
        assert_eq!(transports.matches(&between(protocol, [1, 2], [port, 9])), expected);
    }
}

#[test]
fn directions_have_the_kernels_numbers() {
    for number in 0..=255 {
        assert_eq!(PacketDirection::from_pkttype(number).to_pkttype(), number);
    }
    let outbound = BpfFilter::parse("outbound").unwrap();
    let gone = |direction| {
        let known = Ancillary { direction: Some(direction), ..Ancillary::default() };
        outbound.matches_with(&[0; 60], &known)
    };
    assert!(gone(PacketDirection::Outgoing) && !gone(PacketDirection::Host));
}

#[test]
fn a_deep_operand_on_either_side_is_computed_with_cells_to_spare() {
    // `len - (len - (len - …))`, nine deep, beside a shallow one.
    let deep = (0..9).fold("len".to_owned(), |inner, _| format!("(len - ({inner} - 1))"));
    let value = (0..9).fold(60_u32, |inner, _| 60_u32.wrapping_sub(inner.wrapping_sub(1)));
    for text in [format!("{deep} = len - {}", 60 - value), format!("len - {} = {deep}", 60 - value)]
    {
        let filter = BpfFilter::parse(&text).unwrap();
        assert!(filter.matches(&[0; 60]), "{text}");
        let wrong = BpfFilter::parse(&text.replace(" = ", " != ")).unwrap();
        assert!(!wrong.matches(&[0; 60]), "{text}");
    }
}
