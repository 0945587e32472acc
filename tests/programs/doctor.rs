//! What the doctor says of interfaces that are as they should be and of some that are not, and of processes that
//! may do less than others.

use ringtap::doctor::{Report, Verdict, examine};
use ringtap_lab::{child as process, limits, link, namespace, seccomp};

#[track_caller]
fn verdict(report: &Report, area: &str, subject: &str) -> Verdict {
    let found = report.find(area, subject);
    found.unwrap_or_else(|| panic!("nothing of {area}, {subject}:\n{report}")).verdict
}

#[track_caller]
fn remedy(report: &Report, area: &str, subject: &str) -> String {
    let found = report.find(area, subject);
    let remedy = found.and_then(|finding| finding.remedy.clone());
    remedy.unwrap_or_else(|| panic!("no remedy of {area}, {subject}:\n{report}"))
}

#[ringtap_lab::test]
fn where_everything_is_allowed_everything_works() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let report = examine(Some(&veth.left));
    assert_eq!(verdict(&report, "packet sockets", "block timeouts"), Verdict::Unknown, "{report}");
    net.loopback_up();
    let report = examine(Some(&veth.left));
    let timeouts = report.find("packet sockets", "block timeouts").unwrap();
    assert!(timeouts.detail.starts_with("a timeout of 1 ms takes "), "{timeouts:?}");
    for (area, subject) in [
        ("system", "kernel"),
        ("system", "cores"),
        ("capabilities", "CAP_NET_RAW"),
        ("io_uring", "ring"),
        ("packet sockets", "receive"),
        ("packet sockets", "frames"),
        ("packet sockets", "fanout"),
        ("packet sockets", "send"),
        ("AF_XDP", "send"),
        (&veth.left, "link"),
        (&veth.left, "LRO"),
        (&veth.left, "XDP program"),
        (&veth.left, "drops of the card"),
    ] {
        assert_eq!(verdict(&report, area, subject), Verdict::Works, "{area}, {subject}:\n{report}");
    }
    let link = report.find(&veth.left, "link").unwrap();
    assert!(link.detail.starts_with("veth, MTU 1500"), "{link:?}");
    // Since 6.8 veth tells all three.
    let hints = report.find(&veth.left, "XDP hints");
    if let Some(hints) = hints.filter(|hints| hints.detail.contains("VLAN")) {
        assert_eq!(hints.detail, "timestamp, hash, VLAN tag");
    }
    let mut seen = std::collections::HashSet::new();
    for finding in report.findings() {
        assert!(seen.insert((finding.area.clone(), finding.subject)), "twice: {finding:?}");
        let is_bad = finding.verdict.is_bad();
        assert!(!is_bad || finding.remedy.is_some(), "bad, and no remedy: {finding:?}");
    }
}

#[ringtap_lab::test]
fn what_is_wrong_with_an_interface_is_said_with_a_remedy() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let name = veth.left.as_str();
    link::set_up(&veth.right, false).unwrap();
    let report = examine(Some(name));
    let link = report.find(name, "link").unwrap();
    assert!(link.verdict == Verdict::Limited && link.detail.contains("no carrier"), "{link:?}");
    link::set_up(name, false).unwrap();
    let report = examine(Some(name));
    assert!(report.find(name, "link").unwrap().detail.contains("down"), "{report}");
    assert_eq!(remedy(&report, name, "link"), format!("`ip link set {name} up`"));

    let report = examine(Some("lo"));
    assert_eq!(verdict(&report, "lo", "link"), Verdict::Limited);
    let report = examine(Some("nothere"));
    assert_eq!(verdict(&report, "nothere", "link"), Verdict::Missing);
    assert!(remedy(&report, "nothere", "link").contains("ip link"), "{report}");
    assert_eq!(report.findings().iter().filter(|finding| finding.area == "nothere").count(), 1);
}

#[ringtap_lab::test]
fn a_program_that_is_attached_already_is_found() {
    use ringtap::xdp::{Attach, XdpProgram};

    let Some(net) = namespace() else { return };
    let veth = net.veth();
    match XdpProgram::redirect_all(&veth.left, Attach::Generic) {
        Ok(_program) => {
            let report = examine(Some(&veth.left));
            assert_eq!(verdict(&report, "AF_XDP", "receive"), Verdict::Works, "{report}");
            assert_eq!(verdict(&report, &veth.left, "XDP program"), Verdict::Limited, "{report}");
            assert!(remedy(&report, &veth.left, "XDP program").contains(&veth.left), "{report}");
        }
        // An ordinary user cannot, and the doctor knows.
        Err(error) => {
            let report = examine(None);
            let receive = report.find("AF_XDP", "receive").unwrap();
            assert_eq!(receive.verdict, Verdict::Missing, "{error}: {report}");
            assert!(receive.detail.starts_with("loading the XDP program: "), "{receive:?}");
            assert!(remedy(&report, "AF_XDP", "receive").contains("CAP_BPF"), "{report}");
        }
    }
}

#[ringtap_lab::test]
fn a_process_without_io_uring_is_told_what_goes_on_without() {
    if namespace().is_some() {
        process::run(module_path!(), "without_io_uring", "1");
    }
}

#[ringtap_lab::test]
fn a_process_without_capabilities_is_told_which_it_lacks() {
    if namespace().is_some() {
        process::run(module_path!(), "without_capabilities", "1");
    }
}

/// What runs in a process of its own; as ordinary tests these do nothing.
mod child {
    use super::*;

    #[ringtap_lab::test]
    fn without_io_uring() {
        let Some(_) = process::value() else { return };
        let _net = ringtap_lab::Namespace::enter().unwrap();
        seccomp::refuse(libc::SYS_io_uring_setup, libc::EPERM);
        let report = examine(None);
        assert_eq!(verdict(&report, "io_uring", "ring"), Verdict::Missing, "{report}");
        assert!(remedy(&report, "io_uring", "ring").contains("seccomp"), "{report}");
        assert_eq!(verdict(&report, "io_uring", "without it"), Verdict::Works, "{report}");
        assert_eq!(verdict(&report, "packet sockets", "receive"), Verdict::Works, "{report}");
    }

    #[ringtap_lab::test]
    fn without_capabilities() {
        let Some(_) = process::value() else { return };
        let _net = ringtap_lab::Namespace::enter().unwrap();
        limits::keep_capabilities(0);
        limits::set(libc::RLIMIT_MEMLOCK, 1 << 16);
        let report = examine(Some("lo"));
        assert_eq!(verdict(&report, "capabilities", "CAP_NET_RAW"), Verdict::Missing, "{report}");
        assert_eq!(verdict(&report, "capabilities", "CAP_BPF"), Verdict::Limited, "{report}");
        assert_eq!(verdict(&report, "limits", "locked memory"), Verdict::Limited, "{report}");
        assert_eq!(verdict(&report, "packet sockets", "receive"), Verdict::Missing, "{report}");
        assert!(remedy(&report, "packet sockets", "receive").contains("setcap"), "{report}");
        assert_eq!(report.find("packet sockets", "send"), None, "for the same reason: {report}");
        assert_eq!(verdict(&report, "AF_XDP", "send"), Verdict::Missing, "{report}");
        assert_eq!(verdict(&report, "AF_XDP", "receive"), Verdict::Missing, "{report}");
        assert_ne!(
            verdict(&report, "lo", "link"),
            Verdict::Missing,
            "needs no capability: {report}"
        );
    }
}
