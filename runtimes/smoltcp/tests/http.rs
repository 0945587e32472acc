//! A server on smoltcp and a client of the kernel's, over a veth pair.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use ringtap::capture::RxPort;
use ringtap::inject::TxPort;
use ringtap::xdp::{Attach, XdpProgram};
use ringtap::{Capture, Error, Injector, StopHandle, XdpSocket};
use ringtap_lab::{
    Generator, Host, Traffic, Tun, Veth, bootstrap, link, namespace, skip_for_ordinary_users,
};
use ringtap_smoltcp::{Device, DeviceStats, now};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Checksum, Device as _, Medium};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

ringtap_lab::test_binary!();

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const LONG: Duration = Duration::from_secs(60);

/// Bytes in which a gap or a repetition shows.
fn bytes(len: usize) -> Vec<u8> {
    (0..len as u32 / 4)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect()
}

/// Sends back what each connection sends, until the device is stopped.
fn echo<R: RxPort, T: TxPort>(mut device: Device<R, T>) -> (ringtap::Result<()>, Device<R, T>) {
    let hardware = match device.capabilities().medium {
        Medium::Ip => HardwareAddress::Ip,
        Medium::Ethernet => HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, 80])),
    };
    let mut stack = Interface::new(Config::new(hardware), &mut device, now());
    stack.update_ip_addrs(|all| all.push(IpCidr::new(SERVER.into(), 24)).unwrap());
    let mut sockets = SocketSet::new(Vec::new());
    let buffer = || tcp::SocketBuffer::new(vec![0; 1 << 16]);
    let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
    loop {
        stack.poll(now(), &mut device, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        if !socket.is_open() {
            socket.listen(7).unwrap();
        }
        while socket.can_recv() && socket.can_send() {
            let room = socket.send_capacity() - socket.send_queue();
            let part = socket.recv(|bytes| {
                let part = bytes[..bytes.len().min(room)].to_vec();
                (part.len(), part)
            });
            socket.send_slice(&part.unwrap()).unwrap();
        }
        if !socket.may_recv() && socket.may_send() && socket.recv_queue() == 0 {
            socket.close();
        }
        stack.poll(now(), &mut device, &mut sockets);
        let delay = stack.poll_delay(now(), &sockets);
        match device.wait(delay.map(Into::into)) {
            Ok(true) => {}
            ended => return (ended.map(drop), device),
        }
    }
}

/// Connects to the echo, whose only socket may still be that of the connection before: it refuses until it listens again.
fn connect() -> TcpStream {
    let began = Instant::now();
    loop {
        match TcpStream::connect_timeout(&(SERVER, 7).into(), LONG) {
            Err(error)
                if error.kind() == std::io::ErrorKind::ConnectionRefused
                    && began.elapsed() < LONG =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            connected => return connected.unwrap(),
        }
    }
}

/// Sends `len` bytes to the echo, and returns whether the same come back.
fn ask(len: usize) -> bool {
    let sent = bytes(len);
    let mut stream = connect();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut reading = stream.try_clone().unwrap();
    let received = std::thread::spawn(move || {
        let mut received = Vec::new();
        reading.read_to_end(&mut received).map(|_| received)
    });
    stream.write_all(&sent).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    received.join().unwrap().unwrap() == sent
}

/// A client behind the left end, several connections, and what the device has counted at the end.
fn serves<R: RxPort, T: TxPort + 'static>(
    veth: Veth,
    finishes: bool,
    mut device: Device<R, T>,
) -> DeviceStats {
    let stop: StopHandle = device.receiver().stop_handle().unwrap();
    let serving = std::thread::spawn(move || echo(device));
    let client = Host::new(&veth.left, CLIENT);
    if finishes {
        client.finish_checksums();
    }
    link::wait_for_carrier(&veth.right);
    let asking = client.run(|| [4, 100_000, 1 << 20].map(ask));
    assert_eq!(asking.join().unwrap(), [true; 3]);
    stop.stop();
    let (ended, mut device) = serving.join().unwrap();
    ended.unwrap();
    assert_eq!(device.sender().pending(), 0, "all was handed over");
    device.stats()
}

fn ports(veth: &Veth) -> (Capture, Injector) {
    let capture = Capture::builder().interface(&veth.right).block_size(1 << 18).block_count(16);
    let capture = capture.block_timeout_ms(1).build().unwrap();
    // Few slots, so that the ring is full at times; the capture shows what is sent, which must be left out.
    let injector = Injector::builder().interface(&veth.right).frame_count(16).build().unwrap();
    (capture, injector)
}

#[ringtap_lab::test]
fn a_connection_over_packet_sockets_echoes_each_byte() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let (capture, injector) = ports(&veth);
    // The client's checksums are those that a card would finish.
    let mut checksums = smoltcp::phy::ChecksumCapabilities::default();
    checksums.tcp = Checksum::Tx;
    let stats = serves(veth, false, Device::new(capture, injector).unwrap().checksums(checksums));
    assert!(stats.received > 0 && stats.sent > 0, "{stats:?}");
    assert!(stats.outgoing >= stats.sent, "{stats:?}");
    assert_eq!((stats.truncated, stats.tagged, stats.refused), (0, 0, 0), "{stats:?}");
}

