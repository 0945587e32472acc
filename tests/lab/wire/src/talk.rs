//! What hosts say to each other: DNS, HTTP and TLS, as frames.

use etherparse::PacketBuilder;

const SERVER: [u8; 4] = [192, 0, 2, 1];

/// A name that is asked for: the `number`th.
fn name(number: u32) -> String {
    format!("host{}.example.org", number % 50)
}

/// The frames of one host's visit, the `number`th: it asks for a name, gets a page, and says hello by TLS.
pub fn visit(number: u32) -> Vec<Vec<u8>> {
    let client = [10, 1, (number >> 8) as u8, number as u8];
    let port = 30_000 + (number >> 16) as u16;
    let mut frames = dns(client, port, number);
    let request = format!("GET /{number} HTTP/1.1\r\nHost: {}\r\n\r\n", name(number));
    let body = format!("page {number}");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    frames.extend(connection(client, port, 80, request.as_bytes(), (head + &body).as_bytes()));
    frames.extend(connection(
        client,
        port,
        443,
        &client_hello(&name(number)),
        b"\x15\x03\x03\0\x02\x01\0",
    ));
    frames
}

/// Seven frames of different protocols, each the first that is said; two of them have a VLAN tag.
///
/// # Panics
/// Never: a `Vec` takes everything.
pub fn first_words() -> Vec<Vec<u8>> {
    let ([client, server], mut frames) = ([[10, 0, 0, 1], [10, 0, 0, 2]], Vec::new());
    let link = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let tcp: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3],
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"hello?",
    ];
    for (number, payload) in tcp.into_iter().enumerate() {
        let ip = match number % 2 {
            0 => link().ipv4(client, server, 64),
            _ => link().single_vlan(7.try_into().expect("12 bits")).ipv4(client, server, 64),
        };
        let mut frame = Vec::new();
        ip.tcp(40_000, 4_000, 1, 1_000).write(&mut frame, payload).expect("a Vec takes all");
        frames.push(frame);
    }
    for port in [53, 5353] {
        let question = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01";
        let mut frame = Vec::new();
        let ip = link().ipv6([1; 16], [2; 16], 64).udp(40_000, port);
        ip.write(&mut frame, question).expect("a Vec takes all");
        frames.push(frame);
    }
    frames
}

fn frame(from: [u8; 4], to: [u8; 4]) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4(from, to, 64)
}

fn dns(client: [u8; 4], port: u16, number: u32) -> Vec<Vec<u8>> {
    let id = (number as u16).to_be_bytes();
    let mut question = Vec::new();
    for label in name(number).split('.') {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let query = [&id[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &question].concat();
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
    let answer = [&id[..], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0], &question, &record].concat();
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    frame(client, SERVER).udp(port, 53).write(&mut asked, &query).expect("a Vec takes all");
    frame(SERVER, client).udp(53, port).write(&mut answered, &answer).expect("a Vec takes all");
    vec![asked, answered]
}

/// A connection of TCP from its beginning to its end.
fn connection(
    client: [u8; 4],
    client_port: u16,
    port: u16,
    request: &[u8],
    answer: &[u8],
) -> Vec<Vec<u8>> {
    let (asked, answered) = (1 + request.len() as u32, 1 + answer.len() as u32);
    // From the client or not, its flags, how far each side is, and what it says.
    let segments: [(bool, &str, u32, u32, &[u8]); 8] = [
        (true, "S", 0, 0, &[]),
        (false, "SA", 0, 1, &[]),
        (true, "A", 1, 1, &[]),
        (true, "A", 1, 1, request),
        (false, "A", 1, asked, answer),
        (true, "FA", asked, answered, &[]),
        (false, "FA", answered, asked + 1, &[]),
        (true, "A", asked + 1, answered + 1, &[]),
    ];
    let frames = segments.map(|(is_clients, flags, seq, ack, payload)| {
        let mut tcp = match is_clients {
            true => frame(client, SERVER).tcp(client_port, port, seq, 60_000),
            false => frame(SERVER, client).tcp(port, client_port, seq, 60_000),
        };
        for flag in flags.chars() {
            tcp = match flag {
                'S' => tcp.syn(),
                'F' => tcp.fin(),
                _ => tcp.ack(ack),
            };
        }
        let mut frame = Vec::new();
        tcp.write(&mut frame, payload).expect("a Vec takes all");
        frame
    });
    frames.into()
}

/// The first record of TLS, which names the server.
fn client_hello(name: &str) -> Vec<u8> {
    let name = name.as_bytes();
    let sized = |bytes: Vec<u8>| [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
    let server_name = sized([&[0][..], &sized(name.to_vec())].concat());
    let extension = [&[0, 0][..], &sized(server_name)].concat();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    // No session, one cipher suite, no compression.
    hello.extend([0, 0, 2, 0x13, 1, 1, 0]);
    hello.extend(sized(extension));
    let handshake = [&[1, 0][..], &sized(hello)].concat();
    [&[22, 3, 1][..], &sized(handshake)].concat()
}
