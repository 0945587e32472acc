//! A web server without the kernel's stack: `smoltcp_http INTERFACE ADDRESS`, until Ctrl-C.
//!
//! AF_XDP takes the packets of the interface's queue 0, smoltcp speaks ARP, IP and TCP, and this answers each request. As all
//! packets of the queue are taken, use an interface that nothing else needs; on a card, one whose traffic is all on that queue.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ringtap::XdpSocket;
use ringtap_smoltcp::{Device, now};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, IpCidr};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Connections at once.
const CONNECTIONS: usize = 16;
const PORT: u16 = 80;
const PAGE: &str = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 22\r\n\r\nserved from user space";
const LONGEST_REQUEST: usize = 8192;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, interface, address] = &arguments[..] else {
        return Err("usage: smoltcp_http INTERFACE ADDRESS".into());
    };
    let address: Ipv4Addr = address.parse()?;
    let mut socket = XdpSocket::open(interface)?;
    let stop = socket.receiver().stop_handle()?;
    ctrlc::set_handler(move || stop.stop())?;
    let mut device = Device::af_xdp(socket);

    let own = EthernetAddress([0x02, 0, 0, 0, 0, 0x50]);
    let mut stack = Interface::new(Config::new(own.into()), &mut device, now());
    stack
        .update_ip_addrs(|all| all.push(IpCidr::new(address.into(), 24)).expect("it is the first"));
    let mut sockets = SocketSet::new(Vec::new());
    let mut requests: BTreeMap<SocketHandle, Vec<u8>> = BTreeMap::new();
    for _ in 0..CONNECTIONS {
        let buffer = || tcp::SocketBuffer::new(vec![0; 16384]);
        requests.insert(sockets.add(tcp::Socket::new(buffer(), buffer())), Vec::new());
    }

    println!("serving on http://{address}/");
    let mut answered = 0;
    loop {
        stack.poll(now(), &mut device, &mut sockets);
        for (&handle, request) in &mut requests {
            answered += u64::from(serve(sockets.get_mut(handle), request)?);
        }
        stack.poll(now(), &mut device, &mut sockets); // what was just written
        let delay = stack.poll_delay(now(), &sockets);
        if !device.wait(delay.map(Into::into))? {
            break;
        }
    }
    println!("{answered} requests answered, {:?}", device.stats());
    Ok(())
}

/// Goes on with a connection. Returns whether it has answered a request.
fn serve(socket: &mut tcp::Socket<'_>, request: &mut Vec<u8>) -> Result<bool> {
    if !socket.is_open() {
        request.clear();
        socket.listen(PORT)?;
    }
    if socket.can_recv() {
        socket.recv(|bytes| {
            request.extend_from_slice(bytes);
            (bytes.len(), ())
        })?;
    }
    let is_whole = request.windows(4).any(|end| end == b"\r\n\r\n");
    if request.len() > LONGEST_REQUEST {
        socket.abort();
    } else if is_whole && socket.can_send() {
        socket.send_slice(PAGE.as_bytes())?;
        socket.close();
        request.clear();
        return Ok(true);
    } else if !socket.may_recv() && socket.may_send() {
        socket.close(); // the client has closed first
    }
    Ok(false)
}