#[ringtap_lab::test]
fn a_connection_over_af_xdp_echoes_each_byte() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    if !bootstrap::was_root() {
        let refused = XdpProgram::redirect_all(&veth.right, Attach::Auto).unwrap_err();
        assert!(refused.to_string().contains("CAP_BPF"), "{refused}");
        return skip_for_ordinary_users("receiving through AF_XDP takes root");
    }
    let socket = XdpSocket::builder().interface(&veth.right).frame_count(1024).build().unwrap();
    let stats = serves(veth, true, Device::af_xdp(socket));
    assert!(stats.received > 0 && stats.sent > 0, "{stats:?}");
    assert_eq!((stats.truncated, stats.tagged, stats.refused), (0, 0, 0), "{stats:?}");
}

#[ringtap_lab::test]
fn what_is_not_for_the_stack_is_left_out_and_counted() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let capture = Capture::builder().interface(&veth.right).block_timeout_ms(1).snap_len(80);
    let injector = Injector::open(&veth.right).unwrap();
    let mut device = Device::new(capture.build().unwrap(), injector).unwrap();
    let send = |traffic: &Traffic, count| Generator::new(&veth.left, traffic).flood(count);
    send(&Traffic { len: 64, ..Traffic::default() }, 3);
    send(&Traffic { len: 200, ..Traffic::default() }, 4);
    device.sender().try_send(&[0xee; 60]).unwrap();
    let start = Instant::now();
    let mut seen = Vec::new();
    let left_out = |stats: DeviceStats| stats.truncated + stats.outgoing;
    while (seen.len() as u64) + left_out(device.stats()) < 8 {
        assert!(start.elapsed() < LONG, "{:?}", device.stats());
        device.wait(Some(Duration::from_millis(1))).unwrap();
        while let Some((packet, _)) = device.receive(now()) {
            use smoltcp::phy::RxToken;
            seen.push(packet.consume(<[u8]>::len));
        }
    }
    assert_eq!(seen, [64; 3]);
    let stats = device.stats();
    assert_eq!((stats.received, stats.truncated, stats.outgoing), (3, 4, 1), "{stats:?}");
}

#[ringtap_lab::test]
fn a_removed_interface_is_an_error_of_the_wait() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let (capture, injector) = ports(&veth);
    let serving = std::thread::spawn(|| echo(Device::new(capture, injector).unwrap()).0);
    std::thread::sleep(Duration::from_millis(20));
    veth.delete();
    let ended = serving.join().unwrap();
    assert!(matches!(ended, Err(Error::InterfaceGone { .. })), "{ended:?}");
}

#[ringtap_lab::test]
fn a_tun_has_no_link_layer() {
    let Some(_net) = namespace() else { return };
    let tun = match Tun::new() {
        Ok(tun) => tun,
        Err(error) => return skip_for_ordinary_users(&format!("no tun: {error}")),
    };
    let capture = Capture::builder().interface(&tun.name).build().unwrap();
    let device = Device::new(capture, Injector::open(&tun.name).unwrap()).unwrap();
    assert_eq!(device.capabilities().medium, Medium::Ip);
    assert_eq!(device.capabilities().max_transmission_unit, 1500);
}

#[ringtap_lab::test]
fn a_ring_that_is_full_is_waited_for_without_spinning_and_packets_are_kept() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let (capture, injector) = ports(&veth);
    let mut device = Device::new(capture, injector).unwrap();
    Generator::new(&veth.left, &Traffic { len: 64, ..Traffic::default() }).flood(1);
    let start = Instant::now();
    while device.receive(now()).is_none() {
        // Taken and dropped: a packet is there, so the interface has been up.
        assert!(device.wait(Some(Duration::from_millis(1))).unwrap() && start.elapsed() < LONG);
    }
    Generator::new(&veth.left, &Traffic { len: 64, ..Traffic::default() }).flood(1);
    link::set_up(&veth.right, false).unwrap();
    while device.sender().try_send(&[0xff; 60]).unwrap() {}
    let start = Instant::now();
    for _ in 0..10 {
        assert!(device.wait(Some(Duration::ZERO)).unwrap());
        assert!(device.receive(now()).is_none(), "its answer would have no room");
    }
    assert!(start.elapsed() >= Duration::from_millis(150), "it spins");
    link::set_up(&veth.right, true).unwrap();
    let start = Instant::now();
    while device.receive(now()).is_none() {
        assert!(device.wait(Some(Duration::from_millis(1))).unwrap() && start.elapsed() < LONG);
    }
}

#[ringtap_lab::test]
fn sockets_that_make_no_device_are_refused() {
    let Some(net) = namespace() else { return };
    let veth = net.veth();
    let ring = |interface: &str| Capture::builder().interface(interface).build().unwrap();
    let refused = Device::new(ring(&veth.right), Injector::open(&veth.left).unwrap()).map(drop);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains(&veth.right) && text.contains("has one interface"), "{text}");
}
